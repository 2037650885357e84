"""The retry budget: retries may add at most a tenth to the load (Google SRE, "Handling Overload")."""

from __future__ import annotations

from typing import Final

WINDOW: Final = 10
"""Seconds the budget looks back."""
SHARE: Final = 0.1
"""Retries allowed per request in the window."""
FLOOR: Final = 10
"""Retries always allowed in a window, so that a quiet gateway can still fail over."""


class RetryBudget:
    """Counts requests and retries of the last ``WINDOW`` seconds, by whole seconds."""

    __slots__ = ("_requests", "_retries", "_second")

    def __init__(self) -> None:
        self._requests = [0] * WINDOW
        self._retries = [0] * WINDOW
        self._second = 0

    def request(self, now: float) -> None:
        """Count a request at monotonic time ``now``."""
        self._advance(int(now))
        self._requests[self._second % WINDOW] += 1

    def take(self, now: float) -> bool:
        """Take leave for one retry; False when the budget is spent."""
        self._advance(int(now))
        if self.remaining <= 0:
            return False
        self._retries[self._second % WINDOW] += 1
        return True

    @property
    def remaining(self) -> int:
        """Retries left in the window as last advanced."""
        return max(int(SHARE * sum(self._requests)), FLOOR) - sum(self._retries)

    def _advance(self, second: int) -> None:
        if second == self._second:
            return
        for passed in range(max(self._second + 1, second - WINDOW + 1), second + 1):
            self._requests[passed % WINDOW] = self._retries[passed % WINDOW] = 0
        self._second = second
