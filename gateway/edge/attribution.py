"""Which app a request is counted under: what it says itself, as far as that is valid and within the daily cap.

What a caller calls itself becomes a row of every rollup, so nobody may make many: the keeper counts for all workers
how many apps that nobody approved a key names a day, and the rest is counted under ``other``. A request never waits for
that. The first ones of an app new to a key go under its name while the keeper is asked; as long as the answer is out,
or once one was no, other new names of that key go under ``other``. So a key gets at most one name a worker beyond its
cap.

After the first time it is one dictionary look-up a request. Nothing here raises; while the keeper is away new names
count as ``other``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from gateway.leaderboard.attribution import OTHER, app_of, categories_of, title_of
from gateway.leaderboard.question import SIGHT, Sighting
from gateway.telemetry import logs
from gateway.types.errors import WeirError
from gateway.types.method import Asking

DAY_US: Final = 86_400_000_000
AGAIN_US: Final = 60_000_000
"""A key over its cap may be asked about again after a minute: an approved app is always good."""
MOST: Final = 8_192
_log: Final = logs.logger(__name__)


class Attribution:
    """The apps of one process's requests.

    Args:
        loop: the event loop of the process.
        books: the keeper.
        clock_us: wall clock, microseconds since 1970.
        cap: returns how many apps that nobody approved a key may name a day.
    """

    __slots__ = ("_allowed", "_asking", "_books", "_cap", "_clock_us", "_day", "_found", "_loop", "_refused", "_tasks")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, books: Asking, clock_us: Callable[[], int], cap: Callable[[], int]
    ) -> None:
        self._loop = loop
        self._books = books
        self._clock_us = clock_us
        self._cap = cap
        self._day = 0
        self._found: dict[tuple[str, bytes], str] = {}
        self._allowed: dict[str, set[str]] = {}
        self._refused: dict[str, int] = {}
        self._asking: dict[str, tuple[str, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def app(self, key_id: str, referer: bytes, headers: Mapping[bytes, bytes]) -> str:
        """Return what a request of ``key_id`` is counted under: a host, ``other``, or ``""``.

        Args:
            key_id: public id of the key.
            referer: the header that names the app.
            headers: of the request.
        """
        now = self._clock_us()
        if now // DAY_US != self._day:
            self._begin(now // DAY_US)
        found = self._found.get((key_id, referer))
        return found if found is not None else self._look(key_id, referer, headers, now)

    def close(self) -> None:
        """Stop waiting for answers."""
        for task in self._tasks:
            task.cancel()

    def _begin(self, day: int) -> None:
        """Forget everything: caps are by day."""
        self._day = day
        for each in (self._found, self._allowed, self._refused):
            each.clear()

    def _look(self, key_id: str, referer: bytes, headers: Mapping[bytes, bytes], now: int) -> str:
        app = app_of(referer)
        if not app or app in self._allowed.get(key_id, ()):
            if len(self._found) >= MOST:
                self._found.clear()
            self._found[key_id, referer] = app
            return app
        asked = self._asking.get(key_id)
        if asked is not None:
            return asked[1] if asked[0] == app else OTHER
        again = self._refused.get(key_id)
        if again is not None and now < again:
            return OTHER
        title = headers.get(b"x-openrouter-title") or headers.get(b"x-title") or b""
        categories = categories_of(headers.get(b"x-openrouter-categories", b""))
        sighting = Sighting(self._day, key_id, app, title_of(title), categories, self._cap())
        meanwhile = app if again is None else OTHER
        self._asking[key_id] = app, meanwhile
        task = self._loop.create_task(self._ask(sighting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return meanwhile

    async def _ask(self, sighting: Sighting) -> None:
        """Ask the keeper whether the app is good, and remember what it says."""
        key_id = sighting.key_id
        try:
            allowed = await self._books.ask(SIGHT, (sighting,))
        except WeirError as error:
            _log.info("an app could not be looked up", reason=error.message)
            allowed = False
        finally:
            self._asking.pop(key_id, None)
        if self._day != sighting.day:
            return
        if allowed:
            self._allowed.setdefault(key_id, set()).add(sighting.app)
        else:
            self._refused[key_id] = self._clock_us() + AGAIN_US
