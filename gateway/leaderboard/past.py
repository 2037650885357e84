"""Days of the past, kept in memory: what a series is made of hardly ever changes, and reading it takes longest.

Days are kept by whole blocks (``gateway.metering.places.BLOCK_DAYS``), and a block is believed as long as its totals in
the database, all four sums of all its names, are what they were when it was read. Corrections of one block that cancel
each other out in every sum are seen when the block is read anew, after ``LIFETIME_S`` at the latest. Memory only; what
is not kept is read.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from gateway.metering.places import BLOCK_DAYS

Point = tuple[int, Sequence[str], Sequence[Sequence[int]]]
"""A point of time, stored names, and for each column asked for the values of these names."""
Place = tuple[str, str, tuple[str, ...]]
"""Team, stored board, and the columns asked for."""
Version = tuple[int, ...]
"""How many names a block has, and the sums of its totals."""

LIFETIME_S: Final = 3_600.0
"""Seconds after which a block is read again whatever its totals are, at the latest: neighbours at different times."""
_TURNS: Final = 16
MOST_VALUES: Final = 200_000
"""Values kept, about 40 bytes each; what was worked out from them is half as much again at most."""


@dataclass(slots=True)
class Stretch:
    """Points of time in a row, and what was used at them by stored name.

    Attributes:
        first: the first point.
        length: how many there are.
        columns: for each column asked for, a value at each point for every name that has any.
        worked: what was worked out from it, by whoever did; kept as long as it is.
    """

    first: int
    length: int
    columns: list[dict[str, tuple[int, ...]]]
    worked: dict[Hashable, Any] = field(default_factory=dict)


def stretch_of(first: int, length: int, points: Sequence[Point], columns: int) -> Stretch:
    """Return the stretch that ``points`` are of; at points that are missing, everybody has nothing."""
    if len(points) == length and all(names == points[0][1] for _, names, _ in points):
        names = points[0][1]
        rows = [[values[column] for _, _, values in points] for column in range(columns)]
        return Stretch(first, length, [dict(zip(names, zip(*each, strict=True), strict=True)) for each in rows])
    found: list[dict[str, list[int]]] = [{} for _ in range(columns)]
    for point, names, values in points:
        for lines, column in zip(found, values, strict=True):
            for name, value in zip(names, column, strict=True):
                if name not in lines:
                    lines[name] = [0] * length
                lines[name][point - first] = value
    return Stretch(first, length, [{name: tuple(line) for name, line in lines.items()} for lines in found])


@dataclass(frozen=True, slots=True)
class _Block:
    version: Version
    read_at: float
    stretch: Stretch

    @property
    def values(self) -> int:
        return sum(len(lines) for lines in self.stretch.columns) * self.stretch.length


class Past:
    """The blocks of days that were read lately.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._places: OrderedDict[Place, dict[int, _Block]] = OrderedDict()
        self._values = 0

    @staticmethod
    def fits(versions: Mapping[int, Version], columns: Sequence[str]) -> bool:
        """Return whether blocks of ``versions`` may be kept: with very many names they are not."""
        return sum(version[0] for version in versions.values()) * BLOCK_DAYS * len(columns) <= MOST_VALUES

    def found(self, place: Place, versions: Mapping[int, Version]) -> dict[int, Stretch]:
        """Return those blocks of ``versions`` that are kept and still as they were."""
        kept, since = self._places.get(place, {}), self._clock() - LIFETIME_S
        blocks = {block: kept.get(block) for block in versions}
        return {
            block: each.stretch
            for block, each in blocks.items()
            if each is not None and each.version == versions[block] and each.read_at - _early(block) >= since
        }

    def keep(self, place: Place, versions: Mapping[int, Version], points: Iterable[Point]) -> dict[int, Stretch]:
        """Keep blocks that were read as of ``versions``; return them."""
        kept, now = self._places.setdefault(place, {}), self._clock()
        parts: dict[int, list[Point]] = {block: [] for block in versions}
        for point in points:
            parts[point[0] // BLOCK_DAYS].append(point)
        fresh = {
            block: _Block(versions[block], now, stretch_of(block * BLOCK_DAYS, BLOCK_DAYS, some, len(place[2])))
            for block, some in parts.items()
        }
        for block, each in fresh.items():
            self._values += each.values - (kept[block].values if block in kept else 0)
            kept[block] = each
        self._places.move_to_end(place)
        while self._values > MOST_VALUES and len(self._places) > 1:
            _, blocks = self._places.popitem(last=False)
            self._values -= sum(each.values for each in blocks.values())
        return {block: each.stretch for block, each in fresh.items()}


def _early(block: int) -> float:
    """Return how many seconds before the others a block is read again, so that no visit reads all of them at once."""
    return block % _TURNS * LIFETIME_S / (2 * _TURNS)


def runs_of(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and the last of each run of neighbours among ``blocks``."""
    runs = (list(run) for _, run in groupby(enumerate(sorted(blocks)), lambda each: each[1] - each[0]))
    return [(run[0][1], run[-1][1]) for run in runs]
