"""How those who look for changes share one reading of the numbers of changes (``gateway.db.changes``).

Every process of every host looks several times a second at several topics; nearly always nothing has changed. Where
nobody else writes the database, hardly anything is read until this process has written something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Final

FRESH_S: Final = 0.2
"""Seconds for which a reading of the numbers is good where other hosts change them too; our own changes end it."""
QUIET_S: Final = 5.0
"""The same where only this process writes: a commit that nobody waited for may come after its connection went back."""
ANNOUNCED: Final = "announced"
"""What a session's ``info`` holds when its unit took a number."""


class Bulletin:
    """The numbers of all topics, read at most once in ``FRESH_S`` seconds however many ask.

    What it says may be that old where another host made the change, and is never older than a change of this process.

    Args:
        read: reads the numbers by topic; its errors reach whoever asked.
        alone: whether only this process makes changes: a reading is good until the next one then, or ``QUIET_S``.
    """

    __slots__ = ("_alone", "_generation", "_good_until", "_numbers", "_read", "_reading")

    def __init__(self, read: Callable[[], Awaitable[Mapping[str, int]]], *, alone: bool = False) -> None:
        self._read = read
        self._alone = alone
        self._numbers: Mapping[str, int] = {}
        self._good_until = 0.0
        self._generation = 0
        self._reading = asyncio.Lock()

    async def latest(self, topic: str) -> int:
        """Return the number of the last change of ``topic``; 0 when there was none. Raises ``Unavailable``.

        It is as of this question or later, but of changes that end while it is answered one may be missing.
        """
        if monotonic() >= self._good_until:
            async with self._reading:
                for _ in range(2):  # a busy writer outdates every reading: one that began after the question will do
                    if monotonic() < self._good_until:
                        break
                    generation, begun = self._generation, monotonic()
                    self._numbers = await self._read()
                    if generation == self._generation:  # else a change was made while this was read
                        self._good_until = begun + (QUIET_S if self._alone else FRESH_S)
        return self._numbers.get(topic, 0)

    def outdate(self) -> None:
        """Read anew for whoever looks next: this process has changed something."""
        self._generation += 1
        self._good_until = 0.0
