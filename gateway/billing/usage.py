"""Usage from the rollups: what activity pages, usage buckets and the usage export show.

Everything here reads rollups alone, so it costs the same however many requests there were. Errors are those of a unit
of work.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import and_, case, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from gateway.billing.book import BILLABLE
from gateway.billing.methods import LABELS, SUMS, Caller, HitGroup, UsageGroup, UsageQuery, UsageRow
from gateway.db.tables.access import KeyRow, TeamRow
from gateway.db.tables.ledger import UsageDay, UsageHour
from gateway.db.tables.repetition import CacheHitHour
from gateway.metering.record import ANSWERED, OWNER
from gateway.types.errors import BadRequest, NotFound

MOST_GROUPS: Final = 100_000
"""Rows of one answer; more are refused rather than cut off."""


async def usage(session: AsyncSession, query: UsageQuery) -> tuple[UsageGroup, ...]:
    """Return sums by time and group, in that order.

    Raises:
        BadRequest: there are more than ``MOST_GROUPS``.
    """
    table: type[Any] = UsageHour if query.hourly else UsageDay
    time = col(table.hour) if query.hourly else col(table.day)
    groups = [time, *(col(getattr(table, name)) for name in query.group_by)]
    answered = case((col(table.status).in_(sorted(ANSWERED)), col(table.requests)), else_=0)
    sums = [func.sum(answered), *(func.sum(col(getattr(table, name))) for name in SUMS[1:])]
    limits = [time >= query.first, time <= query.last, col(table.status).in_(BILLABLE)]
    for name, wanted in (("team", query.teams), ("key_id", query.keys), ("model", query.models)):
        if wanted is not None:
            limits.append(col(getattr(table, name)).in_(wanted))
    found = select(*groups, *sums).where(and_(*limits)).group_by(*groups).limit(MOST_GROUPS + 1)
    rows = (await session.execute(found)).all()
    if len(rows) > MOST_GROUPS:
        raise BadRequest(f"the answer has more than {MOST_GROUPS} rows: ask for less time or fewer groups")
    width = len(groups)
    made = [UsageGroup(int(row[0]), tuple(row[1:width]), tuple(map(int, row[width:]))) for row in rows]
    return tuple(sorted(filter(_any, made), key=lambda group: (group.time, group.labels)))


async def cache_hits(session: AsyncSession, query: UsageQuery) -> tuple[HitGroup, ...]:
    """Return answers from the response cache by day, team, model and provider, in that order."""
    day = (col(CacheHitHour.hour) // 24).label("day")
    labels: list[Any] = [day, *(col(getattr(CacheHitHour, name)) for name in ("team", "model", "provider"))]
    limits = [col(CacheHitHour.hour) >= query.first * 24, col(CacheHitHour.hour) < (query.last + 1) * 24]
    for name, wanted in (("team", query.teams), ("key_id", query.keys), ("model", query.models)):
        if wanted is not None:
            limits.append(col(getattr(CacheHitHour, name)).in_(wanted))
    found = select(*labels, func.sum(col(CacheHitHour.hits))).where(and_(*limits)).group_by(*labels)
    rows = await session.execute(found.order_by(*labels).limit(MOST_GROUPS))
    return tuple(HitGroup(int(row[0]), *row[1:4], int(row[4])) for row in rows)


async def narrowed(session: AsyncSession, query: UsageQuery, caller: Caller) -> UsageQuery:
    """Return ``query`` for what ``caller`` may see of it.

    Raises:
        NotFound: it names what is not there, or what it may not see, which looks the same.
    """
    teams, keys = caller.teams, caller.key_ids
    if teams is not None:
        await checked_teams(session, teams, caller.team)
    else:
        teams = query.teams if caller.team is None else (caller.team,)
    if caller.key_hash:
        keys = (await key_named(session, caller.key_hash, caller.team),)
    return UsageQuery(query.hourly, query.first, query.last, query.group_by, teams, keys, query.models)


def _any(group: UsageGroup) -> bool:
    """Return whether anything is in a group: what corrects the owner's cost is no team's usage."""
    return any(group.sums)


async def usage_page(
    session: AsyncSession, team: str | None, first: int, last: int, cursor: tuple[Any, ...] | None, limit: int
) -> list[UsageRow]:
    """Return rows of the daily rollup in the order of their keys, after ``cursor`` (day and ``LABELS``)."""
    key = [col(UsageDay.day), *(col(getattr(UsageDay, name)) for name in LABELS)]
    query = select(*key, *(col(getattr(UsageDay, name)) for name in SUMS))
    # What corrects the owner's cost is no team's usage, and a row of zeros here.
    query = query.where(col(UsageDay.day) >= first, col(UsageDay.day) <= last, col(UsageDay.team) != OWNER)
    if team is not None:
        query = query.where(col(UsageDay.team) == team)
    if cursor is not None:
        # The day by itself as well, because it is what both databases look up by.
        query = query.where(col(UsageDay.day) >= cursor[0], tuple_(*key) > tuple_(*cursor))
    rows = await session.execute(query.order_by(*key).limit(limit))
    return [UsageRow(row[0], tuple(row[1:8]), tuple(map(int, row[8:]))) for row in rows]


async def key_named(session: AsyncSession, hashed: str, team: str | None) -> str:
    """Return the id of the key with that hash (SHA-256 of its id); with ``team``, only of that team.

    Raises:
        NotFound: there is none: of another team or of nobody, which looks the same.
    """
    query = select(col(KeyRow.key_id))
    if team is not None:
        query = query.where(col(KeyRow.team) == team)
    for key_id in await session.scalars(query):
        if sha256(key_id.encode()).hexdigest() == hashed:
            return key_id
    raise NotFound("no such key")


async def checked_teams(session: AsyncSession, wanted: Sequence[str], team: str | None) -> None:
    """Refuse teams that there are not; with ``team``, all but that one.

    Raises:
        NotFound: one of ``wanted`` is unknown, or another team's, which looks the same.
    """
    known = {team} if team is not None else set(await session.scalars(select(col(TeamRow.slug))))
    if any(each not in known for each in wanted):
        raise NotFound("no such team")


async def team_names(session: AsyncSession) -> dict[str, str]:
    """Return what people call the teams, by slug."""
    return {row.slug: row.name for row in await session.scalars(select(TeamRow))}
