"""Sheets: in which parts the lines of a period, or of some days, are read, so that they never are all in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.billing.book import FINGERPRINT, billed_days, closed_periods, fingerprints
from gateway.billing.methods import ALWAYS, Plan, Selection, Sheet
from gateway.billing.period import days_of, following, period_of

_CHARGE: Final = FINGERPRINT.index("charge_nano")
_DISCOUNT: Final = FINGERPRINT.index("discount_nano")
LOOK_BACK: Final = 400
"""Days behind an open period in which late usage is looked for; the ledger keeps no longer."""


async def plan(session: AsyncSession, wanted: Selection) -> Plan:
    """Return the sheets of a selection."""
    known = await closed_periods(session)
    closed = [row.period for row in known]
    issuers = {row.period: row.issuer for row in known}
    if wanted.period:
        if wanted.period in issuers:
            return Plan((Sheet("billed", wanted.period, 0, ALWAYS),), True, issuers)
        sheets = await _open_period(session, wanted.period, closed)
        return Plan(tuple(sheets), False, issuers)
    sheets = [Sheet("billed", each, wanted.first, wanted.last) for each in closed if each >= period_of(wanted.first)]
    late_for = following(closed[-1]) if closed else ""
    days = await fingerprints(session, wanted.first, wanted.last)
    late = await late_days(session, wanted.first, wanted.last, closed, days)
    for day in sorted(days):
        if day in late:
            sheets.append(Sheet("late", late_for, day, day, days[day]))
        elif not closed or period_of(day) > closed[-1]:
            sheets.append(Sheet("open", period_of(day), day, day, days[day]))
    return Plan(tuple(sheets), all(sheet.kind == "billed" for sheet in sheets), issuers)


async def _open_period(session: AsyncSession, period: str, closed: Sequence[str]) -> list[Sheet]:
    first, last = days_of(period)
    sheets: list[Sheet] = []
    if closed and period == following(closed[-1]):
        since = max(0, first - LOOK_BACK)
        days = await fingerprints(session, since, first - 1)
        late = await late_days(session, since, first - 1, closed, days)
        sheets = [Sheet("late", period, day, day, days[day]) for day in sorted(late)]
    days = await fingerprints(session, first, last)
    return sheets + [Sheet("open", period, day, day, days[day]) for day in sorted(days)]


async def so_far(session: AsyncSession, sheets: Sequence[Sheet]) -> tuple[int, int]:
    """Return what sheets that are not billed come to, charge and discount in nano-USD, from sums alone.

    Every charge of the ledger is in a line, so the rollup says the same as all lines together, without reading them.
    """
    late = [sheet.first for sheet in sheets if sheet.kind == "late"]
    billed = await billed_days(session, min(late), max(late)) if late else {}
    charge = discount = 0
    for sheet in sheets:
        before = billed[sheet.first][1] if sheet.kind == "late" and sheet.first in billed else (0,) * len(FINGERPRINT)
        charge += sheet.sums[_CHARGE] - before[_CHARGE]
        discount += sheet.sums[_DISCOUNT] - before[_DISCOUNT]
    return charge, discount


async def open_periods(session: AsyncSession, closed: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return what the open periods come to so far, as ``so_far`` says it, oldest first; those between have nothing."""
    days = await fingerprints(session, 0, ALWAYS)
    if not closed and not days:
        return {}
    due = period = following(closed[-1]) if closed else period_of(min(days))
    found = {due: [0, 0]}
    while period < period_of(max(days, default=0)):
        period = following(period)
        found[period] = [0, 0]
    for day, sums in days.items():
        if (charged := found.get(period_of(day))) is not None:
            charged[0] += sums[_CHARGE]
            charged[1] += sums[_DISCOUNT]
    first = days_of(due)[0]
    earlier = {day: sums for day, sums in days.items() if max(0, first - LOOK_BACK) <= day < first}
    if earlier:
        late = await late_days(session, min(earlier), first - 1, closed, earlier)
        more = await so_far(session, [Sheet("late", due, day, day, earlier[day]) for day in late])
        found[due] = [found[due][0] + more[0], found[due][1] + more[1]]
    return {name: (charge, discount) for name, (charge, discount) in found.items()}


async def late_days(
    session: AsyncSession, first: int, last: int, closed: Sequence[str], days: dict[int, tuple[int, ...]]
) -> set[int]:
    """Return the days of closed periods that have got something since they were billed, by the daily rollup."""
    if not closed:
        return set()
    billed = await billed_days(session, first, last)
    end = days_of(closed[-1])[1]
    return {day for day, sums in days.items() if day <= end and (day not in billed or billed[day][1] != sums)}
