"""Stacked columns over time, as geometry. Nothing here raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dashboards.charts.scale import SIZE, ticks

MOST: Final = 8
"""Series that are drawn by themselves; what is smaller is summed up as the last one."""
OTHER: Final = "other"
_GAP: Final = 0.22
"""Share of a column's place that stays empty."""


@dataclass(frozen=True, slots=True)
class Rect:
    """A part of a column; ``series`` is its index in ``Columns.names``."""

    series: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Column:
    """A point of time: its place, its parts from the bottom up, and what they say in words."""

    label: str
    x: float
    width: float
    parts: tuple[Rect, ...]
    total: str
    lines: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True, slots=True)
class Columns:
    """A chart.

    Attributes:
        names: the series, the biggest first, ``other`` last.
        columns: in the order of time.
        ticks: of the value axis, from 0: the share of the height, and the number in words.
        labels: of the time axis: share of the width, and the words.
    """

    names: tuple[str, ...]
    columns: tuple[Column, ...]
    ticks: tuple[tuple[float, str], ...]
    labels: tuple[tuple[float, str], ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to see."""
        return not self.names


def stacked(
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    words: Callable[[float], str],
    *,
    most: int = MOST,
) -> Columns:
    """Return stacked columns.

    Args:
        labels: of the points of time.
        series: by name, a value for each point.
        words: says a value.
        most: series that are drawn by themselves.
    """
    ranked = sorted((name for name in series if any(series[name])), key=lambda name: (-sum(series[name]), name))
    names, rest = ranked[:most], ranked[most:]
    values = [list(series[name]) for name in names]
    if rest:
        names.append(OTHER)
        values.append([sum(series[name][point] for name in rest) for point in range(len(labels))])
    sums = [sum(each[point] for each in values) for point in range(len(labels))]
    marks = ticks(max(sums, default=0.0))
    top = marks[-1]
    place = SIZE / max(1, len(labels))
    columns = tuple(
        _column(label, index, place, [each[index] for each in values], names, top, words)
        for index, label in enumerate(labels)
    )
    shown = tuple((mark / top, words(mark)) for mark in marks)
    return Columns(tuple(names), columns, shown, _labels(labels))


def _column(
    label: str,
    index: int,
    place: float,
    values: Sequence[float],
    names: Sequence[str],
    top: float,
    words: Callable[[float], str],
) -> Column:
    x, width, y = place * (index + _GAP / 2), place * (1 - _GAP), SIZE
    parts = []
    for number, value in enumerate(values):
        height = SIZE * value / top
        if height > 0:
            y -= height
            parts.append(Rect(number, round(x, 2), round(y, 2), round(width, 2), round(height, 2)))
    lines = tuple((number, names[number], words(value)) for number, value in enumerate(values) if value)
    return Column(label, round(place * index, 2), round(place, 2), tuple(parts), words(sum(values)), lines)


def _labels(labels: Sequence[str], most: int = 6) -> tuple[tuple[float, str], ...]:
    """Return a few labels, evenly spaced, with their middle as a share of the width."""
    count = len(labels)
    step = max(1, -(-count // most))
    return tuple(((index + 0.5) / count, labels[index]) for index in range((step - 1) // 2, count, step))


def sparkline(values: Sequence[float], *, height: float = 100.0, width: float = 300.0) -> str:
    """Return the points of a polyline through ``values``, for a box of ``width`` by ``height``; ``""`` without two."""
    if len(values) < 2:
        return ""
    top = max(values) or 1.0
    step = width / (len(values) - 1)
    return " ".join(
        f"{index * step:.1f},{height - 4 - (height - 8) * value / top:.1f}" for index, value in enumerate(values)
    )
