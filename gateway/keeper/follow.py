"""Noticing keys that another host changed in the database that both share.

A look costs one row (``gateway.db.changes``) and comes twice a second and more, so a key that is revoked anywhere stops
everywhere within a second. While the database is away keys stay as last known; the first look afterwards finds all that
was missed. Only a keeper whose database can be shared looks.
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
    """

    def __init__(
        self,
        store: AccessStore,
        revision: int,
        turn: asyncio.Lock,
        tell: Callable[[Sequence[KeyRecord]], None],
    ) -> None:
        self._store = store
        self._revision = revision
        self._turn = turn
        self._tell = tell

    async def look(self) -> None:
        """Tell what changed since the last look, own changes too. Raises ``Unavailable``."""
        async with self._turn:
            changed, self._revision = await self._store.changed_since(self._revision)
            if changed:
                self._tell(changed)

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
