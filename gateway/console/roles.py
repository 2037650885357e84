"""Who may do what in the console: a table of permissions by role, and what follows from it for one user.

A role is granted everywhere or in one team. A permission *reaches* everything, some teams, or nothing; what is asked
for a team that is out of reach is as unknown as one that does not exist. Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec


class Role(StrEnum):
    """What a person is to the gateway, or to one of its teams."""

    OWNER = "owner"
    """Everything; the only one who makes or changes owners."""
    ADMIN = "admin"
    """Everything but owners and closing the books."""
    BILLING = "billing"
    """Money: usage, prices, costs, statements, closing."""
    TEAM_ADMIN = "team_admin"
    """Keys and members of a team."""
    VIEWER = "viewer"
    """Looks and changes nothing."""


GLOBAL_ROLES: Final = (Role.OWNER, Role.ADMIN, Role.BILLING, Role.VIEWER)
TEAM_ROLES: Final = (Role.TEAM_ADMIN, Role.VIEWER)


class Permission(StrEnum):
    """What a page or a form needs."""

    USAGE_SEE = "usage.see"
    COST_SEE = "cost.see"
    FLEET_SEE = "fleet.see"
    FLEET_DRIVE = "fleet.drive"
    ROUTING_SEE = "routing.see"
    KEYS_SEE = "keys.see"
    KEYS_CHANGE = "keys.change"
    TEAMS_SEE = "teams.see"
    TEAMS_MAKE = "teams.make"
    MEMBERS_CHANGE = "members.change"
    BUDGETS_SEE = "budgets.see"
    BUDGETS_CHANGE = "budgets.change"
    MODELS_SEE = "models.see"
    PRICES_CHANGE = "prices.change"
    BILLING_SEE = "billing.see"
    BILLING_CLOSE = "billing.close"
    AUDIT_SEE = "audit.see"
    PLAYGROUND_USE = "playground.use"
    USERS_CHANGE = "users.change"
    OWNERS_CHANGE = "owners.change"
    PROFILE = "profile"
    """One's own password, sessions and looks."""


_OWNER, _ADMIN, _BILLING, _TEAM, _VIEWER = Role
PERMISSIONS: Final[Mapping[Permission, frozenset[Role]]] = MappingProxyType(
    {
        Permission.USAGE_SEE: frozenset({_OWNER, _ADMIN, _BILLING, _TEAM, _VIEWER}),
        Permission.COST_SEE: frozenset({_OWNER, _ADMIN, _BILLING}),
        Permission.FLEET_SEE: frozenset({_OWNER, _ADMIN, _VIEWER}),
        Permission.FLEET_DRIVE: frozenset({_OWNER, _ADMIN}),
        Permission.ROUTING_SEE: frozenset({_OWNER, _ADMIN, _VIEWER}),
        Permission.KEYS_SEE: frozenset({_OWNER, _ADMIN, _TEAM, _VIEWER}),
        Permission.KEYS_CHANGE: frozenset({_OWNER, _ADMIN, _TEAM}),
        Permission.TEAMS_SEE: frozenset({_OWNER, _ADMIN, _BILLING, _TEAM, _VIEWER}),
        Permission.TEAMS_MAKE: frozenset({_OWNER, _ADMIN}),
        Permission.MEMBERS_CHANGE: frozenset({_OWNER, _ADMIN, _TEAM}),
        Permission.BUDGETS_SEE: frozenset({_OWNER, _ADMIN, _BILLING, _TEAM, _VIEWER}),
        Permission.BUDGETS_CHANGE: frozenset({_OWNER, _ADMIN}),
        Permission.MODELS_SEE: frozenset({_OWNER, _ADMIN, _BILLING, _TEAM, _VIEWER}),
        Permission.PRICES_CHANGE: frozenset({_OWNER, _ADMIN}),
        Permission.BILLING_SEE: frozenset({_OWNER, _ADMIN, _BILLING, _TEAM}),
        Permission.BILLING_CLOSE: frozenset({_OWNER, _BILLING}),
        Permission.AUDIT_SEE: frozenset({_OWNER, _ADMIN, _TEAM}),
        Permission.PLAYGROUND_USE: frozenset({_OWNER, _ADMIN, _TEAM}),
        Permission.USERS_CHANGE: frozenset({_OWNER, _ADMIN}),
        Permission.OWNERS_CHANGE: frozenset({_OWNER}),
        Permission.PROFILE: frozenset(Role),
    }
)
"""The roles that carry a permission. A role that was granted in a team carries it there alone."""
WHOLE: Final = frozenset(
    {
        Permission.FLEET_SEE,
        Permission.FLEET_DRIVE,
        Permission.ROUTING_SEE,
        Permission.TEAMS_MAKE,
        Permission.COST_SEE,
        Permission.PRICES_CHANGE,
        Permission.BILLING_CLOSE,
        Permission.USERS_CHANGE,
        Permission.OWNERS_CHANGE,
    }
)
"""Permissions about what belongs to no team: a role in a team does not carry them."""


class Grant(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A role in a team, or everywhere where ``team`` is ``""``."""

    role: Role
    team: str = ""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a permission of one user goes: ``everything``, or ``teams``, which may be none."""

    everything: bool
    teams: frozenset[str]

    def __bool__(self) -> bool:
        return self.everything or bool(self.teams)

    def covers(self, team: str) -> bool:
        """Return whether it reaches ``team``; ``""`` is what belongs to no team."""
        return self.everything or team in self.teams


def sees_costs(role: str) -> bool:
    """Return whether a management key of ``role``, or the operator's, which has none, is shown what the owner pays."""
    return not role or (role in set(Role) and Role(role) in PERMISSIONS[Permission.COST_SEE])


def reach(grants: Iterable[Grant], permission: Permission) -> Reach:
    """Return how far ``permission`` reaches for who has ``grants``."""
    roles = PERMISSIONS[permission]
    held = [grant for grant in grants if grant.role in roles]
    everywhere = any(not grant.team for grant in held)
    of_teams = permission not in WHOLE
    return Reach(everywhere, frozenset(grant.team for grant in held if grant.team and of_teams))


def fits(grant: Grant) -> bool:
    """Return whether there is such a role: some are for the whole gateway only, some for a team only."""
    return grant.role in (TEAM_ROLES if grant.team else GLOBAL_ROLES)
