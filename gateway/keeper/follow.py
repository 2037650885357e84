"""Noticing keys that another host changed in the database that both share.

A look costs one row (``gateway.db.changes``) and comes twice a second and more, so a key that is revoked anywhere stops
everywhere within a second. While the database is away keys stay as last known; the first look afterwards finds all that
was missed, and when the database has forgotten changes (an older standby took over, a backup was put back) all keys are
read anew. Only a keeper whose database can be shared looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from gateway.access.store import AccessStore
from gateway.telemetry import logs
from gateway.types.errors import Unavailable
from gateway.types.keys import KeyRecord

INTERVAL_S: Final = 0.3
_log: Final = logs.logger(__name__)


class KeyFollower:
    """Tells of keys that others changed.

    Args:
        store: the keys.
        revision: the revision up to which everything is known.
        turn: held while changes are made or told, so that they are told in the order of their commits.
        tell: told of keys that changed.
        tell_all: told all keys there are.
        known: returns how many keys are known.
    """

    def __init__(
        self,
        store: AccessStore,
        revision: int,
        turn: asyncio.Lock,
        tell: Callable[[Sequence[KeyRecord]], None],
        tell_all: Callable[[Sequence[KeyRecord]], None],
        known: Callable[[], int],
    ) -> None:
        self._store = store
        self._revision = revision
        self._turn = turn
        self._tell = tell
        self._tell_all = tell_all
        self._known = known
        self._links = 0

    async def look(self) -> None:
        """Tell what changed since the last look, own changes too. Raises ``Unavailable``."""
        async with self._turn:
            changed, revision = await self._store.changed_since(self._revision)
            if changed:
                self._tell(changed)
            if await self._forgotten(revision):
                changed, revision = await self._store.changed_since(-1)
                self._tell_all(changed)
            self._revision = revision

    async def _forgotten(self, revision: int) -> bool:
        """Whether the database, which is at ``revision``, knows less than it did; the number may be that of before."""
        links = self._store.links
        if revision >= self._revision and (links == self._links or await self._store.count() == self._known()):
            self._links = links
            return False
        return True

    async def run(self, stops_within: Callable[[float], Awaitable[bool]]) -> None:
        """Look again and again until ``stops_within`` some seconds says so: a look is never cut off."""
        away = False
        while not await stops_within(INTERVAL_S):
            try:
                await self.look()
                away = False
            except Unavailable as error:
                if not away:
                    _log.warning("keys stay as last known", reason=error.message)
                away = True
            except Exception:  # noqa: BLE001 - without this loop revoked keys would go on working here
                _log.exception("changes of keys cannot be followed")
