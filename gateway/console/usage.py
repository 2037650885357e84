"""Usage as pages show it, read from tallies and rollups; single requests from the ledger, found through the rollups.

A page of requests must not cost more when the ledger grows: the hourly sums say in which hours the wanted requests are,
and only these hours of the ledger are looked at. Errors are those of the unit of work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from msgspec import structs
from sqlalchemy import case, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from gateway.console import measure as asked
from gateway.console import tallied
from gateway.console.kept import Kept, Settled
from gateway.db.bulk import bulk_on
from gateway.db.engine import Database
from gateway.db.tables.access import KeyRow
from gateway.db.tables.ledger import LabelSet, LedgerRow, UsageDay, UsageHour
from gateway.db.tables.tariff import AllocationHour
from gateway.db.unit_of_work import reading
from gateway.metering.record import RowKind
from gateway.metering.tallies import ERRORS, TRIES
from gateway.types.histogram import Histogram
from gateway.types.method import Handler, Method

MOST: Final = 500
HOURS_AT_ONCE: Final = 12
LOOKS: Final = 3
"""Rounds of hours that are looked at for a page of one backend's requests, until there are any."""
FIRST_LOOK: Final = 6
"""Hours that are looked through first."""
_HOUR_MS: Final = 3_600_000
_PICKED: Final = ("team", "key_id", "model", "endpoint", "app", "status")


def handlers(usage: Usage) -> dict[Method[Any], Handler]:
    """Return what answers the questions of ``gateway.console.measure``."""
    return {
        asked.USAGE: usage.sums,
        asked.SPEED: usage.speed,
        asked.PACES: usage.paces,
        asked.FIRST_DAY: usage.first_day,
        asked.REQUESTS: usage.requests,
        asked.YIELDS: usage.yields,
        asked.KEY_NAMES: usage.key_names,
    }


class Usage:
    """Reads the rollups and the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept = Kept(database)

    async def sums(self, question: asked.UsageQuestion) -> list[asked.Sum]:
        """See ``USAGE``."""
        settled, place = await self._kept.now(), tallied.plan(question)
        async with reading(self._database) as session:
            if place is not None:
                return await tallied.sums(await bulk_on(await session.connection()), place, question, settled)
            found = await _rolled_up(session, question, settled)
        return tallied.folded(found, question.most, question.by) if question.series else found

    async def speed(self, first: int, last: int, pick: asked.Pick) -> asked.Speed:
        """See ``SPEED``."""
        settled = await self._kept.now()
        end = min(last, settled.hour)
        late: Sequence[Any] | None = None

        async def read() -> tuple[bytes, bytes]:
            nonlocal late
            rows = await self._measured(first, last, pick)
            late = [row for row in rows if row[0] > end]
            return await asyncio.to_thread(_together, [row for row in rows if row[0] <= end])

        old = await settled.answer(("speed", first, end, pick), read) if first <= end else (b"", b"")
        if late is None:
            late = await self._measured(max(first, end + 1), last, pick) if end < last else ()
        return await asyncio.to_thread(_speed, [old[0], *(row[1] for row in late)], [old[1], *(row[2] for row in late)])

    async def paces(self, first: int, last: int, pick: asked.Pick) -> list[asked.Pace]:
        """See ``PACES``."""
        settled = await self._kept.now()
        end = min(last, settled.hour)

        async def read(begin: int, end: int) -> list[asked.Pace]:
            hours: dict[int, tuple[list[bytes], list[bytes]]] = {}
            for hour, first_token, throughput in await self._measured(begin, end, pick):
                ttft, rate = hours.setdefault(int(hour), ([], []))
                ttft.append(first_token)
                rate.append(throughput)
            return [asked.Pace(hour, _speed(*found)) for hour, found in sorted(hours.items())]

        old = await settled.answer(("paces", first, end, pick), lambda: read(first, end)) if first <= end else []
        return [*old, *await read(max(first, end + 1), last)] if end < last else old

    async def first_day(self, team: str) -> int:
        """See ``FIRST_DAY``."""
        settled = await self._kept.now()

        async def read() -> list[int]:
            query = "SELECT MIN(day) FROM tally_day WHERE team = ? AND kind = 'status'"
            async with reading(self._database) as session:
                rows = await (await bulk_on(await session.connection())).read(query, (team,))
            return [int(rows[0][0] or 0)]

        # Nobody's usage begins earlier unless something is posted to settled time.
        [day] = await settled.answer(("first", team), read)
        return day if 0 < day <= settled.day else (await read())[0]

    async def _measured(self, first: int, last: int, pick: asked.Pick) -> Sequence[Any]:
        """Return hour and histograms of the rollup's rows."""
        query = select(col(UsageHour.hour), col(UsageHour.ttft), col(UsageHour.throughput)).where(
            col(UsageHour.hour) >= first, col(UsageHour.hour) <= last, *_where(UsageHour, pick)
        )
        async with reading(self._database) as session:
            return (await session.execute(query)).all()

    async def yields(self, first: int, last: int, endpoints: Sequence[str]) -> list[asked.Yield]:
        """See ``YIELDS``."""
        settled = await self._kept.now()
        hour: Any = AllocationHour
        idle = func.sum(case((hour.model == "", hour.cost_nano), else_=0))
        machines = (
            select(hour.backend, func.sum(hour.tokens), func.sum(hour.cost_nano), idle)
            .where(hour.hour >= first * 24, hour.hour <= last * 24 + 23)
            .group_by(hour.backend)
            .order_by(hour.backend)
        )
        async with reading(self._database) as session:
            found = [
                asked.Yield(name, "", int(tokens), int(cost), int(unused))
                for name, tokens, cost, unused in await session.execute(machines)
            ]
            if endpoints:
                whole = asked.UsageQuestion("day", first, last, "endpoint", series=False)
                bulk = await bulk_on(await session.connection())
                sums = await tallied.sums(bulk, tallied.Place("endpoint", ("",)), whole, settled)
                found += [asked.Yield("", row.name, row.tokens, row.cost_nano) for row in sums if row.name in endpoints]
        return found

    async def key_names(self, key_ids: Sequence[str]) -> list[asked.KeyName]:
        """See ``KEY_NAMES``."""
        if not key_ids:
            return []
        query = select(col(KeyRow.key_id), col(KeyRow.name), col(KeyRow.team))
        async with reading(self._database) as session:
            rows = await session.execute(query.where(col(KeyRow.key_id).in_(list(key_ids)[:MOST])))
            return [asked.KeyName(*row) for row in rows]

    async def requests(self, question: asked.RequestsQuestion) -> asked.RequestPage:
        """See ``REQUESTS``."""
        page = await self._page(question)
        for _ in range(LOOKS - 1):
            if page.rows or not page.next or not question.backend:
                break
            page = await self._page(structs.replace(question, before=page.next))
        return page

    async def _page(self, question: asked.RequestsQuestion) -> asked.RequestPage:
        limit = max(1, min(question.limit, MOST))
        last = question.last
        if question.before:
            last = min(last, int.from_bytes(question.before[:6], "big") // _HOUR_MS)
        async with reading(self._database) as session:
            known, hours = await _busy(session, question, last, limit)
            if not hours:
                return asked.RequestPage([], b"")
            wanted = union_all(*(_hour_of_ledger(hour, question, limit + 1) for hour in hours)).subquery()
            newest = select(wanted).order_by(wanted.c.request_id.desc(), wanted.c.attempt.desc()).limit(limit + 1)
            rows = (await session.execute(newest)).all()
        found = [asked.RequestRow(*row) for row in rows[:limit]]
        if len(rows) > limit and found:
            # A request's attempts stay together: the page ends before a request that would be cut in two.
            following = rows[limit].request_id
            whole = [row for row in found if row.request_id != following] or found
            return asked.RequestPage(whole, whole[-1].request_id)
        more = known
        return asked.RequestPage(found, (hours[-1] * _HOUR_MS).to_bytes(6, "big") + bytes(10) if more else b"")


async def _rolled_up(session: AsyncSession, question: asked.UsageQuestion, settled: Settled) -> list[asked.Sum]:
    """Return sums out of the rollups, by name and point; what is settled of them, from memory where it is kept."""
    end = min(question.last, settled.day if question.grain == "day" else settled.hour)
    parts: list[asked.Sum] = []
    if question.first <= end:
        old = structs.replace(question, last=end, most=0, by="tokens")
        parts += await settled.answer(old, lambda: _read_rollup(session, old))
    if end < question.last:
        parts += await _read_rollup(session, structs.replace(question, first=max(question.first, end + 1)))
    if not question.series:
        return tallied.added(question.first, parts)
    parts.sort(key=lambda each: (each.point, each.name))
    return parts


async def _read_rollup(session: AsyncSession, question: asked.UsageQuestion) -> list[asked.Sum]:
    table: Any = UsageDay if question.grain == "day" else UsageHour
    point = table.day if question.grain == "day" else table.hour
    at: Any = point if question.series else literal(question.first)
    name: Any = getattr(table, question.group) if question.group else literal("")
    callers = table.status.not_in([status.value for status in TRIES])
    broken = table.status.in_([status.value for status in ERRORS])
    query: Any = select(
        at,
        name,
        func.sum(case((callers, table.requests), else_=0)),
        func.sum(case((broken, table.requests), else_=0)),
        func.sum(case((callers, 0), else_=table.requests)),
        func.sum(table.tokens_prompt),
        func.sum(table.tokens_completion),
        func.sum(table.tokens_cache_read),
        func.sum(table.charge_nano),
        func.sum(table.cost_nano),
    ).where(_within(point, question), *_where(table, question.pick))
    grouped = ([point] if question.series else []) + ([name] if question.group else [])
    if grouped:
        query = query.group_by(*grouped)
    rows = (await session.execute(query)).all()
    return [asked.Sum(int(row[0]), row[1], *(int(value or 0) for value in row[2:])) for row in rows]


def _together(rows: Sequence[Any]) -> tuple[bytes, bytes]:
    """Return the histograms of rows of hour, first token and throughput, each merged into one."""
    return Histogram.merged(row[1] for row in rows).dump(), Histogram.merged(row[2] for row in rows).dump()


def _speed(first_tokens: Iterable[bytes], throughputs: Iterable[bytes]) -> asked.Speed:
    ttft, rate = (Histogram.merged(filter(None, dumps)) for dumps in (first_tokens, throughputs))
    return asked.Speed(ttft.quantile(0.5), ttft.quantile(0.95), rate.quantile(0.5))


async def _busy(
    session: AsyncSession, question: asked.RequestsQuestion, last: int, limit: int
) -> tuple[bool, list[int]]:
    """Return whether there may be more, and the newest hours that have enough of the wanted requests.

    They are looked for in the last hours first, and in ever longer windows before them.
    """
    hours: list[Any] = []
    length = FIRST_LOOK
    served = [_served(question.backend)] if question.backend else []
    while last >= question.first:
        begin = max(question.first, last - length + 1)
        busy = (
            select(col(UsageHour.hour), func.sum(col(UsageHour.requests)))
            .where(
                col(UsageHour.hour) >= begin, col(UsageHour.hour) <= last, *_where(UsageHour, question.pick), *served
            )
            .group_by(col(UsageHour.hour))
            .order_by(col(UsageHour.hour).desc())
        )
        hours += (await session.execute(busy)).all()
        last, length = begin - 1, length * 6
        found = _enough(hours, limit)
        if len(found) < len(hours) or len(hours) >= HOURS_AT_ONCE:
            return len(hours) > len(found) or last >= question.first, found
    return False, _enough(hours, limit)


def _served(backend: str) -> Any:
    """Return the condition of hours in which a backend may have been asked: its endpoints were."""
    label = cast("Any", LabelSet)
    return col(UsageHour.endpoint).in_(select(label.endpoint).where(label.backend == backend))


def _enough(hours: Sequence[Any], limit: int) -> list[int]:
    """Return the newest hours that together have more than ``limit`` requests, or as many as are looked at at once."""
    found, count = [], 0
    for hour, requests in hours[:HOURS_AT_ONCE]:
        found.append(int(hour))
        count += int(requests or 0)
        if count > limit + 1 and len(found) > 1:
            break
    return found


def _hour_of_ledger(hour: int, question: asked.RequestsQuestion, limit: int) -> Any:
    begin, end = ((each * _HOUR_MS).to_bytes(6, "big") for each in (hour, hour + 1))
    if question.before:
        end = min(end, question.before)
    row, label = (cast("Any", table) for table in (LedgerRow, LabelSet))
    rows = (
        select(
            row.request_id,
            row.attempt,
            label.team,
            label.key_id,
            label.model,
            label.endpoint,
            label.backend,
            label.app,
            label.status,
            label.finish_reason,
            label.error,
            row.tokens_prompt,
            row.tokens_completion,
            row.tokens_cache_read,
            row.charge_nano,
            row.cost_nano,
            row.ttft_us,
            row.duration_us,
        )
        .join(LabelSet, col(LabelSet.label_id) == col(LedgerRow.label_id))
        .where(
            col(LedgerRow.day) == hour // 24,
            col(LedgerRow.request_id) >= begin,
            col(LedgerRow.request_id) < end,
            col(LedgerRow.kind) == RowKind.USAGE.value,
            *_where(LabelSet, question.pick),
            *([label.backend == question.backend] if question.backend else []),
        )
        .order_by(col(LedgerRow.request_id).desc())
        .limit(limit)
        .subquery()
    )
    return select(rows)


def _within(point: Any, question: asked.UsageQuestion) -> Any:
    """Return the condition of a window; as single points where teams are named, so that only their rows are met."""
    if tallied.teams_of(question.pick) != ("",):
        return point.in_(range(question.first, question.last + 1))
    return point.between(question.first, question.last)


def _where(table: Any, pick: asked.Pick) -> list[Any]:
    found = [getattr(table, name) == getattr(pick, name) for name in _PICKED if getattr(pick, name)]
    if pick.teams is not None:
        found.append(table.team.in_(pick.teams))
    return found
