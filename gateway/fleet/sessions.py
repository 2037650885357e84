"""Which conversations a replica served last, so that the next turn can go where the last one's context is.

Bounded; nothing here raises.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

REMEMBERED: Final = 20_000
"""Conversations a replica remembers at most, least recently used forgotten first."""
LIFETIME: Final = 600.0
"""Seconds after its last request for which a conversation is remembered."""


class Sessions:
    """Conversations of one replica. Times are monotonic seconds."""

    __slots__ = ("_served",)

    def __init__(self) -> None:
        self._served: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """How many conversations are remembered."""
        return len(self._served)

    def served(self, session: str, now: float) -> None:
        """Remember that ``session`` was served ``now``; an empty name is nobody's."""
        if not session:
            return
        served = self._served
        served[session] = now
        served.move_to_end(session)
        while served and (len(served) > REMEMBERED or next(iter(served.values())) < now - LIFETIME):
            served.popitem(last=False)

    def last(self, session: str, now: float) -> float | None:
        """Return when ``session`` was served last, or None when that is too long ago to matter."""
        at = self._served.get(session)
        return at if at is not None and now - at <= LIFETIME else None
