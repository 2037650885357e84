"""Closing a period: its lines and statements are made, kept and never change again.

A close works day by day in small transactions, so that the shipper is never kept waiting long, and all of it counts
only with the last one, which also writes what the sinks are to be told. A close that broke off leaves nothing that
anybody reads; the next one begins anew. Periods are closed in order, because what comes late for one is billed in the
next.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import zlib
from collections.abc import Callable
from secrets import token_hex
from typing import Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, col

from gateway.billing import paper
from gateway.billing.book import (
    FINGERPRINT,
    Packed,
    billed_days,
    closed_periods,
    decode,
    fingerprints,
    late_lines,
    ledger_count,
    ledger_lines,
    pages_of,
)
from gateway.billing.outbox import announce
from gateway.billing.period import day_text, days_of, following, iso, period_of
from gateway.billing.sheets import LOOK_BACK
from gateway.billing.statement import Sums
from gateway.db.bulk import bulk_on
from gateway.db.engine import Database
from gateway.db.tables.access import TeamRow
from gateway.db.tables.billing import BilledDay, BillingLine, BillingPeriod, BillingStatement
from gateway.db.tables.ledger import UsageDay
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing
from gateway.telemetry import logs
from gateway.types.errors import BadRequest, Unavailable
from gateway.types.money import usd_text

STALE_US: Final = 600 * 1_000_000
"""A close that said nothing for so long has broken off."""
COUNTED_DAYS: Final = 62
"""Billed days behind a period whose ledger rows are counted at its close; of older ones the rollup tells."""
_LINE: Final = tuple(column.name for column in SQLModel.metadata.tables[BillingLine.__tablename__].columns)
_ROWS: Final = 2_000

_log: Final = logs.logger(__name__)


def wall_clock_us() -> int:
    """Return microseconds since 1970."""
    return time.time_ns() // 1_000


class Closing:
    """Closes periods.

    Args:
        database: the books.
        issuer: returns who charges.
        now_us: wall clock, microseconds since 1970.
    """

    def __init__(
        self, database: Database, issuer: Callable[[], str], now_us: Callable[[], int] = wall_clock_us
    ) -> None:
        self._database = database
        self._issuer = issuer
        self._now_us = now_us
        self._owner = token_hex(8)
        self._turn = asyncio.Lock()

    async def next_open(self) -> str | None:
        """Return the oldest period that is not closed, or None when nothing was ever used."""
        async with reading(self._database) as session:
            return await next_open(session)

    async def close(self, period: str) -> bool:
        """Close a period; return whether it was still open.

        Raises:
            BadRequest: it has not ended, or an earlier one is open.
            Unavailable: another keeper is at it, or the database is away.
        """
        async with self._turn:
            if not await self._claim(period):
                return False
            first, last = days_of(period)
            async with reading(self._database) as session:
                used = sorted(await fingerprints(session, first, last))
            for day in used:
                await self._bill(period, day, late=False)
            for day in await self._late(first):
                await self._bill(period, day, late=True)
            await self._state(period)
            await self._seal(period)
        _log.info("billing_period_closed", period=period)
        return True

    async def _claim(self, period: str) -> bool:
        """Begin; return False when the period is closed already."""
        now = self._now_us()
        last = days_of(period)[1]
        async with writing(self._database) as session:
            known = await session.get(BillingPeriod, period)
            if known is not None and known.state == "closed":
                return False
            if now < (last + 1) * 86_400_000_000:
                raise BadRequest(f"the period {period} ends with {day_text(last)}, UTC", param="period")
            due = await next_open(session)
            if due is None:
                raise BadRequest("nothing was ever used: there is nothing to close", param="period")
            if period != due:
                raise BadRequest(f"periods are closed in order: the next one is {due}", param="period")
            if known is not None and known.owner != self._owner and now - known.touched_us < STALE_US:
                raise Unavailable(f"the period {period} is being closed by another keeper", retry_after=60.0)
            for table in (BillingLine, BilledDay, BillingStatement):
                await session.execute(delete(table).where(col(table.period) == period))
            if known is None:
                known = BillingPeriod(period=period, state="closing", owner="", touched_us=0, issuer="")
                session.add(known)
            known.owner, known.touched_us, known.issuer = self._owner, now, self._issuer()
        return True

    async def _bill(self, period: str, day: int, *, late: bool) -> None:
        """Keep the lines of a day, or what a billed day got since."""
        async with reading(self._database) as session:
            packed = await (late_lines(session, day, period) if late else ledger_lines(session, day))
            sums = (await fingerprints(session, day, day)).get(day, (0,) * len(FINGERPRINT))
            count = await ledger_count(session, day)
        async with writing(self._database) as session:
            await self._touch(session, period)
            await _insert(session, period, packed)
            figures = dict(zip(FINGERPRINT, sums, strict=True))
            session.add(BilledDay(period=period, day=day, ledger_rows=count, **figures))

    async def _late(self, first: int) -> list[int]:
        """Return the billed days that got something since."""
        since = max(0, first - LOOK_BACK)
        async with reading(self._database) as session:
            if not await closed_periods(session):
                return []
            days = await fingerprints(session, since, first - 1)
            billed = await billed_days(session, since, first - 1)
        found = []
        for day in sorted(days):
            rows, sums = billed.get(day, (0, ()))
            if sums != days[day]:
                found.append(day)
            elif day >= first - COUNTED_DAYS:
                async with reading(self._database) as session:
                    if await ledger_count(session, day) > rows:
                        found.append(day)
        return found

    async def _state(self, period: str) -> None:
        """Write the statements of all teams."""
        async with reading(self._database) as session:
            query = select(col(BillingLine.team)).distinct().where(col(BillingLine.period) == period)
            teams = sorted(await session.scalars(query))
            names = {row.slug: row.name for row in await session.scalars(select(TeamRow))}
            issuer = await session.scalar(select(col(BillingPeriod.issuer)).where(col(BillingPeriod.period) == period))
        closed_at = iso(self._now_us())
        for team in teams:
            sums = Sums()
            async for lines in pages_of(self._database, period, team):
                sums.add(lines)
                await asyncio.sleep(0)
            name = names.get(team, team)
            made = sums.statement(period, team, name, issuer=issuer or "", state="closed", closed_at=closed_at)
            forms = {form: paper.render(made, form) for form in paper.FORMS}
            amounts = sums.amounts
            row = BillingStatement(
                period=period,
                team=team,
                name=name,
                charge_nano=amounts.charge_nano,
                discount_nano=amounts.discount_nano,
                tokens=sum(amounts.tokens),
                digest=hashlib.sha256(b"".join(forms[form] for form in paper.FORMS)).hexdigest(),
                **{f"as_{form}": zlib.compress(document) for form, document in forms.items()},
            )
            async with writing(self._database) as session:
                await self._touch(session, period)
                session.add(row)

    async def _seal(self, period: str) -> None:
        """Make it count: the period is closed, and whoever is to hear of it will."""
        now = self._now_us()
        async with writing(self._database) as session:
            await self._touch(session, period)
            of_lines = select(
                func.count(),
                func.coalesce(func.sum(col(BillingLine.charge_nano)), 0),
                func.coalesce(func.sum(col(BillingLine.discount_nano)), 0),
            ).where(col(BillingLine.period) == period)
            lines, charge, discount = (await session.execute(of_lines)).one()
            rows = (
                await session.execute(
                    select(
                        col(BillingStatement.team),
                        col(BillingStatement.digest),
                        col(BillingStatement.charge_nano),
                        col(BillingStatement.tokens),
                    )
                    .where(col(BillingStatement.period) == period)
                    .order_by(col(BillingStatement.team))
                )
            ).all()
            digest = hashlib.sha256("".join(f"{row.team} {row.digest}\n" for row in rows).encode()).hexdigest()
            await session.execute(
                update(BillingPeriod)
                .where(col(BillingPeriod.period) == period)
                .values(
                    state="closed",
                    closed_us=now,
                    lines=int(lines),
                    charge_nano=int(charge),
                    discount_nano=int(discount),
                    digest=digest,
                )
            )
            closed = {"state": "closed", "charge_nano": int(charge), "digest": digest}
            await note(session, "billing period", period, {"state": "closing"}, closed)
            document = {
                "type": "period.closed",
                "period": period,
                "closed_at": iso(now),
                "currency": "USD",
                "effective": usd_text(int(charge)),
                "discount": usd_text(int(discount)),
                "digest": digest,
                "teams": {
                    row.team: {"effective": usd_text(row.charge_nano), "tokens": row.tokens, "digest": row.digest}
                    for row in rows
                },
            }
            announce(session, period, document, now)

    async def _touch(self, session: AsyncSession, period: str) -> None:
        """Say that the close goes on.

        Raises:
            Unavailable: another keeper took it over.
        """
        row = await session.get(BillingPeriod, period)
        if row is None or row.owner != self._owner or row.state != "closing":
            raise Unavailable(f"another keeper closes the period {period}", retry_after=60.0)
        row.touched_us = self._now_us()


async def next_open(session: AsyncSession) -> str | None:
    """Return the oldest period that is not closed, or None when nothing was ever used."""
    closed = await closed_periods(session)
    if closed:
        return following(closed[-1].period)
    first = await session.scalar(select(func.min(col(UsageDay.day))))
    return None if first is None else period_of(int(first))


async def _insert(session: AsyncSession, period: str, packed: Packed) -> None:
    """Insert lines, in the order of their keys."""
    bulk = await bulk_on(await session.connection())
    rows = []
    for key, detail in packed:
        amounts = decode(detail)
        rows.append((period, *key, amounts.charge_nano, amounts.discount_nano, detail))
        if len(rows) == _ROWS:
            await bulk.insert(BillingLine.__tablename__, _LINE, rows)
            rows = []
    await bulk.insert(BillingLine.__tablename__, _LINE, rows)
