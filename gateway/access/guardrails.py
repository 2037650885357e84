"""Guardrails in the database: what they say, whom they are for, and the budgets that they make.

A guardrail with a limit makes one hard budget for each key it holds for, with the guardrail's id in its ``source``.
They are brought in line within every transaction that could change them, also the one that makes a key
(``cover``), so that no key is ever without its limits. Errors as of ``gateway.access.workspaces``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from secrets import token_hex
from typing import Any, Final

import msgspec
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from gateway.access.budgets import LARGEST, budget_of, wall_clock_us
from gateway.access.rules import checked_name
from gateway.access.workspaces import TOPIC, checked_description, checked_user, team_row
from gateway.db import changes
from gateway.db.engine import Database
from gateway.db.tables.access import KeyRow, TeamRow
from gateway.db.tables.budget import BudgetAlertRow, BudgetRow
from gateway.db.tables.workspace import GuardrailKeyRow, GuardrailMemberRow, GuardrailRow, MemberRow, PresetRow
from gateway.db.tables.workspace import WorkspaceRow as Settings
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing
from gateway.types.budgets import GUARDRAIL, MEMBER, PERCENTS, NewBudget, Scope, Window
from gateway.types.errors import BadRequest, NotFound
from gateway.types.guardrails import Assignment, Governance, Guardrail, NewGuardrail, Terms, default_id

MOST: Final = 500
"""Guardrails in all: each process holds them all."""
MOST_NAMES: Final = 100
LONGEST_NAME: Final = 200


class GuardrailStore:
    """The repository of guardrails."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self, team: str | None) -> Sequence[Guardrail]:
        """Return guardrails, each team's default one first. Raises ``NotFound`` for an unknown team."""
        async with reading(self._database) as session:
            if team is not None:
                await team_row(session, team)
            teams = select(TeamRow).order_by(col(TeamRow.slug))
            rows = select(GuardrailRow).order_by(col(GuardrailRow.created_at), col(GuardrailRow.guardrail_id))
            if team is not None:
                teams, rows = teams.where(col(TeamRow.slug) == team), rows.where(col(GuardrailRow.team) == team)
            stored = {row.guardrail_id: row for row in await session.scalars(rows)}
            found = []
            for each in await session.scalars(teams):
                row = stored.pop(default_id(each.slug), None)
                found.append(_unwritten(each) if row is None else _guardrail(row))
            return (*found, *map(_guardrail, stored.values()))

    async def get(self, guardrail_id: str) -> Guardrail:
        """Return one guardrail. Raises ``NotFound``."""
        async with reading(self._database) as session:
            return await _get(session, guardrail_id)

    async def create(self, team: str, new: NewGuardrail) -> Guardrail:
        """Make a guardrail that is for nobody yet. Raises ``NotFound`` or ``BadRequest``."""
        checked(new)
        async with writing(self._database) as session:
            await team_row(session, team)
            await _room(session)
            row = _row(f"gr-{token_hex(12)}", team, wall_clock_us())
            return await _put(session, row, new, None)

    async def update(self, guardrail_id: str, new: NewGuardrail) -> Guardrail:
        """Change a guardrail. Raises ``NotFound`` or ``BadRequest``."""
        checked(new)
        async with writing(self._database) as session:
            before = await _get(session, guardrail_id)
            row = await session.get(GuardrailRow, guardrail_id)
            if row is None:  # the default one of a team, which nobody changed yet
                await _room(session)
                row = _row(guardrail_id, before.team, before.created_at)
            row.updated_at = wall_clock_us()
            return await _put(session, row, new, before)

    async def delete(self, guardrail_id: str) -> None:
        """Delete a guardrail with its assignments and budgets. Raises ``NotFound``; a default one is ``BadRequest``."""
        async with writing(self._database) as session:
            before = await _get(session, guardrail_id)
            if before.is_default:
                raise BadRequest("the default guardrail of a workspace stays: change what it says", param="id")
            tables: tuple[type[Any], ...] = (GuardrailKeyRow, GuardrailMemberRow, GuardrailRow)
            for table in tables:
                await session.execute(delete(table).where(col(table.guardrail_id) == guardrail_id))
            await _align(session, before.team)
            await note(session, "guardrail", guardrail_id, before, None, team=before.team)

    async def assigned_keys(self, guardrail_id: str | None) -> Sequence[Assignment]:
        """Return the keys that a guardrail, or any, was assigned to, revoked ones left out. Raises ``NotFound``."""
        query = (
            select(GuardrailKeyRow, KeyRow)
            .join(KeyRow, col(KeyRow.key_id) == col(GuardrailKeyRow.key_id))
            .where(col(KeyRow.revoked_at).is_(None))
            .order_by(col(GuardrailKeyRow.created_at), col(GuardrailKeyRow.guardrail_id), col(GuardrailKeyRow.key_id))
        )
        async with reading(self._database) as session:
            if guardrail_id is not None:
                await _get(session, guardrail_id)
                query = query.where(col(GuardrailKeyRow.guardrail_id) == guardrail_id)
            return tuple(
                Assignment(row.guardrail_id, key.team, row.key_id, row.created_at, key.name)
                for row, key in await session.execute(query)
            )

    async def assigned_members(self, guardrail_id: str | None) -> Sequence[Assignment]:
        """Return the members that a guardrail, or any, was assigned to. Raises ``NotFound``."""
        query = (
            select(GuardrailMemberRow, GuardrailRow.team)
            .join(GuardrailRow, col(GuardrailRow.guardrail_id) == col(GuardrailMemberRow.guardrail_id))
            .order_by(
                col(GuardrailMemberRow.created_at),
                col(GuardrailMemberRow.guardrail_id),
                col(GuardrailMemberRow.user_id),
            )
        )
        async with reading(self._database) as session:
            if guardrail_id is not None:
                await _get(session, guardrail_id)
                query = query.where(col(GuardrailMemberRow.guardrail_id) == guardrail_id)
            return tuple(
                Assignment(row.guardrail_id, team, row.user_id, row.created_at)
                for row, team in await session.execute(query)
            )

    async def assign_keys(self, guardrail_id: str, hashes: Sequence[str], wanted: bool) -> int:
        """Assign a guardrail to keys of its team, or take it back; return how many changed.

        Raises:
            NotFound: there is no such guardrail, or no such key in its team.
            BadRequest: it is the default one, which holds for all keys as it is.
        """
        async with writing(self._database) as session:
            rail = await _assignable(session, guardrail_id)
            keys = await session.scalars(
                select(KeyRow.key_id).where(col(KeyRow.team) == rail.team, col(KeyRow.revoked_at).is_(None))
            )
            by_hash = {sha256(key_id.encode()).hexdigest(): key_id for key_id in keys}
            if any(each not in by_hash for each in hashes):
                raise NotFound("there is no such key in the guardrail's workspace", param="key_hashes")
            subjects = dict.fromkeys(by_hash[each] for each in hashes)
            return await _assign(
                session, rail, subjects, wanted, GuardrailKeyRow, lambda key, now: _key_row(guardrail_id, key, now)
            )

    async def assign_members(self, guardrail_id: str, users: Sequence[str], wanted: bool) -> int:
        """As ``assign_keys`` for members: it holds for all keys that they are the creators of."""
        async with writing(self._database) as session:
            rail = await _assignable(session, guardrail_id)
            folded = dict.fromkeys(checked_user(user) for user in users)
            members = set(await session.scalars(select(MemberRow.user_id).where(col(MemberRow.team) == rail.team)))
            if wanted and any(user not in members for user in folded):
                raise NotFound("there is no such member in the guardrail's workspace", param="member_user_ids")
            return await _assign(
                session, rail, folded, wanted, GuardrailMemberRow, lambda user, now: _user_row(guardrail_id, user, now)
            )

    async def governance(self, revision: int) -> Governance | None:
        """Return what serving processes go by, or None when ``revision`` is the newest."""
        now = await changes.latest(self._database, TOPIC)
        if now == revision:
            return None
        async with reading(self._database) as session:
            rows = [_guardrail(row) for row in await session.scalars(select(GuardrailRow))]
            rails = {row.guardrail_id: (row.name, row.terms) for row in rows if row.terms != Terms()}
            keys: dict[str, tuple[str, ...]] = {}
            for key in await session.scalars(select(GuardrailKeyRow)):
                if key.guardrail_id in rails:
                    keys[key.key_id] = (*keys.get(key.key_id, ()), key.guardrail_id)
            teams = {row.guardrail_id: row.team for row in rows}
            members: dict[str, dict[str, tuple[str, ...]]] = {}
            for user in await session.scalars(select(GuardrailMemberRow)):
                if user.guardrail_id in rails:
                    its = members.setdefault(teams[user.guardrail_id], {})
                    its[user.user_id] = (*its.get(user.user_id, ()), user.guardrail_id)
            defaults = {
                row.team: (row.default_model, row.default_sort)
                for row in await session.scalars(select(Settings))
                if row.default_model or row.default_sort
            }
            presets = frozenset(await session.scalars(select(PresetRow.team).distinct()))
            return Governance(now, rails, keys, members, defaults, presets)


def checked(new: NewGuardrail) -> NewGuardrail:
    """Return ``new`` if it can be a guardrail. Raises ``BadRequest``."""
    checked_name(new.name)
    checked_description(new.description)
    if (new.limit_nano is None) != (new.window is None):
        raise BadRequest("limit_usd and reset_interval go together: send both or neither", param="reset_interval")
    if new.limit_nano is not None and not 0 <= new.limit_nano <= LARGEST:
        raise BadRequest("a limit is from 0 to 2 billion USD", param="limit_usd")
    terms = new.terms
    for field in ("allowed_models", "ignored_models", "allowed_providers", "ignored_providers"):
        names: tuple[str, ...] | None = getattr(terms, field)
        if names is not None and len(names) > MOST_NAMES:
            raise BadRequest(f"{field} has at most {MOST_NAMES} entries", param=field)
        if any(not name or len(name) > LONGEST_NAME or not name.isprintable() for name in names or ()):
            raise BadRequest(f"{field}: a name has 1 to {LONGEST_NAME} printable characters", param=field)
    return new


async def cover(session: AsyncSession, key: KeyRow) -> None:
    """Make the budgets that guardrails mean for a key that is being made."""
    await session.flush()
    await _align(session, key.team, only=key.key_id, announced=True)


async def _align(session: AsyncSession, team: str, *, only: str = "", announced: bool = False) -> None:
    """Bring the budgets of a team's keys, or of one, in line with its guardrails, and announce the change."""
    await session.flush()
    query = select(KeyRow.key_id).where(col(KeyRow.team) == team, col(KeyRow.revoked_at).is_(None))
    query = query.where(col(KeyRow.key_id) == only) if only else query
    keys = list(await session.scalars(query))
    wanted: dict[str, NewBudget] = {}
    stored = await session.scalars(select(GuardrailRow).where(col(GuardrailRow.team) == team))
    for rail in (row for row in stored if row.limit_nano is not None):
        assert rail.limit_nano is not None, "asked for"
        for key_id in await _held(session, rail, keys, members=not only):
            new = NewBudget(
                Scope(key_id, team), Window(rail.period), rail.limit_nano, True, PERCENTS, GUARDRAIL + rail.guardrail_id
            )
            wanted[new.budget_id] = new
    await _replace(session, team, only, wanted)
    if not announced:
        await changes.announce(session, TOPIC)


async def _held(session: AsyncSession, rail: GuardrailRow, keys: Iterable[str], *, members: bool) -> list[str]:
    """Return whose spending a guardrail limits: those of ``keys`` it holds for, and ``members``, each as a whole."""
    if rail.guardrail_id == default_id(rail.team):
        return list(keys)
    its = set(
        await session.scalars(
            select(GuardrailKeyRow.key_id).where(col(GuardrailKeyRow.guardrail_id) == rail.guardrail_id)
        )
    )
    users = await session.scalars(
        select(GuardrailMemberRow.user_id)
        .where(col(GuardrailMemberRow.guardrail_id) == rail.guardrail_id)
        .order_by(col(GuardrailMemberRow.user_id))
    )
    return [*(key_id for key_id in keys if key_id in its), *(MEMBER + user for user in users if members)]


async def _replace(session: AsyncSession, team: str, only: str, wanted: Mapping[str, NewBudget]) -> None:
    """Make the guardrails' budgets of a team's keys, or of one key, those that are ``wanted``."""
    query = select(BudgetRow).where(col(BudgetRow.source).startswith(GUARDRAIL), col(BudgetRow.team) == team)
    if only:
        query = query.where(col(BudgetRow.key_id) == only)
    known = {row.budget_id: row for row in await session.scalars(query)}
    now = wall_clock_us()
    for budget_id, new in wanted.items():
        row = known.pop(budget_id, None)
        if row is None:
            session.add(_budget_row(new, now))
        elif row.limit_nano != new.limit_nano:
            row.limit_nano, row.updated_at = new.limit_nano, now
    for row in known.values():
        await session.execute(delete(BudgetAlertRow).where(col(BudgetAlertRow.budget_id) == row.budget_id))
        await session.delete(row)


def _budget_row(new: NewBudget, now: int) -> BudgetRow:
    scope = new.scope
    row = BudgetRow(
        budget_id=new.budget_id,
        key_id=scope.key_id,
        team=scope.team,
        model=scope.model,
        period=new.window.value,
        limit_nano=new.limit_nano,
        hard=new.hard,
        alerts=list(new.alerts),
        source=new.source,
        created_at=now,
        updated_at=now,
    )
    assert budget_of(row).scope == scope, "a budget reads back as it was written"
    return row


async def _get(session: AsyncSession, guardrail_id: str) -> Guardrail:
    row = await session.get(GuardrailRow, guardrail_id) if guardrail_id.isprintable() else None
    if row is not None:
        return _guardrail(row)
    for team in await session.scalars(select(TeamRow)):
        if default_id(team.slug) == guardrail_id:
            return _unwritten(team)
    raise NotFound("there is no such guardrail", param="id")


async def _assignable(session: AsyncSession, guardrail_id: str) -> Guardrail:
    rail = await _get(session, guardrail_id)
    if rail.is_default:
        raise BadRequest("the default guardrail holds for every key of its workspace as it is", param="id")
    return rail


async def _assign(
    session: AsyncSession,
    rail: Guardrail,
    subjects: Iterable[str],
    wanted: bool,
    table: type[Any],
    make: Callable[[str, int], Any],
) -> int:
    now, changed = wall_clock_us(), 0
    for subject in subjects:
        row = await session.get(table, (rail.guardrail_id, subject))
        if wanted and row is None:
            session.add(make(subject, now))
        elif not wanted and row is not None:
            await session.delete(row)
        else:
            continue
        changed += 1
        was, now_is = ({"assigned": not wanted}, {"assigned": wanted})
        await note(session, "guardrail", f"{rail.guardrail_id} {subject}", was, now_is, team=rail.team)
    await _align(session, rail.team)
    return changed


async def _room(session: AsyncSession) -> None:
    if len((await session.scalars(select(GuardrailRow.guardrail_id))).all()) >= MOST:
        raise BadRequest(f"there are {MOST} guardrails: delete some first")


async def _put(session: AsyncSession, row: GuardrailRow, new: NewGuardrail, before: Guardrail | None) -> Guardrail:
    row.name, row.description = checked_name(new.name), new.description
    row.terms = msgspec.to_builtins(new.terms)
    row.limit_nano, row.period = new.limit_nano, new.window.value if new.window is not None else ""
    session.add(row)
    await _align(session, row.team)
    after = _guardrail(row)
    await note(session, "guardrail", row.guardrail_id, before, after, team=row.team)
    return after


def _row(guardrail_id: str, team: str, created_at: int) -> GuardrailRow:
    return GuardrailRow(
        guardrail_id=guardrail_id, team=team, name="", description="", terms={}, period="", created_at=created_at
    )


def _key_row(guardrail_id: str, key_id: str, now: int) -> GuardrailKeyRow:
    return GuardrailKeyRow(guardrail_id=guardrail_id, key_id=key_id, created_at=now)


def _user_row(guardrail_id: str, user_id: str, now: int) -> GuardrailMemberRow:
    return GuardrailMemberRow(guardrail_id=guardrail_id, user_id=user_id, created_at=now)


def _guardrail(row: GuardrailRow) -> Guardrail:
    return Guardrail(
        row.guardrail_id,
        row.team,
        row.name,
        row.description,
        msgspec.convert(row.terms, Terms),
        row.limit_nano,
        Window(row.period) if row.period else None,
        row.created_at,
        row.updated_at,
        row.guardrail_id == default_id(row.team),
    )


def _unwritten(team: TeamRow) -> Guardrail:
    """Return the default guardrail of a team as it is before somebody changes it."""
    return Guardrail(
        default_id(team.slug),
        team.slug,
        f"Default of {team.slug}",
        "",
        Terms(),
        None,
        None,
        team.created_at,
        None,
        True,
    )
