"""Draining: reading on after the caller has left, where the backend bills to the end whatever its caller does.

The answer goes nowhere but into the meter, so that the books say what the invoice will. Bounded on both sides: a
worker drains at most ``MOST`` answers at once and each for at most ``LONGEST_S``; beyond, the request is stopped and
what was counted until then is what is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.telemetry.metrics import GatewayMetrics

MOST: Final = 64
"""Answers a worker drains at once."""
LONGEST_S: Final = 120.0
"""Seconds an answer is drained."""


class Drain:
    """One answer that is being drained."""

    __slots__ = ("late", "timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, stop: Callable[[], None]) -> None:
        self.late = False
        self.timer = loop.call_later(seconds, self._strike, stop)

    def _strike(self, stop: Callable[[], None]) -> None:
        self.late = True
        stop()


class Drains:
    """All drains of a worker.

    Attributes:
        active: how many are under way.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        metrics: GatewayMetrics,
        *,
        most: int = MOST,
        longest_s: float = LONGEST_S,
    ) -> None:
        self._loop = loop
        self._metrics = metrics
        self._most = most
        self._longest_s = longest_s
        self.active = 0

    def begin(self, stop: Callable[[], None]) -> Drain | None:
        """Begin a drain and return it, or None when too many are under way; ``stop`` is for one that takes too long."""
        if self.active >= self._most:
            self._metrics.drains.add(("full",))
            return None
        self.active += 1
        return Drain(self._loop, self._longest_s, stop)

    def end(self, drain: Drain) -> None:
        """End a drain; once for each that began."""
        self.active -= 1
        drain.timer.cancel()
        self._metrics.drains.add(("late" if drain.late else "ended",))
