"""Workspaces (teams as OpenRouter has them) as values, and how the keeper is asked about them. Nothing here raises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gateway.types.method import Method, method

ROLES: Final = ("admin", "member")


class Workspace(msgspec.Struct, frozen=True):
    """A team with its settings; times are microseconds since 1970.

    Attributes:
        team: its slug.
        name: what people call it.
        description: ``""`` for none.
        default_model: what requests that name no model mean, ``""`` for none.
        default_sort: how endpoints are sorted for requests that do not say, ``""`` for not at all.
        updated_at: when settings were changed, or None.
    """

    team: str
    name: str
    created_at: int
    description: str = ""
    default_model: str = ""
    default_sort: str = ""
    updated_at: int | None = None


class WorkspacePatch(msgspec.Struct, frozen=True):
    """A change of a team; what is ``UNSET`` stays."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType = msgspec.UNSET
    default_model: str | msgspec.UnsetType = msgspec.UNSET
    default_sort: str | msgspec.UnsetType = msgspec.UNSET


class Member(msgspec.Struct, frozen=True):
    """Somebody who belongs to a team; ``user_id`` is an e-mail address."""

    team: str
    user_id: str
    role: str
    created_at: int


WORKSPACES: Final[Method[Sequence[Workspace]]] = method("workspaces.list", tuple[()], tuple[Workspace, ...])
WORKSPACE: Final[Method[Workspace]] = method("workspaces.get", tuple[str], Workspace)
CREATE_WORKSPACE: Final[Method[Workspace]] = method(
    "workspaces.create", tuple[str, str, WorkspacePatch], Workspace, repeatable=False
)
"""Slug, name and settings."""
UPDATE_WORKSPACE: Final[Method[Workspace]] = method("workspaces.update", tuple[str, WorkspacePatch], Workspace)
DELETE_WORKSPACE: Final[Method[None]] = method("workspaces.delete", tuple[str], None, repeatable=False)
MEMBERS: Final[Method[Sequence[Member]]] = method("workspaces.members", tuple[str | None], tuple[Member, ...])
"""Members of a team, or of all."""
ADD_MEMBERS: Final[Method[Sequence[Member]]] = method(
    "workspaces.add_members", tuple[str, tuple[str, ...], str], tuple[Member, ...]
)
"""Team, users and role to those who were not there before."""
REMOVE_MEMBERS: Final[Method[int]] = method("workspaces.remove_members", tuple[str, tuple[str, ...]], int)
TEAM_USAGE: Final[Method[Mapping[str, int]]] = method("workspaces.usage", tuple[str | None], dict[str, int])
"""Nano-USD that teams, or one of them, were charged ever."""
