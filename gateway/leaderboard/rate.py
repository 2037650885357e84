"""How often somebody may ask for boards: so many times in any minute, and so many a UTC day for an account.

Counted by the keeper, for all workers of the host together, in memory that does not grow beyond ``MOST`` callers.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import Final

from gateway.leaderboard.question import Visit
from gateway.types.errors import RateLimited

MOST: Final = 10_000
MINUTE: Final = 60.0
DAY: Final = 86_400


class VisitBook:
    """Counts visits."""

    __slots__ = ("_accounts", "_callers", "_day")

    def __init__(self) -> None:
        self._callers: OrderedDict[str, deque[float]] = OrderedDict()
        self._accounts: dict[str, int] = {}
        self._day = 0

    def take(self, visit: Visit, now: float) -> None:
        """Count a visit at ``now`` (Unix seconds).

        Raises:
            RateLimited: there were too many; ``retry_after`` says when there is room again. It is not counted then.
        """
        day = int(now // DAY)
        if day != self._day:
            self._day = day
            self._accounts.clear()
        times = self._callers.setdefault(visit.caller, deque())
        self._callers.move_to_end(visit.caller)
        while times and times[0] <= now - MINUTE:
            times.popleft()
        if len(times) >= visit.per_minute:
            wait = math.ceil(times[0] + MINUTE - now) or 1
            raise RateLimited(f"boards may be asked for {visit.per_minute} times a minute", retry_after=wait)
        if self._accounts.get(visit.account, 0) >= visit.per_day:
            wait = math.ceil((day + 1) * DAY - now)
            raise RateLimited(f"boards may be asked for {visit.per_day} times a day", retry_after=wait)
        times.append(now)
        self._accounts[visit.account] = self._accounts.get(visit.account, 0) + 1
        while len(self._callers) > MOST:
            self._callers.popitem(last=False)
        if len(self._accounts) > 10 * MOST:
            self._accounts.clear()
