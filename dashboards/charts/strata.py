"""Stacked columns drawn as one path for each series, for windows of up to a year. Nothing here raises.

Edges are rounded, not heights, so that the parts of a column touch and add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import add
from typing import Final, NamedTuple

from dashboards.charts.axes import HEIGHT, PLACE, Axes, marked, scaled

MOST: Final = 8
"""Series that are told apart by colour."""
OTHER: Final = "other"
_BAR: Final = 8


class Bar(NamedTuple):
    """A part of a column: its point of time, its upper edge and its height."""

    point: int
    y: int
    height: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A series: its name, its colour's number (``o`` for the rest), its values and its parts of columns."""

    name: str
    colour: str
    values: tuple[int, ...]
    bars: tuple[Bar, ...]

    @property
    def path(self) -> str:
        """What an SVG path draws."""
        inset = (PLACE - _BAR) // 2
        return "".join(
            f"M{point * PLACE + inset} {y}h{_BAR}v{height}h-{_BAR}z" for point, y, height in self.bars if height
        )


@dataclass(frozen=True, slots=True)
class Strata(Axes[Layer]):
    """Columns in layers, from the bottom up, the rest last.

    Attributes:
        totals: of every point of time.
    """

    totals: tuple[int, ...]


def strata(
    labels: Sequence[str],
    series: Sequence[tuple[str, Sequence[int]]],
    rest: Sequence[int],
    words: Callable[[float], str],
    marks: Sequence[str] = (),
    *,
    most: int = MOST,
) -> Strata:
    """Return stacked columns.

    Args:
        labels: of the points of time.
        series: name and values, in the order in which they are ranked.
        rest: what belongs to none of them.
        words: says a value at the axis.
        marks: of the points of time at the axis; ``labels`` without.
        most: series that are drawn by themselves.
    """
    used = [(name, tuple(values)) for name, values in series if any(values)]
    beyond = list(map(sum, zip(rest, *(values for _, values in used[most:]), strict=True)))
    drawn = [(name, str(number), values) for number, (name, values) in enumerate(used[:most])]
    if any(beyond):
        drawn.append((OTHER, "o", tuple(beyond)))
    totals = tuple(map(sum, zip([0] * len(labels), *(values for _, _, values in drawn), strict=True)))
    whole, shown = scaled(float(max(totals, default=0)), words)
    layers, floor, bottoms = [], [0] * len(labels), [HEIGHT] * len(labels)
    for name, colour, values in drawn:
        floor = list(map(add, floor, values))
        tops = [round(HEIGHT - HEIGHT * value / whole) for value in floor]
        edges = enumerate(zip(values, bottoms, tops, strict=True))
        layers.append(
            Layer(
                name, colour, values, tuple(Bar(point, top, low - top) for point, (value, low, top) in edges if value)
            )
        )
        bottoms = tops
    return Strata(tuple(layers), tuple(labels), shown, marked(marks or labels), totals)
