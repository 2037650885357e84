"""Attempts whose process died: opened in the journal and never closed there.

The team pays what the last progress record says was produced, nothing when that is nothing; the owner's cost is taken
from the same counts. Every segment holds the rates its records name, so no database is needed for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from gateway.metering.ceiling import capped
from gateway.metering.record import Close, Open, Price, Progress, RowKind, Status
from gateway.metering.segments import CHUNK, SegmentFile, SegmentParser
from gateway.pricing.charge import charge, payable
from gateway.types.charge import NO_CHARGE
from gateway.types.money import Rates
from gateway.types.tokens import NO_USAGE, UsageSource

_SLICE: Final = 200


class _Attempts:
    """What the segments of one journal say of its attempts."""

    def __init__(self) -> None:
        self.opened: dict[tuple[bytes, int], Open] = {}
        self.progress: dict[tuple[bytes, int], Progress] = {}
        self.closed: set[tuple[bytes, int]] = set()
        self.rates: dict[int, Rates] = {}

    def note(self, record: object) -> None:
        """Take one record into account."""
        if isinstance(record, Open):
            self.opened[record.request_id, record.attempt] = record
        elif isinstance(record, Progress):
            self.progress[record.request_id, record.attempt] = record
        elif isinstance(record, Close):
            self.closed.add((record.request_id, record.attempt))
        elif isinstance(record, Price):
            self.rates[record.price_id] = record.rates


async def find_orphans(files: Iterable[SegmentFile]) -> list[Close]:
    """Return a ledger row for each attempt that was opened and not closed in ``files``.

    Args:
        files: all segments of one journal whose writer is gone, oldest first.

    Raises:
        OSError: a segment cannot be read.
    """
    attempts = _Attempts()
    for file in files:
        parser, size = SegmentParser(), file.size()
        while True:
            data = file.read(parser.position, CHUNK)
            more = parser.position + len(data) < size
            for count, record in enumerate(parser.records(data, more=more, final=True), 1):
                attempts.note(record)
                if count % _SLICE == 0:
                    await asyncio.sleep(0)
            if not more or not data or parser.foreign:
                break
    # Several open attempts of one request are the legs of one answer: only the last one is the caller's request.
    left = sorted(key for key in attempts.opened if key not in attempts.closed)
    found: list[Close] = []
    context = charged = 0
    for place, key in enumerate(left):
        later = place > 0 and left[place - 1][0] == key[0]
        goes_on = place + 1 < len(left) and left[place + 1][0] == key[0]
        status = Status.ORPHANED
        if goes_on:
            status = Status.CONTINUED if key in attempts.progress else Status.FAILED
        progress = attempts.progress.get(key)
        if not later:
            context, charged = progress.usage.prompt if progress else 0, 0
        row = _orphan(attempts.opened[key], progress, attempts.rates, status, context if later else None, charged)
        charged += row.charge.total
        found.append(row)
    return found


def _orphan(
    record: Open, progress: Progress | None, rates: dict[int, Rates], status: Status, context: int | None, charged: int
) -> Close:
    """Return the row of an attempt that was opened as ``record`` says and got as far as ``progress``.

    A later leg does not pay the rate per request again; ``context`` is the input of the first one then, else None.
    What the legs before it were ``charged`` (nano-USD) and this one's charge are no more than was reserved.
    """
    usage = progress.usage if progress else NO_USAGE
    price, cost = rates.get(record.dims.price_id), rates.get(record.dims.cost_id)
    tier, paid, discount = record.dims.tier, NO_CHARGE, NO_CHARGE
    if price and usage.completion:
        paid, discount = payable(usage, price, tier, context=context, later=context is not None)
        if record.reserved is not None:
            paid, discount = capped(paid, discount, record.reserved - charged)
    return Close(
        record.request_id,
        record.attempt,
        RowKind.USAGE,
        record.dims,
        record.opened_us,
        status,
        usage=usage,
        source=progress.source if progress else UsageSource.NONE,
        charge=paid,
        cost=charge(usage, cost, tier) if cost and usage.total else NO_CHARGE,
        discount=None if discount is NO_CHARGE else discount,
    )
