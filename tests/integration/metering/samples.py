"""Attempts, journals and databases for tests of the metering."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.metering.journal import Journal
from gateway.metering.record import Close, Dimensions, Open, Progress, Record, RowKind, Status, scan
from gateway.metering.segments import list_segments
from gateway.pricing.charge import charge, rates_id
from gateway.types.charge import NO_CHARGE
from gateway.types.ids import RequestIds
from gateway.types.money import Rates
from gateway.types.tokens import Usage, UsageSource

PRICE: Final = Rates(100_000, 300_000, cache_read=20_000)
COST: Final = Rates(60_000, 250_000)
PRICE_ID: Final = rates_id(PRICE)
COST_ID: Final = rates_id(COST)
USAGE: Final = Usage(1_000, 100)
IDS: Final = RequestIds()
DIMS: Final = Dimensions(
    team="team-a",
    key_id="abcd1234",
    model="qwen/qwen3-32b",
    endpoint="own/fp8/eu",
    backend="gpu-a",
    provider="own",
    app="tests",
    tier="default",
    operation="chat",
    requested_model="house-default",
    upstream_model="Qwen/Qwen3-32B",
    user="user-1",
    streamed=True,
    price_id=PRICE_ID,
    cost_id=COST_ID,
)


def dims(**changes: Any) -> Dimensions:
    """Return the usual dimensions, changed."""
    changed: Dimensions = msgspec.structs.replace(DIMS, **changes)
    return changed


def opened(labels: Dimensions = DIMS, request_id: bytes | None = None, attempt: int = 1) -> Open:
    """Return the beginning of an attempt."""
    return Open(request_id or IDS.new(), attempt, labels, time.time_ns() // 1000, 200)


def closed(
    attempt: Open,
    usage: Usage = USAGE,
    status: Status = Status.OK,
    *,
    kind: RowKind = RowKind.USAGE,
    times_us: tuple[int, int, int] = (20_000, 1_020_000, 1_000_000),
) -> Close:
    """Return the end of ``attempt``, charged as it should be."""
    pays = status in {Status.OK, Status.CLIENT_CANCEL}
    return Close(
        attempt.request_id,
        attempt.attempt,
        kind,
        attempt.dims,
        attempt.opened_us,
        status,
        "stop",
        200,
        usage,
        UsageSource.UPSTREAM,
        charge(usage, PRICE) if pays and attempt.dims.price_id else NO_CHARGE,
        charge(usage, COST) if attempt.dims.cost_id else NO_CHARGE,
        *times_us,
        "chatcmpl-1",
        "",
    )


def progressed(attempt: Open, completion: int) -> Progress:
    """Return the progress of ``attempt``."""
    return Progress(attempt.request_id, attempt.attempt, Usage(1_000, completion), UsageSource.COUNTED)


def request_id_at(moment_us: int) -> bytes:
    """Return a random request id whose time is ``moment_us`` microseconds since 1970."""
    tail = bytearray(os.urandom(10))
    tail[0] = 0x70 | (tail[0] & 0x0F)
    tail[2] = 0x80 | (tail[2] & 0x3F)
    return (moment_us // 1000).to_bytes(6, "big") + bytes(tail)


def on_disk(folder: Path) -> list[Record]:
    """Return every whole record of every segment in ``folder``, oldest segment first."""
    return [record for file in list_segments(folder) for record, _ in scan(file.path.read_bytes())]


def of_type(records: Iterable[object], kind: type[Any]) -> Sequence[Any]:
    """Return the records of one kind."""
    return [record for record in records if type(record) is kind]


def keys(records: Iterable[Any]) -> set[tuple[bytes, int]]:
    """Return which attempts records are of."""
    return {(record.request_id, record.attempt) for record in records}


def begin(folder: Path, **options: object) -> Journal:
    """Return a journal that knows the usual rates."""
    journal = Journal.create(folder, **options)  # type: ignore[arg-type] # passed through
    journal.declare(PRICE_ID, PRICE)
    journal.declare(COST_ID, COST)
    return journal


def meter(journal: Journal, count: int, **labels: object) -> list[Close]:
    """Journal ``count`` whole attempts and return their ends."""
    ends = []
    for number in range(count):
        start = opened(dims(**labels))
        journal.append(start)
        ends.append(closed(start, Usage(100 + number, number)))
        journal.append(ends[-1])
    return ends
