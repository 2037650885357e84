"""Cells of the rollups, grouped and filtered as asked.

Only rollups are read. A question whose answer would be too long is ``BadRequest``, a database that is away
``Unavailable``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import String, and_, case, func, literal
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from gateway.db.engine import Database
from gateway.db.office import Office, Premises
from gateway.db.tables.ledger import UsageDay, UsageHour
from gateway.db.tables.repetition import CacheHitHour
from gateway.db.unit_of_work import reading
from gateway.metering.record import ANSWERED, Status
from gateway.types.analytics import ANALYTICS, DIMENSIONS, MOST_CELLS, SUMS, Cell, Condition, Question
from gateway.types.errors import BadRequest
from gateway.types.histogram import Histogram
from gateway.types.money import DEFAULT_TIER

_PAID = tuple(sorted({*ANSWERED, Status.CONTINUED}))
_HIT_LABELS: Final[dict[str, Any]] = {
    "model": col(CacheHitHour.model),
    "endpoint": col(CacheHitHour.provider),
    "team": col(CacheHitHour.team),
    "key_id": col(CacheHitHour.key_id),
    "app": literal("", String),
    "tier": literal(DEFAULT_TIER, String),
    "status": literal(Status.OK.value, String),
}
"""What answers from the response cache have for each dimension."""


def open_office(premises: Premises) -> Office:
    """Return the office of questions to the rollups."""
    return Office(handlers={ANALYTICS: Analyst(premises.database).cells})


class Analyst:
    """Answers questions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cells(self, question: Question) -> Sequence[Cell]:
        """Return the cells of a question, by time and labels."""
        unknown = {*question.group_by, *(each.dimension for each in question.where)} - set(DIMENSIONS)
        if unknown:
            raise BadRequest(f"there is no dimension {min(unknown)!r}", param="dimensions")
        async with reading(self._database) as session:
            found = await self._sums(session, question)
            await self._hits(session, question, found)
            if question.speeds:
                await self._speeds(session, question, found)
        return tuple(sorted(found.values(), key=lambda cell: (cell.time, cell.labels)))

    async def _sums(self, session: AsyncSession, question: Question) -> dict[tuple[Any, ...], Cell]:
        table, time, groups = _groups(question)
        answered = case((col(table.status).in_(sorted(ANSWERED)), col(table.requests)), else_=0)
        sums = [func.sum(answered), *(func.sum(col(getattr(table, name))) for name in SUMS[1:-1])]
        query = select(*groups, *sums).where(_limits(question, table, time))
        query = (query.group_by(*groups) if groups else query).limit(MOST_CELLS + 1)
        rows = (await session.execute(query)).all()
        if len(rows) > MOST_CELLS:
            raise BadRequest(f"the answer has more than {MOST_CELLS} cells: ask for less time or fewer dimensions")
        made: dict[tuple[Any, ...], Cell] = {}
        for row in rows:
            key, values = tuple(row[: len(groups)]), tuple(int(value or 0) for value in row[len(groups) :])
            if any(values):
                made[key] = _cell(question, key, (*values, 0))
        return made

    async def _hits(self, session: AsyncSession, question: Question, found: dict[tuple[Any, ...], Cell]) -> None:
        """Add answers from the response cache; they have no app and the default tier."""
        limits = [_of_hits(each.dimension, each) for each in question.where]
        unit = 1 if question.hourly else 24
        hour = col(CacheHitHour.hour)
        time = hour if question.hourly else hour // 24
        groups: list[Any] = [*([time] if question.timed else []), *(_HIT_LABELS[name] for name in question.group_by)]
        limits += [hour >= question.first * unit, hour < (question.last + 1) * unit]
        columns: list[Any] = [*groups, func.sum(col(CacheHitHour.hits))]
        query = select(*columns).where(and_(literal(value=True), *limits))
        query = (query.group_by(*groups) if groups else query).limit(MOST_CELLS + 1)
        for row in await session.execute(query):
            key, hits = tuple(row[:-1]), int(row[-1] or 0)
            if hits:
                known = found.get(key) or _cell(question, key, (0,) * len(SUMS))
                found[key] = Cell(known.time, known.labels, (*known.sums[:-1], known.sums[-1] + hits))

    async def _speeds(self, session: AsyncSession, question: Question, found: dict[tuple[Any, ...], Cell]) -> None:
        """Put the histograms into the cells that were found."""
        table, time, groups = _groups(question)
        wanted = [*groups, col(table.ttft), col(table.throughput)]
        merged: dict[tuple[Any, ...], tuple[Histogram, Histogram]] = {}
        rows = await session.stream(select(*wanted).where(_limits(question, table, time)))
        async for row in rows:
            key = tuple(row[: len(groups)])
            mine = merged.setdefault(key, (Histogram(), Histogram()))
            for histogram, data in zip(mine, row[len(groups) :], strict=True):
                histogram.merge(Histogram.load(data))
        for key, (ttft, throughput) in merged.items():
            known = found.get(key)
            if known is not None:
                found[key] = Cell(known.time, known.labels, known.sums, ttft.dump(), throughput.dump())


def _groups(question: Question) -> tuple[type[Any], Any, list[Any]]:
    """Return the table, its column of time, and the columns that cells are apart by."""
    table: type[Any] = UsageHour if question.hourly else UsageDay
    time = col(table.hour) if question.hourly else col(table.day)
    labels = [col(getattr(table, name)) for name in question.group_by]
    return table, time, [time, *labels] if question.timed else labels


def _limits(question: Question, table: type[Any], time: Any) -> Any:
    limits = [time >= question.first, time <= question.last, col(table.status).in_(_PAID)]
    for each in question.where:
        column = col(getattr(table, each.dimension))
        limits.append(column.not_in(each.values) if each.excluded else column.in_(each.values))
    return and_(literal(value=True), *limits)


def _of_hits(dimension: str, condition: Condition) -> Any:
    column = _HIT_LABELS[dimension]
    return column.not_in(condition.values) if condition.excluded else column.in_(condition.values)


def _cell(question: Question, key: tuple[Any, ...], sums: tuple[int, ...]) -> Cell:
    if question.timed:
        return Cell(int(key[0]), tuple(key[1:]), sums)
    return Cell(0, key, sums)
