"""The keeper's part in billing: it answers ``gateway.billing.methods``, closes periods when they are due, and delivers.

Errors are those of the books, of closing and of a unit of work; what a sink refuses stays in the outbox.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import select
from sqlmodel import col

from gateway.billing import methods, paper, sheets, usage
from gateway.billing.book import PAGE, OpenDays, billed_page, closed_periods, page_of, rates_of
from gateway.billing.closing import Closing
from gateway.billing.delivery import Delivery
from gateway.billing.line import Line, LineKey, LinePage
from gateway.billing.methods import (
    ALWAYS,
    HitGroup,
    OutboxItem,
    Plan,
    Selection,
    Sheet,
    UsageGroup,
    UsageQuery,
    UsageRow,
)
from gateway.billing.outbox import Outbox, order
from gateway.billing.period import checked_period, days_of, iso
from gateway.billing.statement import Sums
from gateway.config.snapshot import BillingSpec
from gateway.db.engine import Database
from gateway.db.office import Duty, Office, Premises
from gateway.db.tables.billing import BillingPeriod, BillingStatement
from gateway.db.unit_of_work import reading, writing
from gateway.telemetry import logs
from gateway.types.errors import BadRequest, NotFound, Unavailable
from gateway.types.ids import RequestIds
from gateway.types.method import Method
from gateway.types.money import Rates

CLOSE_EVERY_S: Final = 300.0
DELIVER_EVERY_S: Final = 5.0
USAGE_ROWS: Final = 2_000

R = TypeVar("R")
_log: Final = logs.logger(__name__)


class BillingOffice:
    """Answers for billing.

    Args:
        premises: the keeper's.
        now_us: wall clock, microseconds since 1970.
    """

    def __init__(self, premises: Premises, now_us: Callable[[], int] = lambda: time.time_ns() // 1_000) -> None:
        self._database: Database = premises.database
        self._premises = premises
        self._now_us = now_us
        self._open = OpenDays(premises.database)
        self._ids = RequestIds()
        self._rates: dict[int, Rates | None] = {}
        self.outbox = Outbox(premises.database)
        self.closing = Closing(premises.database, lambda: self.spec.issuer, now_us)
        self.delivery = Delivery(self, self.outbox, lambda: self.spec, premises.home, now_us)

    @property
    def spec(self) -> BillingSpec:
        """What the configuration says of billing."""
        config = self._premises.config()
        return BillingSpec() if config is None else config.billing

    async def ask(self, method: Method[R], arguments: Sequence[Any] = ()) -> R:
        """Answer as the keeper would: deliveries read their exports like anybody else."""
        result: R = await self.office().handlers[method](*arguments)
        return result

    def office(self) -> Office:
        """Return the office."""
        return Office(
            {
                methods.CLOSE: self.close,
                methods.PERIODS: self.periods,
                methods.STATEMENT: self.statement,
                methods.TEAMS: self.teams,
                methods.PLAN: self.plan,
                methods.LINES: self.lines,
                methods.USAGE: self.usage,
                methods.CACHE_HITS: self.cache_hits,
                methods.USAGE_ROWS: self.usage_rows,
                methods.OUTBOX: self.outbox.items,
                methods.RETRY: self.retry,
                methods.ORDER: self.order,
            },
            (
                Duty("close billing periods", CLOSE_EVERY_S, self.close_due),
                Duty("deliver exports", DELIVER_EVERY_S, self.deliver),
            ),
            figures={
                "weir_outbox_items": lambda: self.delivery.items,
                "weir_outbox_tries_total": lambda: self.delivery.tries,
            },
        )

    async def close(self, period: str) -> methods.PeriodState:
        """Close a period; one that is closed stays as it is."""
        await self.closing.close(checked_period(period))
        async with reading(self._database) as session:
            row = await session.get(BillingPeriod, period)
        assert row is not None
        return _closed(row)

    async def close_due(self) -> None:
        """Close periods that ended long enough ago, where that is configured."""
        after = self.spec.close_after_s
        while after is not None:
            period = await self.closing.next_open()
            if period is None or self._now_us() < (days_of(period)[1] + 1) * 86_400_000_000 + after * 1_000_000:
                return
            await self.closing.close(period)

    async def deliver(self) -> None:
        """Deliver what is due."""
        if self._premises.config() is not None:
            await self.delivery.run()

    async def periods(self) -> tuple[methods.PeriodState, ...]:
        """Return all periods with usage, or that are closed, oldest first."""
        async with reading(self._database) as session:
            closed = await closed_periods(session)
            running = await sheets.open_periods(session, [row.period for row in closed])
        opened = (methods.PeriodState(name, "open", None, 0, *sums, "") for name, sums in running.items())
        return (*map(_closed, closed), *opened)

    async def statement(self, period: str, team: str, form: str) -> methods.Document:
        """Return a statement in one of the forms of ``paper``."""
        checked_period(period)
        if form not in paper.FORMS:
            raise BadRequest(f"a statement comes as {', '.join(paper.FORMS)}", param="format")
        async with reading(self._database) as session:
            names = await usage.team_names(session)
            row = await session.get(BillingPeriod, period)
            closed = row is not None and row.state == "closed"
            kept = await session.get(BillingStatement, (period, team)) if closed else None
        if kept is not None:
            return _kept(kept, form)
        if team not in names:
            raise NotFound("no such team", param="team")
        sums = Sums() if closed else await self._sums(team, period)
        closed_at = iso(row.closed_us) if closed and row is not None and row.closed_us else None
        issuer = row.issuer if closed and row is not None else self.spec.issuer
        state = "closed" if closed else "open"
        made = sums.statement(period, team, names[team], issuer=issuer, state=state, closed_at=closed_at)
        content = paper.render(made, form)
        return methods.Document(content, hashlib.sha256(content).hexdigest(), closed)

    async def _sums(self, team: str, period: str) -> Sums:
        """Return what an open period has so far, of one team."""
        sums = Sums()
        for sheet in (await self.plan(Selection(team, period))).sheets:
            cursor: LineKey | None = None
            while True:
                page = await self.lines(sheet, team, cursor)
                sums.add(page.lines)
                cursor = page.cursor
                if cursor is None:
                    break
        return sums

    async def teams(self, period: str) -> tuple[methods.TeamName, ...]:
        """Return the teams, by slug, as they were called when ``period`` was closed, or now."""
        async with reading(self._database) as session:
            names = await usage.team_names(session)
            if period:
                query = select(BillingStatement).where(col(BillingStatement.period) == period)
                names |= {row.team: row.name for row in await session.scalars(query)}
        return tuple(methods.TeamName(slug, names[slug]) for slug in sorted(names))

    async def plan(self, wanted: Selection) -> Plan:
        """Return in which parts the lines of a selection are read."""
        if wanted.period:
            checked_period(wanted.period)
        async with reading(self._database) as session:
            if wanted.team is not None:
                await usage.checked_teams(session, [wanted.team], None)
            found = await sheets.plan(session, wanted)
        issuers = dict(found.issuers)
        issuers[""] = self.spec.issuer
        return Plan(found.sheets, found.closed, issuers)

    async def lines(self, sheet: Sheet, team: str | None, cursor: LineKey | None) -> LinePage:
        """Return some lines of a sheet."""
        if sheet.kind == "billed":
            async with reading(self._database) as session:
                found = await billed_page(session, sheet.period, team, (sheet.first, sheet.last), cursor, PAGE)
        else:
            late_for = sheet.period if sheet.kind == "late" else ""
            packed = await self._open.lines(sheet.first, late_for, sheet.sums if cursor is None else None)
            found = page_of(packed, sheet.period, team, cursor, PAGE)
        return await self._page(found)

    async def _page(self, found: list[Line]) -> LinePage:
        wanted = {line.key.price_id for line in found}
        missing = wanted - self._rates.keys()
        if missing:
            async with reading(self._database) as session:
                read = await rates_of(session, missing)
            # Rates under an id never change.
            self._rates |= {price_id: read.get(str(price_id)) for price_id in missing}
        rates = {str(price_id): known for price_id in wanted if (known := self._rates[price_id]) is not None}
        return LinePage(tuple(found), found[-1].key if len(found) == PAGE else None, rates)

    async def usage(self, query: UsageQuery, caller: methods.Caller) -> tuple[UsageGroup, ...]:
        """Return usage that a caller may see; what it names and may not see is as if there were none."""
        async with reading(self._database) as session:
            return await usage.usage(session, await usage.narrowed(session, query, caller))

    async def cache_hits(self, query: UsageQuery, caller: methods.Caller) -> tuple[HitGroup, ...]:
        """Return answers from the response cache that a caller may see, as with ``usage``; ``query`` is by day."""
        async with reading(self._database) as session:
            return await usage.cache_hits(session, await usage.narrowed(session, query, caller))

    async def usage_rows(
        self, team: str | None, first: int, last: int, cursor: tuple[object, ...] | None
    ) -> tuple[UsageRow, ...]:
        """Return the next rows of the daily rollup."""
        async with reading(self._database) as session:
            if team is not None:
                await usage.checked_teams(session, [team], None)
            return tuple(await usage.usage_page(session, team, first, last, cursor, USAGE_ROWS))

    async def retry(self, item: str) -> OutboxItem:
        """Have an item of the outbox tried again at once."""
        return await self.outbox.retry(item, self._now_us())

    async def order(self, sink: str, dataset: str, wanted: Selection, form: str) -> OutboxItem:
        """Have an export made and delivered to a sink."""
        self.delivery.checked(sink, dataset, form)
        await self.plan(wanted)
        now = self._now_us()
        item = f"order-{self._ids.new().hex()}"
        document = {
            "type": "export",
            "dataset": dataset,
            "format": form,
            "team": wanted.team,
            "period": wanted.period,
            "first": wanted.first,
            "last": wanted.last if wanted.last != ALWAYS else None,
        }
        async with writing(self._database) as session:
            order(session, item, sink, document, now)
        return OutboxItem(item, sink, "pending", 0, now, now, None, "")


def open_office(premises: Premises) -> Office:
    """Return the office of billing."""
    return BillingOffice(premises).office()


def _closed(row: BillingPeriod) -> methods.PeriodState:
    return methods.PeriodState(
        row.period, row.state, row.closed_us, row.lines, row.charge_nano, row.discount_nano, row.digest
    )


def _kept(row: BillingStatement, form: str) -> methods.Document:
    """Return a kept statement, after a look whether it is still what was kept."""
    forms = {each: zlib.decompress(getattr(row, f"as_{each}")) for each in paper.FORMS}
    if hashlib.sha256(b"".join(forms[each] for each in paper.FORMS)).hexdigest() != row.digest:
        _log.error("billing_statement_damaged", period=row.period, team=row.team)
        raise Unavailable(f"the statement {row.period} of {row.team} is damaged; restore the database")
    return methods.Document(forms[form], hashlib.sha256(forms[form]).hexdigest(), True)
