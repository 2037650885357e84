"""A sign of life that one process gives and the one it was forked from sees.

A count in a page of memory that both have. No clock is compared: whoever watches counts the seconds in which it looked
itself and saw nothing new, so a machine that slept, or a watcher that was stopped, makes nobody look dead.
"""

from __future__ import annotations

import asyncio
import faulthandler
import mmap
import signal
from typing import Final

from gateway.beat import paused

PULSE_S: Final = 1.0
"""Seconds between two signs."""
ASKED: Final = signal.SIGUSR2
"""Has a process that gives signs write to its standard error where each of its threads is."""
_LONGEST_LOOK: Final = 1.0
"""Seconds between two looks that count at most: whoever looks no more often was held up itself."""


class Pulse:
    """To be made before the fork; whoever watches says ``forget`` before each fork."""

    __slots__ = ("_looked", "_memory", "_seen", "_still")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)  # shared with who is forked later
        self.forget(0.0)

    # Who watches

    def forget(self, now: float) -> None:
        """Begin anew with a process that has given no sign yet; ``now`` is monotonic seconds."""
        self._memory[0] = self._seen = 0
        self._looked, self._still = now, 0.0

    def look(self, now: float) -> float:
        """Look; return the seconds without a sign, as far as was looked: 0 before the first one."""
        count, passed = self._memory[0], min(now - self._looked, _LONGEST_LOOK)
        self._looked = now
        self._still = self._still + passed if count and count == self._seen else 0.0
        self._seen = count
        return self._still

    # Who is watched

    async def give(self, every: float = PULSE_S) -> None:
        """Give a sign ``every`` so many seconds while the loop runs.

        From now on the process says where it is when it is ``ASKED``.
        """
        faulthandler.register(ASKED)  # written by the handler itself: also while Python is stuck
        while True:
            self._memory[0] = self._memory[0] % 255 + 1
            await asyncio.sleep(paused(every))
