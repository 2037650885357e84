"""Lines over time, for what cannot be added up: ratios and durations. Nothing here raises.

A point without a value is a gap: a line through it would say what nobody measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from dashboards.charts.axes import HEIGHT, PLACE, Axes, marked, scaled

MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Line:
    """A series: name, colour's number, values, and what an SVG path draws."""

    name: str
    colour: str
    values: tuple[float | None, ...]
    path: str


class Lines(Axes[Line]):
    """Lines, the first one undermost."""

    __slots__ = ()


def lines(
    labels: Sequence[str],
    series: Sequence[tuple[str, Sequence[float | None]]],
    words: Callable[[float], str],
    marks: Sequence[str] = (),
    *,
    most: int = MOST,
) -> Lines:
    """Return the first ``most`` series that have a value, each as a line."""
    used = [(name, tuple(values)) for name, values in series if any(value is not None for value in values)][:most]
    largest = max((value for _, values in used for value in values if value is not None), default=0.0)
    top, shown = scaled(largest, words)
    layers = tuple(Line(name, str(number), values, _path(values, top)) for number, (name, values) in enumerate(used))
    return Lines(layers, tuple(labels), shown, marked(marks or labels))


def _path(values: Sequence[float | None], top: float) -> str:
    """Return a path that lifts its pen where there is no value; one between two gaps is as wide as its time."""
    parts: list[str] = []
    for known, run in groupby(enumerate(values), lambda each: each[1] is not None):
        if known:
            found = [(point * PLACE, round(HEIGHT - HEIGHT * value / top)) for point, value in run if value is not None]
            if len(found) == 1:
                parts.append(f"M{found[0][0]} {found[0][1]}h{PLACE}")
            else:
                parts.append("M" + "L".join(f"{across + PLACE // 2} {down}" for across, down in found))
    return "".join(parts)
