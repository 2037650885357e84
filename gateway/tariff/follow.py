"""How a worker follows the tariff: it asks the keeper twice a second whether there is anything new.

A version that will be valid later is known beforehand and takes its place at its moment, also while the keeper is
away; what is not told while it is away is told when it is back. A request in flight keeps the endpoint, and with it the
price, that it was opened with.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from gateway.beat import paused
from gateway.config.snapshot import ConfigSnapshot
from gateway.tariff.overlay import priced, stated
from gateway.tariff.version import STATE, TARIFF, Known, Valid, next_change, valid
from gateway.telemetry import logs
from gateway.types.errors import Unavailable, WeirError
from gateway.types.method import Asking

EVERY_S: Final = 0.5
_log: Final = logs.logger(__name__)


class Follower:
    """Keeps the prices of one process as the keeper has them.

    Args:
        books: the keeper.
        snapshot: the configuration to start with.
        apply: takes the configuration with the prices that are valid from now on; called on the event loop.
        clock: wall clock, nanoseconds since 1970.
    """

    def __init__(
        self,
        books: Asking,
        snapshot: ConfigSnapshot,
        apply: Callable[[ConfigSnapshot], None],
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._books = books
        self._snapshot = snapshot
        self._apply = apply
        self._clock = clock
        self._known = Known(0, ())
        self._changes_us: int | None = 0
        self._valid: Valid | None = None
        self._unsaid = True
        self._wake = asyncio.Event()

    @property
    def revision(self) -> int:
        """Id of the newest version this process has heard of."""
        return self._known.revision

    async def start(self) -> None:
        """Tell the keeper what the file says and take over what is valid; without a keeper the file counts."""
        await self._hear()
        self._put()

    def configured(self, snapshot: ConfigSnapshot) -> None:
        """Go on with another configuration: at once with the prices known so far, then with what it changes."""
        self._snapshot = snapshot
        self._unsaid = True
        self._valid, self._changes_us = None, 0
        self._put()
        self._wake.set()

    async def run(self) -> None:
        """Follow. Runs until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self._hear()
            self._put()

    def _pause(self) -> float:
        """Return the seconds until there is something to do."""
        if self._changes_us is None:
            return paused(EVERY_S)
        return min(paused(EVERY_S), max(0.0, (self._changes_us - self._clock() // 1000) / 1e6))

    async def _hear(self) -> None:
        """Learn what is new."""
        try:
            if self._unsaid:
                known: Known | None = await self._state()
            else:
                known = await self._books.ask(TARIFF, (self._known.revision,))
        except Unavailable:
            return  # the keeper is away: its last word holds
        except WeirError as error:
            _log.warning("the keeper does not tell prices", reason=error.message)
            return
        if known is not None:
            self._known, self._changes_us = known, 0

    async def _state(self) -> Known | None:
        """Tell what the file says and return what is known then; what the keeper knows while its database is away."""
        snapshot = self._snapshot
        try:
            known: Known | None = await self._books.ask(STATE, (stated(snapshot), snapshot.digest))
        except Unavailable:
            return await self._books.ask(TARIFF, (self._known.revision,))
        self._unsaid = snapshot is not self._snapshot
        return known

    def _put(self) -> None:
        """Apply what is valid now, if that is something else than before."""
        now_us = self._clock() // 1000
        if self._changes_us is None or now_us < self._changes_us:
            return
        found = valid(self._known.versions, now_us)
        self._changes_us = next_change(self._known.versions, now_us)
        if found != self._valid:
            self._valid = found
            self._apply(priced(self._snapshot, found))
