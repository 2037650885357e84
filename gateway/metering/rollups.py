"""Rollups: what boards, percentiles and dashboards read instead of the ledger.

Fed only with rows that the ledger really took, and in the same transaction, so they can never disagree with it.
Sums are added in the database; histograms are read, merged here and written back, which is safe because one transaction
at a time does so (``Bulk.guard``).
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress, repeat
from math import ceil, log2
from operator import add, mul, truediv
from typing import Final

from gateway.db.bulk import Answer, Bulk
from gateway.metering import settled, tallies, totals
from gateway.metering.entry import SUMS as ROW_SUMS
from gateway.metering.entry import Entries, Row
from gateway.metering.labels import ROLLUP, Labels
from gateway.metering.record import RowKind
from gateway.types.histogram import LOG2_GAMMA, LOWEST, Histogram

Key = tuple[int | str, ...]
"""Hour or day, then the labels of ``ROLLUP``."""

OWN: Final = ("byok_requests", "byok_list_nano", "byok_charge_nano")
"""Sums of what went with keys of the teams' own."""
SUMS: Final = ("requests", *ROW_SUMS, *OWN)
HISTOGRAMS: Final = ("ttft", "duration", "throughput")
_KEY_ID: Final = 1 + ROLLUP.index("key_id")
_ROWS_AT_ONCE: Final = 500
"""Rows summed up before others get their turn on the event loop."""
_BUCKET_ROWS: Final = 20
"""As many rows as a bucket of no rows would take the time of."""
_MERGE_SLICE: Final = 25


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is summed and counted under one key.

    Attributes:
        last_us: latest start of an attempt, microseconds since 1970.
        sums: in the order of ``SUMS``.
        ttft: seconds to the first token.
        duration: seconds from arrival to end.
        throughput: completion tokens per second between the first and the last one.
    """

    last_us: int
    sums: Sequence[int]
    ttft: Histogram
    duration: Histogram
    throughput: Histogram

    @classmethod
    def of(cls, columns: Sequence[str], rows: Iterable[Row]) -> Bucket:
        """Return the sums of ledger rows. A correction changes sums, but is no request and has no times.

        Args:
            columns: names of the values of each row; those that are missing are zero.
            rows: at least one.
        """
        values = dict(zip(columns, zip(*rows, strict=True), strict=True))
        last_us = max(values["opened_us"])
        sums = [sum(values[name]) if name in values else 0 for name in ROW_SUMS]
        requests = values["kind"].count(RowKind.USAGE.value)
        if requests < len(values["kind"]):
            counted = [kind == RowKind.USAGE for kind in values["kind"]]
            values = {name: tuple(compress(column, counted)) for name, column in values.items()}
        rates = _rates(values.get("tokens_completion", ()), values.get("generation_us", ()))
        ttft, duration = (_times(values.get(name, ())) for name in ("ttft_us", "duration_us"))
        return cls(last_us, [requests, *sums, 0, 0, 0], ttft, duration, rates)

    @classmethod
    def of_own(cls, columns: Sequence[str], rows: Iterable[Row]) -> Bucket:
        """Return the sums of ``OWN`` alone, of ledger rows that went with keys of the teams' own."""
        values = dict(zip(columns, zip(*rows, strict=True), strict=True))
        charge, discount = (
            sum(each or 0 for each in values.get(name, ())) for name in ("charge_nano", "discount_nano")
        )
        sums = [values["kind"].count(RowKind.USAGE.value), charge + discount, charge]
        return cls(0, [*[0] * (1 + len(ROW_SUMS)), *sums], Histogram(), Histogram(), Histogram())

    def plus(self, other: Bucket) -> Bucket:
        """Return the sums of both."""
        last_us = max(self.last_us, other.last_us)
        joined = Bucket(last_us, list(map(add, self.sums, other.sums)), Histogram(), Histogram(), Histogram())
        for each in (self, other):
            joined.ttft.merge(each.ttft)
            joined.duration.merge(each.duration)
            joined.throughput.merge(each.throughput)
        return joined


async def tally(inserted: Sequence[Entries]) -> dict[Key, Bucket]:
    """Sum up ledger rows by UTC hour and labels, giving way to the event loop every now and then.

    Args:
        inserted: rows that were just inserted, and no row that was there before.
    """
    groups: dict[tuple[int, tuple[str, ...]], dict[Labels, list[Row]]] = {}
    for some in inserted:
        by_labels = groups.setdefault((some.hour, some.columns), defaultdict(list))
        for labels, row in zip(some.labels, some.rows, strict=True):
            by_labels[labels].append(row)
        await asyncio.sleep(0)
    hours: dict[Key, Bucket] = {}
    for (hour, columns), by_labels in groups.items():
        by_key: dict[Key, list[Row]] = defaultdict(list)
        for labels, rows in by_labels.items():
            by_key[hour, *labels.rollup] += rows
        done = 0
        for key, rows in by_key.items():
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                some_rows = rows[start : start + _ROWS_AT_ONCE]
                bucket = Bucket.of(columns, some_rows)
                hours[key] = hours[key].plus(bucket) if key in hours else bucket
                done += _BUCKET_ROWS + len(some_rows)
                if done >= _ROWS_AT_ONCE:
                    done = 0
                    await asyncio.sleep(0)
        for labels, rows in by_labels.items():
            if labels.own:
                key = (hour, *labels.rollup)
                hours[key] = hours[key].plus(Bucket.of_own(columns, rows))
    return hours


def last_used(hours: Mapping[Key, Bucket]) -> dict[str, int]:
    """Return key ids with the latest start of an attempt, microseconds since 1970."""
    latest: dict[str, int] = {}
    for key, bucket in hours.items():
        key_id = str(key[_KEY_ID])
        latest[key_id] = max(bucket.last_us, latest.get(key_id, 0))
    return latest


@dataclass(frozen=True, slots=True)
class Known:
    """What ``post`` has to know: the histograms of hours and of days, and what ``totals.post`` has to."""

    hours: Answer
    days: Answer
    before: totals.Before


def ask(connection: Bulk, new: Sequence[Entries]) -> Known:
    """Ask for what ``post`` has to know of the rollups that rows belong to, before it is known which of them are new.

    The questions go with the trip that inserts the rows, where there is one.
    """
    return _ask(connection, {(some.hour, *labels.rollup) for some in new for labels in set(some.labels)})


async def post(connection: Bulk, hours: Mapping[Key, Bucket], known: Known | None = None) -> None:
    """Add to all rollups what a batch of ledger rows adds, in the transaction that inserted them.

    Args:
        connection: in that transaction.
        hours: what the rows add.
        known: what was asked for them, and perhaps for more; if it was not, that is done here.
    """
    if not hours:
        return
    days: dict[Key, Bucket] = {}
    for (hour, *labels), bucket in hours.items():
        key = (int(hour) // 24, *labels)
        before = days.get(key)
        days[key] = before.plus(bucket) if before else bucket
    await connection.guard()
    known = known or _ask(connection, hours)
    await _merge(connection, "usage_hour", "hour", hours, await known.hours)
    await _merge(connection, "usage_day", "day", days, await known.days)
    await totals.post(connection, hours, days, known.before)
    await tallies.post(connection, days, SUMS)
    await settled.announce(connection, (int(hour) for hour, *_ in hours))


def _ask(connection: Bulk, hours: Iterable[Key]) -> Known:
    """Ask for what ``post`` has to know of rollups by hour."""
    by_hour = sorted(hours)
    by_day = sorted({(int(hour) // 24, *labels) for hour, *labels in by_hour})
    return Known(
        connection.ask_matching("usage_hour", ("hour", *ROLLUP), HISTOGRAMS, by_hour),
        connection.ask_matching("usage_day", ("day", *ROLLUP), HISTOGRAMS, by_day),
        totals.ask(connection, by_day),
    )


def _times(microseconds: Sequence[int]) -> Histogram:
    """Return those of the times that were taken, in seconds."""
    try:
        return _histogram(map(truediv, microseconds, repeat(1e6)))
    except ValueError:  # 0, a time that was not taken, has no logarithm
        return _histogram([time / 1e6 for time in microseconds if time > 0])


def _rates(tokens: Sequence[int], microseconds: Sequence[int]) -> Histogram:
    """Return tokens per second, of what has both."""
    try:
        return _histogram(map(truediv, map(mul, tokens, repeat(1e6)), microseconds))
    except (ValueError, ZeroDivisionError):
        pairs = zip(tokens, microseconds, strict=True)
        return _histogram([count * 1e6 / time for count, time in pairs if time > 0 < count])


def _histogram(values: Iterable[float]) -> Histogram:
    """Return what ``Histogram.of`` would, in a third of the time: the loops run in C.

    Raises ``ValueError`` when a value is not positive.
    """
    counts = Counter(map(ceil, map(truediv, map(log2, values), repeat(LOG2_GAMMA))))
    if counts and min(counts) < LOWEST:
        counts = Counter(max(index, LOWEST) for index in counts.elements())
    return Histogram(counts)


async def _merge(connection: Bulk, table: str, time: str, buckets: Mapping[Key, Bucket], known: Iterable[Row]) -> None:
    """Add ``buckets`` to the rollup ``table``, in the order of their keys; ``known`` are keys and histograms there."""
    keys = sorted(buckets)
    names = (time, *ROLLUP)
    present = {row[: len(names)]: row[len(names) :] for row in known}
    rows: list[Row] = []
    for count, key in enumerate(keys, 1):
        bucket = buckets[key]
        stored = present.get(key, (b"", b"", b""))
        dumps = [_joined(*pair) for pair in zip(stored, (bucket.ttft, bucket.duration, bucket.throughput), strict=True)]
        rows.append((*key, *bucket.sums, *dumps))
        if count % _MERGE_SLICE == 0:
            await asyncio.sleep(0)
    await connection.post(table, (*names, *SUMS, *HISTOGRAMS), rows, _update(table, time))


@cache
def _update(table: str, time: str) -> str:
    """Return what an upsert into a rollup ends with."""
    added = [f"{name} = {table}.{name} + excluded.{name}" for name in SUMS]
    replaced = [f"{name} = excluded.{name}" for name in HISTOGRAMS]
    return f"ON CONFLICT ({', '.join((time, *ROLLUP))}) DO UPDATE SET {', '.join(added + replaced)}"


def _joined(stored: bytes, new: Histogram) -> bytes:
    """Return ``new`` added to what is stored, if anything is."""
    return new.added_to(stored) if stored else new.dump()
