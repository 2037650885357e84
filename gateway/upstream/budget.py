"""The retry budget: retries may add at most a tenth to the load (Google SRE, "Handling Overload").

Requests that one provider refused and another one is asked for have as much of their own: whoever sends many of them
must not use up what lets everybody else's requests get over a backend that fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

WINDOW: Final = 10
"""Seconds the budget looks back."""
SHARE: Final = 0.1
"""Retries allowed per request in the window."""
FLOOR: Final = 10
"""Retries always allowed in a window, so that a quiet gateway can still fail over."""


class RetryBudget:
    """Counts requests and retries of the last ``WINDOW`` seconds, by whole seconds."""

    __slots__ = ("_opinions", "_requests", "_retries", "_second")

    def __init__(self) -> None:
        self._requests = [0] * WINDOW
        self._retries = [0] * WINDOW
        self._opinions = [0] * WINDOW
        self._second = 0

    def request(self, now: float) -> None:
        """Count a request at monotonic time ``now``."""
        self._advance(int(now))
        self._requests[self._second % WINDOW] += 1

    def take(self, now: float, *, refused: bool = False) -> bool:
        """Take leave for one retry, of what was ``refused`` or has failed; False when the budget is spent."""
        self._advance(int(now))
        taken = self._opinions if refused else self._retries
        if self._left(taken) <= 0:
            return False
        taken[self._second % WINDOW] += 1
        return True

    def remaining(self, now: float) -> int:
        """Return the retries of failures left at monotonic time ``now``. Changes nothing: any thread may ask."""
        last = self._second
        kept = [second % WINDOW for second in range(max(int(now), last) - WINDOW + 1, last + 1)]
        requests, retries = self._requests, self._retries
        allowed = max(int(SHARE * sum(requests[place] for place in kept)), FLOOR)
        return max(0, allowed - sum(retries[place] for place in kept))

    def _left(self, taken: Sequence[int]) -> int:
        return max(int(SHARE * sum(self._requests)), FLOOR) - sum(taken)

    def _advance(self, second: int) -> None:
        if second == self._second:
            return
        for passed in range(max(self._second + 1, second - WINDOW + 1), second + 1):
            place = passed % WINDOW
            self._requests[place] = self._retries[place] = self._opinions[place] = 0
        self._second = second
