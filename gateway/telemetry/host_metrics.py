"""The metrics of all processes of a host as one of them tells them: its own folded with those of the others.

Processes learn of one another through the keeper. While it is away, or a new one does not know all of them yet, what is
summed over them is missing: a part would look like a restart, after which all of it counts again. Nothing here raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Final

from gateway.telemetry import logs
from gateway.telemetry.instruments import Registry, Samples
from gateway.types.errors import Unavailable

SHARE_S: Final = 2.0
"""Seconds between two times that a process hands its figures in."""
Peers = Callable[[bytes], Awaitable[Sequence[bytes]]]
"""Hands this process's figures in and returns those of the host's other processes. Raises ``Unavailable``."""
_log: Final = logs.logger(__name__)


class HostMetrics:
    """The metrics of a host.

    Args:
        own: those of this process.
        peers: how to learn the figures of the host's other processes, or None when there are none.
    """

    def __init__(self, own: Registry, peers: Peers | None = None) -> None:
        self._own = own
        self._peers = peers

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics of all processes of the host and their content type, without sums that cannot be told."""
        others: Sequence[bytes] | None = ()
        if self._peers is not None:
            try:
                others = await self._peers(self._own.dump())
            except Unavailable as error:
                others = None
                _log.warning("a scrape has no sums over all processes", reason=error.message)
        return await asyncio.to_thread(self._own.render, accept, others)

    async def figures(self, names: Collection[str]) -> dict[str, Samples]:
        """Return a few metrics over all processes of the host; of this one while it is alone or the keeper away."""
        others: Sequence[bytes] = ()
        if self._peers is not None:
            with suppress(Unavailable):
                others = await self._peers(self._own.dump())
        return self._own.folded(names, others)

    async def share(self) -> None:
        """Hand this process's figures in every few seconds, so that they outlive it. Runs until cancelled."""
        while self._peers is not None:
            with suppress(Unavailable):
                await self._peers(self._own.dump())
            await asyncio.sleep(SHARE_S)
