"""Rollups: what boards, percentiles and dashboards read instead of the ledger.

Fed only with rows that the ledger really took, and in the same transaction, so they can never disagree with it.
Sums are added in the database; histograms are read, merged here and written back, which the transaction's write lock
makes safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from operator import add
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.metering.entry import Entry
from gateway.metering.record import ANSWERED, RowKind
from gateway.metering.statement import Row, execute_rows, fetch_matching
from gateway.types.histogram import Histogram

Key = tuple[int, str, str, str, str, str, str, str]
"""Hour or day, then team, key, model, endpoint, app, tier, status."""

LABELS: Final = ("team", "key_id", "model", "endpoint", "app", "tier", "status")
TOKENS: Final = (
    "tokens_prompt",
    "tokens_completion",
    "tokens_cache_read",
    "tokens_cache_write",
    "tokens_reasoning",
    "tokens_audio_prompt",
    "tokens_audio_completion",
    "tokens_image_prompt",
    "tokens_image_completion",
)
SUMS: Final = ("requests", *TOKENS, "charge_nano", "cost_nano")
HISTOGRAMS: Final = ("ttft", "duration", "throughput")
_PARTS: Final = range(2, len(TOKENS))
_SLICE: Final = 100
_MERGE_SLICE: Final = 25


class Bucket:
    """What is summed and counted under one key.

    Attributes:
        sums: in the order of ``SUMS``.
        ttft: seconds to the first token.
        duration: seconds from arrival to end.
        throughput: completion tokens per second between the first and the last one.
    """

    __slots__ = ("duration", "sums", "throughput", "ttft")

    def __init__(self) -> None:
        self.sums = [0] * len(SUMS)
        self.ttft = Histogram()
        self.duration = Histogram()
        self.throughput = Histogram()

    def add(self, entry: Entry) -> None:
        """Count one ledger row. A correction changes sums, but is no request and has no times."""
        sums, end, usage = self.sums, entry.end, entry.end.usage
        sums[1] += usage[0]
        sums[2] += usage[1]
        for position in _PARTS:
            if usage[position]:
                sums[position + 1] += usage[position]
        sums[10] += entry.charge_nano
        sums[11] += entry.cost_nano
        if end.kind != RowKind.USAGE:
            return
        sums[0] += 1
        if end.ttft_us > 0:
            self.ttft.add(end.ttft_us / 1e6)
        if end.duration_us > 0:
            self.duration.add(end.duration_us / 1e6)
        if end.generation_us > 0 and usage[1] > 0:
            self.throughput.add(usage[1] * 1e6 / end.generation_us)

    def merge(self, other: Bucket) -> None:
        """Add what ``other`` holds."""
        self.sums = list(map(add, self.sums, other.sums))
        self.ttft.merge(other.ttft)
        self.duration.merge(other.duration)
        self.throughput.merge(other.throughput)


async def post(connection: AsyncConnection, inserted: Sequence[Entry]) -> None:
    """Add ledger rows that were just inserted to all rollups.

    Args:
        connection: in the transaction that inserted them.
        inserted: the rows, and no row that was there before.
    """
    hours = await _by_hour(inserted)
    days: dict[Key, Bucket] = {}
    for count, (key, bucket) in enumerate(hours.items(), 1):
        days.setdefault((key[0] // 24, *key[1:]), Bucket()).merge(bucket)
        if count % _SLICE == 0:
            await asyncio.sleep(0)
    await _merge(connection, "usage_hour", "hour", hours)
    await _merge(connection, "usage_day", "day", days)
    await _total(connection, days)


async def _by_hour(rows: Sequence[Entry]) -> dict[Key, Bucket]:
    """Return the rows summed by UTC hour and labels, giving way to the event loop every now and then."""
    hours: dict[Key, Bucket] = {}
    for count, entry in enumerate(rows, 1):
        key = (entry.hour, *entry.labels.rollup, entry.end.status)
        bucket = hours.get(key)
        if bucket is None:
            bucket = hours[key] = Bucket()
        bucket.add(entry)
        if count % _SLICE == 0:
            await asyncio.sleep(0)
    return hours


async def _merge(connection: AsyncConnection, table: str, time: str, buckets: Mapping[Key, Bucket]) -> None:
    """Add ``buckets`` to the rollup ``table``, in the order of their keys."""
    keys = sorted(buckets)
    names = (time, *LABELS)
    key_list = ", ".join(names)
    known = await fetch_matching(connection, table, names, HISTOGRAMS, keys)
    present = {row[: len(names)]: row[len(names) :] for row in known}
    rows: list[Row] = []
    for count, key in enumerate(keys, 1):
        bucket = buckets[key]
        dumps = []
        for position, name in enumerate(HISTOGRAMS):
            histogram: Histogram = getattr(bucket, name)
            if key in present:
                # The new one into the old one: merging costs as much as what is merged is wide.
                merged = Histogram.load(present[key][position])
                merged.merge(histogram)
                histogram = merged
            dumps.append(histogram.dump())
        rows.append((*key, *bucket.sums, *dumps))
        if count % _MERGE_SLICE == 0:
            await asyncio.sleep(0)
    added = [f"{name} = {table}.{name} + excluded.{name}" for name in SUMS]
    replaced = [f"{name} = excluded.{name}" for name in HISTOGRAMS]
    await execute_rows(
        connection,
        f"INSERT INTO {table} ({', '.join((*names, *SUMS, *HISTOGRAMS))})",
        f"ON CONFLICT ({key_list}) DO UPDATE SET {', '.join(added + replaced)}",
        rows,
    )


async def _total(connection: AsyncConnection, days: Mapping[Key, Bucket]) -> None:
    """Add to the totals per model and day: tokens of all rows, requests of the answered ones."""
    totals: dict[tuple[int, str], list[int]] = {}
    for key, bucket in days.items():
        total = totals.setdefault((key[0], key[3]), [0, 0])
        total[0] += bucket.sums[1] + bucket.sums[2]
        if key[7] in ANSWERED:
            total[1] += bucket.sums[0]
    await execute_rows(
        connection,
        "INSERT INTO model_day_total (day, model, tokens, requests)",
        "ON CONFLICT (day, model) DO UPDATE SET tokens = model_day_total.tokens + excluded.tokens, "
        "requests = model_day_total.requests + excluded.requests",
        [(*key, *total) for key, total in sorted(totals.items())],
    )
