"""The office of what is kept of the Responses API; runs in the background are a part opened when it is needed."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, Final

from gateway.db.office import Duty, Office, Premises
from gateway.keeper.responses import Turns
from gateway.types.responses import CONVERSATION, FIND, FORGET, KEEP, Turn

EXPIRE_S: Final = 60.0
_MARKED: Final = b'"background":true'
"""What every response made in the background has, and seldom another one."""
_RUNS: Final = "gateway.keeper.background"


def open_office(premises: Premises) -> Office:
    """Return the office."""
    turns = Turns(premises)
    shelf = Shelf(premises, turns)
    return Office(
        {KEEP: turns.keep, FIND: shelf.find, CONVERSATION: turns.conversation, FORGET: turns.forget},
        (Duty("responses expire", EXPIRE_S, turns.expire),),
    )


class Shelf:
    """Finds turns as they are now."""

    def __init__(self, premises: Premises, turns: Turns) -> None:
        self._premises = premises
        self._turns = turns
        self._runs: Any = None

    async def find(self, key_id: str, request_id: bytes) -> Turn | None:
        """See ``FIND``."""
        turn = await self._turns.find(key_id, request_id)
        if turn is None or _MARKED not in turn.response:
            return turn
        if self._runs is None:
            module = await asyncio.to_thread(importlib.import_module, _RUNS)  # its mappers take memory
            self._runs = module.Runs(self._premises, self._turns)
        found: Turn | None = await self._runs.now(turn, key_id, request_id)
        return found
