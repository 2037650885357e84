"""What charts over points of time have in common: their size, and what stands along their axes. Nothing here raises.

A point takes ``PLACE`` units of the width, so that all its edges are whole numbers and a year stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from dashboards.charts.scale import ticks

L = TypeVar("L")
PLACE: Final = 10
HEIGHT: Final = 4_000
_LABELS: Final = 7


@dataclass(frozen=True, slots=True)
class Axes(Generic[L]):
    """A chart of ``width`` by ``HEIGHT``.

    Attributes:
        layers: what is drawn, the first one undermost.
        labels: of every point of time.
        ticks: of the value axis: the share of the height from below, and the number in words.
        marks: of the time axis: the share of the width, and the words.
    """

    layers: tuple[L, ...]
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


def scaled(largest: float, words: Callable[[float], str]) -> tuple[float, tuple[tuple[float, str], ...]]:
    """Return the value at the top of an axis that reaches ``largest``, and its ticks as ``Axes`` has them."""
    steps = ticks(largest)
    return steps[-1], tuple((step / steps[-1], words(step)) for step in steps)


def marked(labels: Sequence[str], most: int = _LABELS) -> tuple[tuple[float, str], ...]:
    """Return a few labels, evenly spaced, each with its middle as a share of the width."""
    count = len(labels)
    step = max(1, -(-count // most))
    return tuple(((index + 0.5) / count, labels[index]) for index in range((step - 1) // 2, count, step))
