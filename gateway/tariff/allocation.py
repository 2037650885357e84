"""What own machines cost each hour, and what they were used for in it.

A machine that is rented by the hour costs the same idle or busy. For each UTC hour and backend that has a cost by the
hour, the hour's money is split: what its models used, and an idle rest on a line of its own. All lines together are
exactly the hour's price.

*Busy by time*, where the owner said how many requests the machine runs side by side (``capacity.max_running``): the
busy share is the time of all attempts together over ``max_running`` hours. *Busy by tokens*, where not: the tokens of
the hour over those of the machine's best hour so far. Attempts count to the hour their request came in, with all of
their time. The busy part is split between models and endpoints as that time, or those tokens, were.

Counted from the ledger, because rollups do not say on which machine an attempt ran. An hour is worked out when it has
been over for two minutes, and once more an hour later, when late records have come; then it is final. A turn that fails
is repeated; an hour is written whole or not at all.

An hour in which no machine costs anything has no rows and needs none: no version is ever valid before it is made, so
what an hour costs does not change after its end, and such hours are passed over without being marked. The one
exception is the very first version of all, which also counts for the time before it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Final

from sqlalchemy import delete, func, insert, select
from sqlmodel import col

from gateway.db.engine import Database
from gateway.db.tables.ledger import LabelSet, LedgerRow
from gateway.db.tables.tariff import AllocationHour
from gateway.db.unit_of_work import reading, writing
from gateway.tariff.store import TariffStore
from gateway.tariff.version import LEAD_US, Hourly, Kind, Version, valid

HOUR_US: Final = 3_600_000_000
SHARES: Final = 1_000_000
"""A share is counted in millionths of the hour."""
SETTLE_US: Final = 120_000_000
FINAL_US: Final = HOUR_US
HOURS_AT_ONCE: Final = 400
PEAK_HOURS: Final = 28 * 24
"""Hours in which a machine's best one is looked for."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a model took of a machine in an hour."""

    model: str
    endpoint: str
    tokens: int
    busy_us: int


@dataclass(frozen=True, slots=True)
class Line:
    """A part of an hour's price; ``share`` in millionths of the hour, ``cost`` in nano-USD."""

    use: Use
    share: int
    cost: int


IDLE: Final = Use("", "", 0, 0)


def allocate(hourly: Hourly, uses: Sequence[Use], peak: int) -> tuple[str, list[Line]]:
    """Return what the shares are made from, and the lines of one machine's hour, the idle one last.

    Args:
        hourly: what it costs.
        uses: what it was used for, one for each model and endpoint.
        peak: tokens of its best hour so far.
    """
    if hourly.max_running is not None:
        measure, weights = "time", [use.busy_us for use in uses]
        whole = hourly.max_running * HOUR_US
    else:
        measure, weights = "tokens", [use.tokens for use in uses]
        whole = peak
    whole = max(whole, sum(weights), 1)
    parts = [*weights, whole - sum(weights)]
    shares, costs = _split(SHARES, parts, whole), _split(hourly.nano, parts, whole)
    return measure, [Line(*each) for each in zip((*uses, IDLE), shares, costs, strict=True)]


def _split(amount: int, parts: Sequence[int], whole: int) -> list[int]:
    """Return ``amount`` in proportion to ``parts``, which add up to ``whole``, exact in sum."""
    found = [divmod(amount * part, whole) for part in parts]
    left = amount - sum(share for share, _ in found)  # goes to the largest remainders
    ahead = sorted(range(len(parts)), key=lambda place: -found[place][1])[:left]
    return [share + (place in ahead) for place, (share, _) in enumerate(found)]


class Allocator:
    """Works out the hours that are over.

    Args:
        database: the keeper's.
        clock: wall clock, nanoseconds since 1970.
    """

    def __init__(self, database: Database, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._store = TariffStore(database)
        self._clock = clock

    async def turn(self) -> None:
        """Work out the hours that are due, some hundred at a time."""
        history = await self._store.history(Kind.HOUR)
        if not any(version.hourly for version in history):
            return
        now_us = self._clock() // 1000
        for hour, costs in await self._due(history, (now_us - SETTLE_US) // HOUR_US):
            await self._work_out(hour, costs, final=now_us >= (hour + 1) * HOUR_US + FINAL_US)
            await asyncio.sleep(0)

    async def _due(self, history: Sequence[Version], end: int) -> list[tuple[int, Mapping[str, Hourly]]]:
        """Return the hours before ``end`` that are missing or not final, oldest first, and what machines cost then."""
        async with reading(self._database) as session:
            first_day = await session.scalar(select(func.min(LedgerRow.day)))
            final = await session.scalar(select(func.max(AllocationHour.hour)).where(col(AllocationHour.final)))
        first = min(version.valid_from_us for version in history) // HOUR_US
        if first_day is not None:
            first = min(first, first_day * 24)
        if final is not None:
            first = max(first, final + 1)
        return list(islice(_charged(history, first, end), HOURS_AT_ONCE))

    async def _work_out(self, hour: int, costs: Mapping[str, Hourly], *, final: bool) -> None:
        uses = await self._uses(hour)
        rows = []
        for backend, hourly in sorted(costs.items()):
            used = uses.get(backend, [])
            peak = 0 if hourly.max_running else await self._peak(backend, hour)
            measure, lines = allocate(hourly, used, peak)
            rows += [
                {
                    "hour": hour,
                    "backend": backend,
                    "model": line.use.model,
                    "endpoint": line.use.endpoint,
                    "usd_per_hour_nano": hourly.nano,
                    "cost_nano": line.cost,
                    "share": line.share,
                    "tokens": line.use.tokens,
                    "busy_us": line.use.busy_us,
                    "measure": measure,
                    "final": final,
                }
                for line in lines
            ]
        async with writing(self._database) as session:
            await session.execute(delete(AllocationHour).where(col(AllocationHour.hour) == hour))
            if rows:
                await session.execute(insert(AllocationHour), rows)

    async def _uses(self, hour: int) -> dict[str, list[Use]]:
        """Return what was used in ``hour``, by backend."""
        # Ids begin with their time in milliseconds, so an hour is a range of the ledger's key.
        begin, end = ((each * 3_600_000).to_bytes(6, "big") for each in (hour, hour + 1))
        tokens = func.sum(LedgerRow.tokens_prompt + LedgerRow.tokens_completion)
        busy = func.sum(LedgerRow.duration_us)
        query = (
            select(col(LabelSet.backend), col(LabelSet.model), col(LabelSet.endpoint), tokens, busy)
            .join(LabelSet, col(LabelSet.label_id) == col(LedgerRow.label_id))
            .where(col(LedgerRow.day) == hour // 24)
            .where(col(LedgerRow.request_id) >= begin, col(LedgerRow.request_id) < end)
            .where(col(LedgerRow.kind) == "usage")
            .group_by(col(LabelSet.backend), col(LabelSet.model), col(LabelSet.endpoint))
            .order_by(col(LabelSet.backend), col(LabelSet.model), col(LabelSet.endpoint))
        )
        uses: dict[str, list[Use]] = {}
        async with reading(self._database) as session:
            for backend, model, endpoint, counted, took in await session.execute(query):
                uses.setdefault(backend, []).append(Use(model, endpoint, int(counted), int(took)))
        return uses

    async def _peak(self, backend: str, hour: int) -> int:
        """Return the tokens of the best hour of ``backend`` in the weeks before ``hour``."""
        hours = (
            select(func.sum(AllocationHour.tokens).label("tokens"))
            .where(col(AllocationHour.backend) == backend)
            .where(col(AllocationHour.hour) >= hour - PEAK_HOURS, col(AllocationHour.hour) < hour)
            .group_by(col(AllocationHour.hour))
            .subquery()
        )
        async with reading(self._database) as session:
            return int(await session.scalar(select(func.max(hours.c.tokens))) or 0)


def _charged(history: Sequence[Version], first: int, end: int) -> Iterator[tuple[int, Mapping[str, Hourly]]]:
    """Yield the hours from ``first`` to before ``end`` in which any machine costs something, and what each costs."""
    # A version changes the hour that it comes in, or the next one; all hours up to the next change are alike.
    changes = {version.valid_from_us // HOUR_US + later for version in history for later in (0, 1)}
    for begin, until in pairwise([first, *sorted(hour for hour in changes if first < hour < end), end]):
        costs = _costs(history, begin)
        if costs:
            yield from ((hour, costs) for hour in range(begin, until))


def _costs(history: Sequence[Version], hour: int) -> dict[str, Hourly]:
    """Return what each machine costs in ``hour``: what is valid at its start.

    Where that is nothing, the first cost that is said within the hour counts for the whole of it: a machine that was
    missing in the file for a moment costs what it did. The very first word of all counts for all hours before it, too,
    unless it was given a date: what was used before anybody spoke of money ran on those machines.
    """
    begin_us, opening = hour * HOUR_US, history[0]
    if opening.valid_from_us <= opening.made_us + LEAD_US:
        begin_us = max(begin_us, opening.valid_from_us)
    known = dict(valid(history, begin_us).hour)
    moments = {version.valid_from_us for version in history}
    for moment in sorted(each for each in moments if begin_us < each < (hour + 1) * HOUR_US):
        for place, hourly in valid(history, moment).hour.items():
            known[place] = known.get(place) or hourly
    return {place: hourly for place, hourly in known.items() if hourly is not None}
