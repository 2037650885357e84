"""Reading the books directly, to compare them with what they should say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gateway.metering.record import ANSWERED, Close, RowKind
from gateway.types import ids
from gateway.types.histogram import Histogram
from tests.fakes import postgres

URL = "database.url"
"""File of a state folder with the URL of its database."""
LABELLED = "ledger JOIN label_set USING (label_id)"
"""The ledger with its labels, for ``FROM``."""


def query(home: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of ``sql`` from the database of ``home``."""
    return postgres.query((home / URL).read_text(), sql)


def ledger_keys(home: Path) -> Counter[tuple[bytes, int]]:
    """Return how often each attempt is in the ledger."""
    return Counter(query(home, "SELECT request_id, attempt FROM ledger"))


def dump(home: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of the ledger and of the rollups, in order."""
    return {
        table: sorted(query(home, f"SELECT * FROM {table}"), key=repr)
        for table in ("ledger", "label_set", "usage_hour", "usage_day", "model_day_total", "price")
    }


def expected_rollup(rows: Iterable[Close], *, daily: bool) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return what a rollup must hold for ``rows``: key to requests, tokens, money and histograms, in plain Python."""
    groups: dict[tuple[Any, ...], list[Close]] = {}
    for row in rows:
        time = ids.day(row.request_id) if daily else ids.hour(row.request_id)
        dims = row.dims
        key = (time, dims.team, dims.key_id, dims.model, dims.endpoint, dims.app, dims.tier, str(row.status))
        groups.setdefault(key, []).append(row)
    return {key: _summed(group) for key, group in groups.items()}


def _summed(rows: Sequence[Close]) -> tuple[Any, ...]:
    calls = [row for row in rows if row.kind is RowKind.USAGE]
    timed = [row for row in calls if row.generation_us > 0 and row.usage.completion > 0]
    return (
        len(calls),
        *(sum(getattr(row.usage, name) for row in rows) for name in rows[0].usage.__struct_fields__),
        sum(row.charge.total for row in rows),
        sum(row.cost.total for row in rows),
        Histogram.of(row.ttft_us / 1e6 for row in calls if row.ttft_us).dump(),
        Histogram.of(row.duration_us / 1e6 for row in calls if row.duration_us).dump(),
        Histogram.of(row.usage.completion * 1e6 / row.generation_us for row in timed).dump(),
    )


def rollup(home: Path, *, daily: bool) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return what a rollup holds, in the form of ``expected_rollup``."""
    table, time = ("usage_day", "day") if daily else ("usage_hour", "hour")
    rows = query(
        home,
        f"SELECT {time}, team, key_id, model, endpoint, app, tier, status, requests, tokens_prompt, "
        "tokens_completion, tokens_cache_read, tokens_cache_write, tokens_reasoning, tokens_audio_prompt, "
        "tokens_audio_completion, tokens_image_prompt, tokens_image_completion, tokens_cache_write_1h, charge_nano, "
        f"cost_nano, ttft, duration, throughput FROM {table}",
    )
    return {row[:8]: row[8:] for row in rows}


def expected_totals(rows: Iterable[Close]) -> dict[tuple[int, str], tuple[int, int]]:
    """Return tokens and answered requests per day and model."""
    totals: dict[tuple[int, str], tuple[int, int]] = {}
    for row in rows:
        key = (ids.day(row.request_id), row.dims.model)
        tokens, requests = totals.get(key, (0, 0))
        answered = row.kind is RowKind.USAGE and row.status in ANSWERED
        totals[key] = (tokens + row.usage.total, requests + answered)
    return totals


def totals(home: Path) -> dict[tuple[int, str], tuple[int, int]]:
    """Return the totals per day and model, in the form of ``expected_totals``."""
    return {row[:2]: row[2:] for row in query(home, "SELECT day, model, tokens, requests FROM model_day_total")}
