"""The figures of a run: their names and units, and how rounds become a median with its range.

A figure that no round produced is absent, never zero.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class FigureKind:
    """One thing that is measured: its unit, the decimals it is printed with, and what it is."""

    unit: str
    decimals: int
    meaning: str


KINDS: Final[Mapping[str, FigureKind]] = {
    "json_cpu_us": FigureKind("µs", 0, "CPU per JSON answer, 32 connections"),
    "json_serving_cpu_us": FigureKind("µs", 0, "the same without the shipper"),
    "json_per_s": FigureKind("1/s", 0, "JSON answers per second, 32 connections, load on the same cores"),
    "json_p99_ms": FigureKind("ms", 2, "p99 latency at that saturation"),
    "lone_p50_us": FigureKind("µs", 0, "median latency of a JSON answer, 1 connection"),
    "lone_added_us": FigureKind("µs", 0, "the same minus direct in the same round"),
    "calm_cpu_us": FigureKind("µs", 0, "CPU per JSON answer where 100 are asked for in a second"),
    "calm_serving_cpu_us": FigureKind("µs", 0, "the same without the shipper"),
    "burst_cpu_us": FigureKind("µs", 0, "CPU per stream of 50 chunks written at once"),
    "burst_serving_cpu_us": FigureKind("µs", 0, "the same without the shipper"),
    "drip_cpu_us": FigureKind("µs", 0, "CPU per stream of 50 chunks, one every 20 ms, 100 streams at once"),
    "drip_serving_cpu_us": FigureKind("µs", 0, "the same without the shipper"),
    "chunk_p50_ms": FigureKind("ms", 2, "backend's write to client's read of a dripped chunk, p50"),
    "chunk_p99_ms": FigureKind("ms", 2, "the same, p99"),
    "chunk_added_p50_ms": FigureKind("ms", 2, "p50 minus direct's p50 in the same round"),
    "chunk_added_p99_ms": FigureKind("ms", 2, "p99 minus direct's p99 in the same round"),
    "first_chunk_ms": FigureKind("ms", 1, "request to first chunk, 1 stream, mock waits 20 ms, median"),
    "first_chunk_added_ms": FigureKind("ms", 2, "the same minus direct in the same round"),
    "idle_mb": FigureKind("MB", 0, "resident memory, warmed up, idle"),
    "streams_mb": FigureKind("MB", 0, "largest resident memory with 1,000 open streams"),
    "slow_reader_mb": FigureKind("MB", 1, "growth for one reader that does not read a stream of 64 MB"),
    "shipper_us_per_record": FigureKind("µs", 1, "shipper CPU per record, as Weir reports it"),
    "translated_answer_us": FigureKind("µs", 1, "CPU of a JSON answer in another dialect beyond chat, the dearest"),
    "translated_chunk_us": FigureKind("µs", 1, "CPU of a chunk in another dialect beyond chat, the dearest"),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure over all rounds."""

    unit: str
    median: float
    min: float
    max: float
    rounds: Sequence[float]


def over_rounds(rounds: Iterable[Mapping[str, float]]) -> dict[str, Figure]:
    """Returns each figure's median and range over the rounds that have it, in the order of KINDS.

    Raises KeyError for a name that KINDS does not know.
    """
    values: dict[str, list[float]] = {}
    for measured in rounds:
        for name, value in measured.items():
            values.setdefault(name, []).append(value)
    unknown = values.keys() - KINDS.keys()
    if unknown:
        raise KeyError(f"unknown figures: {sorted(unknown)}")
    return {
        name: Figure(kind.unit, statistics.median(seen), min(seen), max(seen), seen)
        for name, kind in KINDS.items()
        if (seen := values.get(name))
    }


def as_json(figures: Mapping[str, Figure]) -> dict[str, dict[str, object]]:
    """Returns figures as plain objects, rounded to a thousandth of their unit."""

    def rounded(value: object) -> object:
        if isinstance(value, float):
            return round(value, 3)
        return [rounded(item) for item in value] if isinstance(value, list) else value

    return {name: {key: rounded(value) for key, value in asdict(figure).items()} for name, figure in figures.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that at least `share` (0 to 1] of the values do not exceed (nearest rank).

    Raises ValueError when there are no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    rank = -(-len(ordered) * round(share * 10_000) // 10_000)
    return ordered[max(rank, 1) - 1]
