"""Lines over time, for what cannot be added up: ratios and durations. Nothing here raises.

A point without a value is a gap: a line through it would say what nobody measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dashboards.charts.scale import ticks
from dashboards.charts.strata import HEIGHT, PLACE, marked

MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Line:
    """A series: name, colour's number, values, and what an SVG path draws."""

    name: str
    colour: str
    values: tuple[float | None, ...]
    path: str


@dataclass(frozen=True, slots=True)
class Lines:
    """A chart of ``width`` by ``HEIGHT``; its axes are as those of ``dashboards.charts.strata.Strata``."""

    layers: tuple[Line, ...]
    labels: tuple[str, ...]
    ticks: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, str], ...]

    @property
    def width(self) -> int:
        """Of the drawing."""
        return max(1, len(self.labels)) * PLACE

    @property
    def empty(self) -> bool:
        """Whether there is nothing to see."""
        return not self.layers


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
    steps = ticks(max((value for _, values in used for value in values if value is not None), default=0.0))
    layers = tuple(
        Line(name, str(number), values, _path(values, steps[-1])) for number, (name, values) in enumerate(used)
    )
    shown = tuple((step / steps[-1], words(step)) for step in steps)
    return Lines(layers, tuple(labels), shown, marked(marks or labels))


def _path(values: Sequence[float | None], top: float) -> str:
    """Return a path that lifts its pen where there is no value; a value between two gaps is a dot."""
    parts, down = [], False
    for point, value in enumerate(values):
        if value is None:
            down = False
            continue
        x, y = point * PLACE + PLACE // 2, round(HEIGHT - HEIGHT * value / top)
        alone = not down and (point + 1 == len(values) or values[point + 1] is None)
        parts.append(f"{'L' if down else 'M'}{x} {y}" + ("h0" if alone else ""))
        down = True
    return "".join(parts)
