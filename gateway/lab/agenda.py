"""Virtual time: what is to be done when, in order. Nothing here raises."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final

FOREVER: Final = float("inf")


class Agenda:
    """A clock that jumps from one appointment to the next.

    Appointments of one moment are kept in the order in which they were made.

    Attributes:
        now: seconds.
    """

    __slots__ = ("_heap", "_serial", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0

    def at(self, when: float, do: Callable[..., None], *given: Any) -> None:
        """Call ``do`` with ``given`` at ``when``."""
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, do, given))

    def run(self, proceed: Callable[[], bool]) -> None:
        """Keep appointments until there are none or ``proceed`` says no."""
        heap = self._heap
        while heap and proceed():
            self.now, _, do, given = heapq.heappop(heap)
            do(*given)
