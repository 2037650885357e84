"""Teams with their settings and members in the database, as OpenRouter's workspaces.

Every change is one transaction. A bad value is ``BadRequest``, a team that there is not ``NotFound``, a database that
is away ``Unavailable``. Whatever serving processes go by is announced (``TOPIC``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import delete, func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from gateway.access.budgets import wall_clock_us
from gateway.access.rules import LONGEST_NAME, checked_name, checked_slug
from gateway.db import changes
from gateway.db.engine import Database
from gateway.db.tables.access import KeyRow, TeamRow
from gateway.db.tables.budget import BudgetAlertRow, BudgetRow
from gateway.db.tables.ledger import UsageDay
from gateway.db.tables.workspace import (
    GuardrailKeyRow,
    GuardrailMemberRow,
    GuardrailRow,
    MemberRow,
    PresetRow,
    PresetVersionRow,
    WorkspaceRow,
)
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing
from gateway.types.budgets import MEMBER
from gateway.types.errors import BadRequest, NotFound
from gateway.types.preferences import Sort
from gateway.types.workspaces import ROLES, Member, Workspace, WorkspacePatch

TOPIC: Final = "governance"
"""What changes of teams, guardrails and presets are announced as."""
DEFAULT_TEAM: Final = "default"
LONGEST_DESCRIPTION: Final = 2_000
MOST_MEMBERS: Final = 10_000
"""Of one team."""
_ADDRESS: Final = re.compile(r"[^\s@\x00-\x1f]{1,64}@[^\s@\x00-\x1f]{1,189}")

_OF_TEAMS: Final[tuple[type[Any], ...]] = (
    *(GuardrailRow, MemberRow, PresetVersionRow),
    *(PresetRow, WorkspaceRow, BudgetRow),
)
"""What goes with a team."""


class WorkspaceStore:
    """The repository of teams' settings and members."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> Sequence[Workspace]:
        """Return every team, by slug."""
        async with reading(self._database) as session:
            settings = {row.team: row for row in await session.scalars(select(WorkspaceRow))}
            teams = await session.scalars(select(TeamRow).order_by(col(TeamRow.slug)))
            return tuple(_workspace(team, settings.get(team.slug)) for team in teams)

    async def get(self, team: str) -> Workspace:
        """Return one team. Raises ``NotFound``."""
        async with reading(self._database) as session:
            return _workspace(await team_row(session, team), await session.get(WorkspaceRow, team))

    async def create(self, slug: str, name: str, settings: WorkspacePatch) -> Workspace:
        """Make a team. Raises ``BadRequest``, also when there is one of that slug."""
        team = TeamRow(slug=checked_slug(slug), name=checked_name(name), created_at=wall_clock_us())
        async with writing(self._database) as session:
            if await session.get(TeamRow, team.slug) is not None:
                raise BadRequest(f"there is a workspace {team.slug!r} already", param="slug")
            session.add(team)
            await session.flush()
            row = await _changed(session, team, settings)
            made = _workspace(team, row)
            await note(session, "team", team.slug, None, made, team=team.slug)
        return made

    async def update(self, slug: str, patch: WorkspacePatch) -> Workspace:
        """Change a team. Raises ``NotFound`` or ``BadRequest``."""
        async with writing(self._database) as session:
            team = await team_row(session, slug)
            before = _workspace(team, await session.get(WorkspaceRow, slug))
            row = await _changed(session, team, patch)
            after = _workspace(team, row)
            await note(session, "team", slug, before, after, team=slug)
        return after

    async def delete(self, slug: str) -> None:
        """Delete a team that never had a key: later the ledger names it. Raises ``NotFound`` or ``BadRequest``."""
        async with writing(self._database) as session:
            team = await team_row(session, slug)
            if slug == DEFAULT_TEAM:
                raise BadRequest("the default workspace stays", param="id")
            if await session.scalar(select(KeyRow.key_id).where(col(KeyRow.team) == slug).limit(1)) is not None:
                raise BadRequest(
                    "a workspace that has had a key stays, because the ledger names it: revoke its keys instead",
                    param="id",
                )
            before = _workspace(team, await session.get(WorkspaceRow, slug))
            rails = select(GuardrailRow.guardrail_id).where(col(GuardrailRow.team) == slug)
            await session.execute(delete(GuardrailKeyRow).where(col(GuardrailKeyRow.guardrail_id).in_(rails)))
            await session.execute(delete(GuardrailMemberRow).where(col(GuardrailMemberRow.guardrail_id).in_(rails)))
            for table in _OF_TEAMS:
                await session.execute(delete(table).where(col(table.team) == slug))
            await session.delete(team)
            await changes.announce(session, TOPIC)
            await note(session, "team", slug, before, None)

    async def members(self, team: str | None) -> Sequence[Member]:
        """Return the members of a team, or of all, in the order in which they came. Raises ``NotFound``."""
        query = select(MemberRow).order_by(col(MemberRow.team), col(MemberRow.created_at), col(MemberRow.user_id))
        async with reading(self._database) as session:
            if team is not None:
                await team_row(session, team)
                query = query.where(col(MemberRow.team) == team)
            return tuple(_member(row) for row in await session.scalars(query))

    async def add_members(self, team: str, users: Sequence[str], role: str) -> Sequence[Member]:
        """Make users members and return those who were none. Raises ``NotFound`` or ``BadRequest``."""
        if role not in ROLES:
            raise BadRequest(f"role is one of {', '.join(ROLES)}", param="role")
        wanted = dict.fromkeys(checked_user(user) for user in users)
        now = wall_clock_us()
        async with writing(self._database) as session:
            await team_row(session, team)
            known = set(await session.scalars(select(MemberRow.user_id).where(col(MemberRow.team) == team)))
            made = [
                MemberRow(team=team, user_id=user, role=role, created_at=now) for user in wanted if user not in known
            ]
            if len(known) + len(made) > MOST_MEMBERS:
                raise BadRequest(f"a workspace has at most {MOST_MEMBERS} members", param="user_ids")
            session.add_all(made)
            for row in made:
                await note(session, "member", row.user_id, None, _member(row), team=team)
        return tuple(_member(row) for row in made)

    async def remove_members(self, team: str, users: Sequence[str]) -> int:
        """Make users no more members and return how many were. Raises ``NotFound``."""
        wanted = {user.strip().lower() for user in users}
        async with writing(self._database) as session:
            await team_row(session, team)
            rows = (await session.scalars(select(MemberRow).where(col(MemberRow.team) == team))).all()
            gone = [row for row in rows if row.user_id in wanted]
            rails = select(GuardrailRow.guardrail_id).where(col(GuardrailRow.team) == team)
            for row in gone:
                await session.execute(
                    delete(GuardrailMemberRow).where(
                        col(GuardrailMemberRow.user_id) == row.user_id, col(GuardrailMemberRow.guardrail_id).in_(rails)
                    )
                )
                limits = select(BudgetRow.budget_id).where(
                    col(BudgetRow.team) == team, col(BudgetRow.key_id) == MEMBER + row.user_id
                )
                tables: tuple[type[Any], ...] = (BudgetAlertRow, BudgetRow)
                for table in tables:
                    await session.execute(delete(table).where(col(table.budget_id).in_(limits)))
                await session.delete(row)
                await note(session, "member", row.user_id, _member(row), None, team=team)
            if gone:
                await changes.announce(session, TOPIC)
        return len(gone)

    async def usage(self, team: str | None) -> Mapping[str, int]:
        """Return what teams, or one of them, were charged ever, in nano-USD. Raises ``NotFound``."""
        query = select(UsageDay.team, func.sum(col(UsageDay.charge_nano))).group_by(col(UsageDay.team))
        async with reading(self._database) as session:
            if team is not None:
                await team_row(session, team)
                query = query.where(col(UsageDay.team) == team)
            slugs = [team] if team is not None else list(await session.scalars(select(TeamRow.slug)))
            return dict.fromkeys(slugs, 0) | {name: int(amount) for name, amount in await session.execute(query)}


def checked_user(user: str) -> str:
    """Return a user id as it is kept: an e-mail address in lower case. Raises ``BadRequest``."""
    folded = user.strip().lower()
    if not folded.isprintable() or _ADDRESS.fullmatch(folded) is None:
        raise BadRequest("a user id is an e-mail address", param="user_ids")
    return folded


async def team_row(session: AsyncSession, slug: str) -> TeamRow:
    """Return a team. Raises ``NotFound``."""
    # Not every database takes every text: one that cannot be a slug is not looked for.
    row = await session.get(TeamRow, slug) if slug.isprintable() else None
    if row is None:
        raise NotFound("there is no such workspace", param="workspace_id")
    return row


async def _changed(session: AsyncSession, team: TeamRow, patch: WorkspacePatch) -> WorkspaceRow | None:
    """Take over a patch and return the settings. Raises ``BadRequest``."""
    row = await session.get(WorkspaceRow, team.slug)
    if patch == WorkspacePatch():
        return row
    if row is None:
        row = WorkspaceRow(team=team.slug, description="", default_model="", default_sort="", updated_at=0)
        session.add(row)
    if isinstance(patch.name, str):
        team.name = checked_name(patch.name)
    if isinstance(patch.description, str):
        row.description = checked_description(patch.description)
    if isinstance(patch.default_model, str):
        if len(patch.default_model) > LONGEST_NAME or not (patch.default_model.isprintable()):
            raise BadRequest("a model id has up to 200 printable characters", param="default_text_model")
        row.default_model = patch.default_model
    if isinstance(patch.default_sort, str):
        if patch.default_sort not in ("", *Sort):
            raise BadRequest(f"a sort is one of {', '.join(Sort)}", param="default_provider_sort")
        row.default_sort = patch.default_sort
    row.updated_at = wall_clock_us()
    await changes.announce(session, TOPIC)
    return row


def checked_description(text: str) -> str:
    """Return a description that may be kept. Raises ``BadRequest``."""
    if len(text) > LONGEST_DESCRIPTION or not text.replace("\n", "").replace("\t", "").isprintable():
        raise BadRequest(f"a description has up to {LONGEST_DESCRIPTION} printable characters", param="description")
    return text


def _workspace(team: TeamRow, row: WorkspaceRow | None) -> Workspace:
    if row is None:
        return Workspace(team.slug, team.name, team.created_at)
    return Workspace(
        team.slug,
        team.name,
        team.created_at,
        row.description,
        row.default_model,
        row.default_sort,
        row.updated_at,
    )


def _member(row: MemberRow) -> Member:
    return Member(row.team, row.user_id, row.role, row.created_at)
