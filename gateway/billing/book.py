"""The billing book: lines made from the ledger, lines that were billed, and what is between the two.

A day that is not billed is read from the ledger, each time in one reading unit, so it is true to one moment. What a
billed day has got since, late usage and corrections alike, is the difference between the ledger now and its billed
lines: by construction nothing is billed twice and nothing is forgotten. Whether there is any is seen in the sums of the
daily rollup, which is cheap, or, when a period is closed, by counting ledger rows, which sees even corrections that add
up to nothing.

Errors are those of a unit of work: ``Unavailable`` while the database is away.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Integer, Select, and_, case, cast, func, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from gateway.billing.line import CLASSES, KEY, NOTHING, TOKENS, Amounts, Line, LineKey
from gateway.db.engine import Database
from gateway.db.tables.billing import BilledDay, BillingLine, BillingPeriod
from gateway.db.tables.ledger import LabelSet, LedgerRow, PriceRow
from gateway.db.unit_of_work import reading
from gateway.metering.ledger import stored_rates
from gateway.metering.record import ANSWERED, RowKind, Status
from gateway.types.money import Rates
from gateway.types.tokens import Usage

BILLABLE: Final = tuple(sorted({*ANSWERED, Status.CONTINUED}))
"""How attempts end that a team may pay for; others are the owner's, and are in no line unless they carry money."""
FINGERPRINT: Final = ("requests", "tokens_prompt", "tokens_completion", "charge_nano", "cost_nano", "discount_nano")
PAGE: Final = 200
"""Lines in a page: about 1,000 exported rows."""
_SLICE: Final = 100

_USAGE: Final = Usage.__struct_fields__
_PARTS_IN: Final = ("cache_read", "cache_write", "audio_prompt", "image_prompt")
_PARTS_OUT: Final = ("reasoning", "audio_completion", "image_completion")

Fingerprint = tuple[int, ...]
Packed = list[tuple[LineKey, bytes]]
"""Lines in order, their amounts encoded: a tenth of the room."""


def _column(name: str) -> Any:
    return col(getattr(LedgerRow, name))


def _number(expression: Any) -> Any:
    """Return a sum that is 0 where there is nothing to sum."""
    return func.coalesce(func.sum(expression), 0)


_carries: Final = or_(_column("charge_nano") != 0, func.coalesce(_column("discount_nano"), 0) != 0)
_fee: Final = or_(_column("charge_request") != 0, func.coalesce(_column("discount_request"), 0) != 0)
_odd: Final = and_(
    _column("kind") == RowKind.USAGE.value,
    or_(
        sum((_column(f"tokens_{name}") for name in _PARTS_IN), start=cast(0, Integer)) > _column("tokens_prompt"),
        sum((_column(f"tokens_{name}") for name in _PARTS_OUT), start=cast(0, Integer)) > _column("tokens_completion"),
        _column("tokens_cache_write_1h") > _column("tokens_cache_write"),
    ),
)
"""An engine reported parts that are more than their total."""
_SUMMED: Final = (
    *(f"tokens_{name}" for name in _USAGE),
    *(f"charge_{name}" for name in CLASSES),
    *(f"discount_{name}" for name in CLASSES),
)
_CHARGE: Final = TOKENS
_DISCOUNT: Final = TOKENS + len(CLASSES)
"""Where in ``_SUMMED`` amounts and discounts begin."""
_LABELS: Final = ("team", "key_id", "model", "endpoint", "tier", "price_id")


def _folded(day: int) -> Select[Any]:
    """Return the query of a day's lines: ledger rows by label set, then label sets by what lines are of."""
    charged = case((_carries, 1), else_=0)
    inner = (
        select(
            _column("label_id"),
            _column("kind"),
            charged.label("charged"),
            func.count().label("ledger_rows"),
            _number(case((_fee, 1), else_=0)).label("fees"),
            _number(case((_odd, 1), else_=0)).label("odd"),
            *(_number(_column(name)).label(name) for name in _SUMMED),
        )
        .where(_column("day") == day)
        .group_by(_column("label_id"), _column("kind"), charged)
        .subquery()
    )
    answered = and_(inner.c.kind == RowKind.USAGE.value, col(LabelSet.status).in_(sorted(ANSWERED)))
    groups = [*(col(getattr(LabelSet, name)) for name in _LABELS), inner.c.kind, inner.c.charged]
    return (
        select(
            *groups,
            _number(inner.c.ledger_rows),
            _number(case((answered, inner.c.ledger_rows), else_=0)),
            _number(inner.c.fees),
            _number(inner.c.odd),
            *(_number(inner.c[name]) for name in _SUMMED),
        )
        .select_from(inner)
        .join(LabelSet, col(LabelSet.label_id) == inner.c.label_id)
        .where(or_(col(LabelSet.status).in_(BILLABLE), inner.c.charged == 1, inner.c.kind == RowKind.CORRECTION.value))
        .group_by(*groups)
    )


async def ledger_lines(session: AsyncSession, day: int) -> Packed:
    """Return the lines of a day as the ledger has them now."""
    packed: Packed = []
    odd = False
    count = 0
    result = await session.stream(_folded(day), execution_options={"yield_per": 1_000})
    async for row in result:
        team, key_id, model, endpoint, tier, price_id, kind, charged, rows, requests, fees, strange, *sums = row
        odd = odd or bool(strange)
        key = LineKey(team, day, key_id, model, endpoint, tier, int(price_id), kind, int(charged))
        numbers = list(map(int, sums))
        amounts = Amounts(
            int(rows),
            int(requests),
            int(fees),
            disjoint(numbers[:_CHARGE]),
            tuple(numbers[_CHARGE:_DISCOUNT]),
            tuple(numbers[_DISCOUNT:]),
        )
        if not amounts.empty:
            packed.append((key, encode(amounts)))
        count += 1
        if not count % _SLICE:
            await asyncio.sleep(0)
    if odd:
        packed = await _mended(session, day, packed)
    packed.sort(key=_first)
    return packed


def disjoint(tokens: Sequence[int]) -> tuple[int, ...]:
    """Return counts in which totals hold only what no part holds."""
    prompt, completion, cache_read, cache_write, reasoning, audio_in, audio_out, image_in, image_out, hour = tokens
    return (
        prompt - cache_read - cache_write - audio_in - image_in,
        completion - reasoning - audio_out - image_out,
        cache_read,
        cache_write - hour,
        reasoning,
        audio_in,
        audio_out,
        image_in,
        image_out,
        hour,
    )


async def _mended(session: AsyncSession, day: int, packed: Packed) -> Packed:
    """Return lines with parts cut to their totals, row by row, as they were charged."""
    lines = dict(packed)
    charged = case((_carries, 1), else_=0)
    query = (
        select(
            *(col(getattr(LabelSet, name)) for name in _LABELS),
            _column("kind"),
            charged,
            *(_column(f"tokens_{name}") for name in _USAGE),
        )
        .join(LabelSet, col(LabelSet.label_id) == _column("label_id"))
        .where(_column("day") == day, _odd, or_(col(LabelSet.status).in_(BILLABLE), _carries))
    )
    result = await session.stream(query, execution_options={"yield_per": 1_000})
    async for team, key_id, model, endpoint, tier, price_id, kind, flag, *tokens in result:
        key = LineKey(team, day, key_id, model, endpoint, tier, int(price_id), kind, int(flag))
        known = lines.get(key)
        if known is None:
            continue
        raw = disjoint(tokens)
        cut = msgspec.structs.astuple(Usage(*tokens).split())
        change = tuple(after - before for after, before in zip(cut, raw, strict=True))
        lines[key] = encode(decode(known).plus(msgspec.structs.replace(NOTHING, tokens=change)))
    return list(lines.items())


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Amounts)


def encode(amounts: Amounts) -> bytes:
    """Return amounts as they are kept."""
    return _encoder.encode(amounts)


def decode(detail: bytes) -> Amounts:
    """Return amounts that were kept; classes that there were not then are zero."""
    amounts = _decoder.decode(detail)
    missing = TOKENS - len(amounts.tokens)
    return msgspec.structs.replace(amounts, tokens=(*amounts.tokens, *(0,) * missing)) if missing else amounts


def _first(pair: tuple[LineKey, bytes]) -> LineKey:
    return pair[0]


def _team(pair: tuple[LineKey, bytes]) -> str:
    return pair[0].team


async def fingerprints(session: AsyncSession, first: int, last: int) -> dict[int, Fingerprint]:
    """Return the sums of ``FINGERPRINT`` for each day with usage, by day, out of the tallies by status."""
    query = text(
        "SELECT day, SUM(requests + retries), SUM(prompt), SUM(completion), SUM(charge_nano), SUM(cost_nano), "
        "SUM(discount_nano) FROM tally_day WHERE team = '' AND kind = 'status' AND day BETWEEN :first AND :last "
        "GROUP BY day"
    )
    rows = await session.execute(query, {"first": first, "last": last})
    return {int(day): tuple(map(int, sums)) for day, *sums in rows}


async def billed_days(session: AsyncSession, first: int, last: int) -> dict[int, tuple[int, Fingerprint]]:
    """Return how far days were billed: ledger rows and sums at their last billing, by day."""
    query = (
        select(BilledDay)
        .join(BillingPeriod, col(BillingPeriod.period) == col(BilledDay.period))
        .where(col(BillingPeriod.state) == "closed", col(BilledDay.day) >= first, col(BilledDay.day) <= last)
        .order_by(col(BilledDay.period))
    )
    return {
        row.day: (row.ledger_rows, tuple(getattr(row, name) for name in FINGERPRINT))
        for row in await session.scalars(query)
    }


async def ledger_count(session: AsyncSession, day: int) -> int:
    """Return how many rows the ledger has of a day."""
    found = await session.scalar(select(func.count()).select_from(LedgerRow).where(_column("day") == day))
    return int(found or 0)


async def closed_periods(session: AsyncSession) -> list[BillingPeriod]:
    """Return the closed periods in order."""
    query = select(BillingPeriod).where(col(BillingPeriod.state) == "closed").order_by(col(BillingPeriod.period))
    return list(await session.scalars(query))


async def late_lines(session: AsyncSession, day: int, period: str) -> Packed:
    """Return what a billed day has got since it was billed: differences, for a later ``period``."""
    now = await ledger_lines(session, day)
    query = (
        select(*(col(getattr(BillingLine, name)) for name in KEY), col(BillingLine.detail))
        .join(BillingPeriod, col(BillingPeriod.period) == col(BillingLine.period))
        .where(
            col(BillingLine.day) == day,
            col(BillingPeriod.state) == "closed",
            col(BillingLine.period) < period,
        )
    )
    billed: dict[LineKey, Amounts] = {}
    for *values, detail in await session.execute(query):
        known = LineKey(*values)
        billed[known] = billed.get(known, NOTHING).plus(decode(detail))
    late: Packed = []
    for key, detail in now:
        more = decode(detail).minus(billed.pop(key, NOTHING))
        # Rows that the ledger no longer has, because their lifetime ended, were billed all the same.
        if more.rows >= 0 and not more.empty:
            late.append((key, encode(more)))
    return late


async def billed_page(
    session: AsyncSession, period: str, team: str | None, days: tuple[int, int], cursor: LineKey | None, limit: int
) -> list[Line]:
    """Return lines of a closed period in the order of their keys, after ``cursor``."""
    columns = [col(getattr(BillingLine, name)) for name in KEY]
    query = select(*columns, col(BillingLine.detail)).where(col(BillingLine.period) == period)
    if team is not None:
        query = query.where(col(BillingLine.team) == team)
    query = query.where(col(BillingLine.day) >= days[0], col(BillingLine.day) <= days[1])
    if cursor is not None:
        query = query.where(tuple_(*columns) > tuple_(*cursor))
    rows = await session.execute(query.order_by(*columns).limit(limit))
    return [Line(period, LineKey(*key), decode(detail)) for *key, detail in rows]


async def rates_of(session: AsyncSession, ids: Iterable[int]) -> dict[str, Rates]:
    """Return the rates under ``ids``, by id as text."""
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    rows = await session.scalars(select(PriceRow).where(col(PriceRow.price_id).in_(wanted)))
    return {str(row.price_id): stored_rates(row) for row in rows}


class OpenDays:
    """Lines of days that are not billed, kept while they are paged through.

    Args:
        database: the books.
        most: bytes to keep of all days together; the day asked for last is always kept.
    """

    def __init__(self, database: Database, most: int = 16 * 1024 * 1024) -> None:
        self._database = database
        self._most = most
        self._days: dict[tuple[int, str], tuple[Fingerprint, Packed]] = {}

    async def lines(self, day: int, late_for: str, sums: Fingerprint | None) -> Packed:
        """Return the lines of a day; with ``late_for`` only what it got since it was billed, for that period.

        Args:
            day: of the usage.
            late_for: the period that bills what came late, or ``""`` for a day that was not billed.
            sums: of the daily rollup, which lines that are kept must agree with; None when any will do.
        """
        known = self._days.pop((day, late_for), None)
        if known is None or (sums is not None and known[0] != sums):
            async with reading(self._database) as session:
                now = (await fingerprints(session, day, day)).get(day, ())
                read = late_lines(session, day, late_for) if late_for else ledger_lines(session, day)
                known = (now, await read)
        self._days[day, late_for] = known
        while len(self._days) > 1 and sum(map(_weight, self._days.values())) > self._most:
            del self._days[next(iter(self._days))]
        return known[1]


def _weight(kept: tuple[Fingerprint, Packed]) -> int:
    """Return about how many bytes a day's lines take."""
    return 600 * len(kept[1])


def page_of(packed: Packed, period: str, team: str | None, cursor: LineKey | None, limit: int) -> list[Line]:
    """Return the lines after ``cursor``, at most ``limit``."""
    start = 0 if cursor is None else bisect_right(packed, cursor, key=_first)
    return [Line(period, key, decode(detail)) for key, detail in _some(packed, start, team, limit)]


def _some(packed: Packed, start: int, team: str | None, limit: int) -> Iterator[tuple[LineKey, bytes]]:
    if team is not None and not start:
        start = bisect_left(packed, team, key=_team)
    for pair in packed[start : start + limit]:
        if team is not None and pair[0].team != team:
            return
        yield pair


async def pages_of(database: Database, period: str, team: str | None = None) -> AsyncIterator[list[Line]]:
    """Yield all lines of a period that is closed or being closed, page by page."""
    cursor: LineKey | None = None
    while True:
        async with reading(database) as session:
            lines = await billed_page(session, period, team, (0, 2**31 - 1), cursor, PAGE)
        if lines:
            yield lines
        if len(lines) < PAGE:
            return
        cursor = lines[-1].key
