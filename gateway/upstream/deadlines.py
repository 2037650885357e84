"""Time limits of attempts in flight, checked by one sweep instead of a timer each.

A timer per read would cost more than the read. The sweep runs only while something is watched, every ``PERIOD``
seconds, so a limit strikes at most that much late.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final, Protocol

PERIOD: Final = 0.05


class Limited(Protocol):
    """Something with a deadline.

    Attributes:
        deadline: monotonic seconds after which ``expire`` is called.
    """

    deadline: float

    def expire(self) -> None:
        """The deadline has passed."""


class Deadlines:
    """The set of everything that has a deadline now."""

    __slots__ = ("_loop", "_timer", "_watched")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: set[Limited] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, limited: Limited) -> None:
        """Expire ``limited`` once its deadline has passed, until ``forget``."""
        self._watched.add(limited)
        if self._timer is None:
            self._timer = self._loop.call_later(PERIOD, self._sweep)

    def forget(self, limited: Limited) -> None:
        """Stop watching; harmless when it is not watched."""
        self._watched.discard(limited)

    def _sweep(self) -> None:
        now = monotonic()
        for limited in [each for each in self._watched if each.deadline < now]:
            self._watched.discard(limited)
            limited.expire()
        self._timer = self._loop.call_later(PERIOD, self._sweep) if self._watched else None
