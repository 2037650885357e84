"""How a worker follows what is said of teams: guardrails, default models, which teams have presets.

It asks the keeper twice a second whether there is anything new, and at once after a change through this worker. Nothing
starts without it: a guardrail that is not known cannot hold. While the keeper is away its last word holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.beat import paused
from gateway.telemetry import logs
from gateway.types.errors import Unavailable, WeirError
from gateway.types.guardrails import GOVERNANCE, Governance
from gateway.types.method import Asking

EVERY_S: Final = 0.5
_log: Final = logs.logger(__name__)


class GovernanceFollower:
    """Keeps one process as the keeper has it.

    Args:
        books: the keeper.
        apply: takes what holds from now on; called on the event loop.
    """

    def __init__(self, books: Asking, apply: Callable[[Governance], None]) -> None:
        self._books = books
        self._apply = apply
        self._revision = -1

    async def look(self) -> None:
        """Take over what is new. Raises ``Unavailable``."""
        found = await self._books.ask(GOVERNANCE, (self._revision,))
        if found is not None and found.revision != self._revision:
            self._revision = found.revision
            self._apply(found)

    async def run(self) -> None:
        """Follow. Runs until cancelled."""
        while True:
            await asyncio.sleep(paused(EVERY_S))
            try:
                await self.look()
            except Unavailable:
                continue  # the keeper is away: its last word holds
            except WeirError as error:
                _log.warning("the keeper does not tell what holds for teams", reason=error.message)
