"""The housekeeping of a keeper: keeping when keys were last used, and forgetting counts of limits that are over.

A round that cannot be carried out is tried again with the next one, and never ends the rounds.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.access.limits import LocalLimits
from gateway.telemetry import logs
from gateway.types.errors import Unavailable

HOUSEKEEPING_S: Final = 1.0
"""Seconds between two rounds."""
SWEEP_S: Final = 60.0
"""Seconds between two sweeps of the limits."""
_log: Final = logs.logger(__name__)


async def keep_house(
    mark_used: Callable[[], Awaitable[None]], limits: LocalLimits, stops_within: Callable[[float], Awaitable[bool]]
) -> None:
    """Keep house until the keeper stops.

    Args:
        mark_used: keeps when keys were last used. Raises ``Unavailable`` and has the same and more the next time.
        limits: the host's counts.
        stops_within: waits some seconds and returns whether the keeper stops.
    """
    swept = time.monotonic()
    while not await stops_within(HOUSEKEEPING_S):
        try:
            await mark_used()
        except Unavailable:
            pass  # the database is away; the next round has the same and more
        except Exception:  # noqa: BLE001 - without this loop limits would never forget a key
            _log.exception("the last use of keys cannot be kept")
        if time.monotonic() - swept >= SWEEP_S:
            swept = time.monotonic()
            limits.sweep()
