"""What a management key with a role may do through the API: the permission that each method of each path needs.

The table of roles is the console's (``gateway.console.roles``). What is not in this one is for owners alone. Nothing
here raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gateway.console.roles import PERMISSIONS, Permission, Role

READING: Final = frozenset({"GET", "HEAD"})
_WRITE: Final = Permission.OWNERS_CHANGE
RIGHTS: Final[tuple[tuple[str, Permission, Permission], ...]] = (
    (r"/api/v1/(key|auth/key)|/openapi\.json", Permission.PROFILE, _WRITE),
    (r"/api/v1/keys(/.*)?", Permission.KEYS_SEE, Permission.KEYS_CHANGE),
    (r"/api/v1/guardrails(/.*)?", Permission.KEYS_SEE, Permission.KEYS_CHANGE),
    (r"/api/v1/byok(/.*)?", Permission.KEYS_SEE, Permission.KEYS_CHANGE),
    (r"/api/v1/workspaces/[^/]+/members(/.*)?", Permission.TEAMS_SEE, Permission.MEMBERS_CHANGE),
    (r"/api/v1/workspaces/[^/]+/budgets(/.*)?", Permission.BUDGETS_SEE, Permission.BUDGETS_CHANGE),
    (r"/api/v1/(teams|workspaces)(/.*)?", Permission.TEAMS_SEE, Permission.TEAMS_MAKE),
    (r"/api/v1/organization/.*", Permission.TEAMS_SEE, Permission.USERS_CHANGE),
    (r"/api/v1/budgets(/.*)?", Permission.BUDGETS_SEE, Permission.BUDGETS_CHANGE),
    (r"/api/v1/prices(/.*)?", Permission.COST_SEE, Permission.PRICES_CHANGE),
    (r"/api/v1/billing/.*", Permission.BILLING_SEE, Permission.BILLING_CLOSE),
    (r"/api/v1/exports/.*", Permission.COST_SEE, _WRITE),
    (r"/api/v1/analytics/.*", Permission.COST_SEE, Permission.COST_SEE),
    (r"/v1/organization/.*", Permission.USAGE_SEE, _WRITE),
    (r"/api/v1/(usage|activity|credits|generation|rankings|datasets)(/(?!content).*)?", Permission.USAGE_SEE, _WRITE),
    (r"/api/v1/(content(/.*)?|generation/content)", Permission.USERS_CHANGE, Permission.USERS_CHANGE),
    (r"/api/v1/apps(/.*)?", Permission.USAGE_SEE, Permission.USERS_CHANGE),
    (r"/api/v1/route/explain", Permission.ROUTING_SEE, Permission.ROUTING_SEE),
    (r"/api/v1/models/discovered|/metrics", Permission.FLEET_SEE, _WRITE),
    (r"/(api/)?v1/(models?|endpoints|providers|embeddings/models)(/.*)?", Permission.MODELS_SEE, _WRITE),
    (r"/api/v1/presets(/.*)?", Permission.MODELS_SEE, Permission.KEYS_CHANGE),
)
"""Paths, and what reading and anything else there needs; the first that fits counts."""
_COMPILED: Final = tuple((re.compile(path), reads, writes) for path, reads, writes in RIGHTS)


def permission(method: str, path: str) -> Permission:
    """Return what ``method`` of ``path`` needs."""
    for pattern, reads, writes in _COMPILED:
        if pattern.fullmatch(path):
            return reads if method in READING else writes
    return Permission.OWNERS_CHANGE


def allows(method: str, path: str) -> Callable[[str], bool]:
    """Return what says of a role whether it may."""
    needed = PERMISSIONS[permission(method, path)]
    return lambda role: role in set(Role) and Role(role) in needed
