"""Following what operators set: every worker keeps drained backends drained, goes by settings, knows keys.

While the keeper is away its last word holds. Only what was drained by the list is ever taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from gateway.beat import paused
from gateway.config.overlay import Overlay
from gateway.console.question import DRAINED, MANAGEMENT_KEYS, SETTINGS
from gateway.fleet.snapshot import Replica
from gateway.types.errors import WeirError
from gateway.types.method import Asking

EVERY_S: Final = 2.0


async def follow_drains(books: Asking, replicas: Callable[[], Mapping[str, Replica]]) -> None:
    """Bring the replicas to what the keeper says, again and again. Runs until cancelled.

    Args:
        books: the keeper.
        replicas: returns the backends of now by name.
    """
    drained: frozenset[str] = frozenset()
    while True:
        with suppress(WeirError):
            wanted = await books.ask(DRAINED)
            drained = steer(replicas(), frozenset(wanted), drained)
        await asyncio.sleep(paused(EVERY_S))


def steer(replicas: Mapping[str, Replica], wanted: frozenset[str], before: frozenset[str]) -> frozenset[str]:
    """Drain the ``wanted`` ones, let those of ``before`` that are not take requests again; return ``wanted``."""
    for name in wanted | before:
        replica = replicas.get(name)
        if replica is not None and replica.load.draining != (name in wanted):
            replica.load.draining = name in wanted
    return wanted


async def follow_settings(books: Asking, overlay: Overlay) -> None:
    """Go by the settings. Runs until cancelled; without the keeper they stay."""
    while True:
        with suppress(WeirError):
            overlay.take({each.name: each.content for each in await books.ask(SETTINGS)})
        await asyncio.sleep(paused(EVERY_S))


async def follow_management_keys(books: Asking, learn: Callable[[Mapping[bytes, tuple[str, str]]], None]) -> None:
    """Tell of the management keys with a role: name and role by digest. Runs until cancelled."""
    while True:
        with suppress(WeirError):
            learn({each.digest: (each.name, each.role) for each in await books.ask(MANAGEMENT_KEYS)})
        await asyncio.sleep(paused(EVERY_S))
