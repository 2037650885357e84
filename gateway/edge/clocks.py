"""The clocks of a caller's connection: how long a head, a body, a rest and a full transport may take.

A head has one limit from its first byte; a body has one for each ``BODY_STEP`` bytes, so that a trickle does not keep
a connection; a caller that takes no byte of its answer is cut off; a connection at rest is closed.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from time import monotonic
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.types.errors import BadRequest, HeadTooLarge, WeirError

MAX_HEAD: Final = 64 * 1024
"""Bytes of a head that does not come in one read."""
BODY_STEP: Final = 64 * 1024
"""Bytes of a body for which a caller gets ``body_timeout`` anew."""


class Reading(IntEnum):
    """What of a request is still to come."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


class Clocked(HttpToolsProtocol):
    """uvicorn's protocol with these clocks.

    Attributes:
        header_timeout: seconds for the head of a request, from its first byte.
        body_timeout: seconds for each ``BODY_STEP`` of a body.
        write_timeout: seconds in which a caller that does not keep up must take at least a byte.
    """

    header_timeout: float
    body_timeout: float
    write_timeout: float

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._patience: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._awaited = Reading.NOTHING
        self._timed = Reading.NOTHING
        self._taken = 0
        self._framing = 0
        self._fed = False
        self._rests_since = 0.0

    # What the connection does about it

    def _tired(self) -> None:
        """The request did not arrive in time."""
        raise NotImplementedError

    def _give_up(self, error: WeirError) -> None:
        """Answer a request that will never be whole, and close."""
        raise NotImplementedError

    # A request that arrives

    def _watch(self, size: int) -> None:
        """A read of ``size`` bytes left a request incomplete: see to its clock."""
        if self._awaited is Reading.BODY:
            # Chunk sizes with their extensions, and trailers: what comes between two pieces of a body.
            self._framing = 0 if self._fed else self._framing + size
            self._fed = False
            if self._framing > MAX_HEAD:
                self._give_up(BadRequest(f"over {MAX_HEAD} bytes of framing without a byte of the body"))
                return
        if self._timed is not self._awaited:
            self._timed, self._taken = self._awaited, 0
            self._wait(self.header_timeout if self._awaited is Reading.HEAD else self.body_timeout)
            return
        self._taken += size
        if self._awaited is Reading.BODY:
            if self._taken >= BODY_STEP:
                self._taken = 0
                self._wait(self.body_timeout)
        elif self._taken > MAX_HEAD:
            self._give_up(HeadTooLarge(f"request line and headers are over {MAX_HEAD} bytes"))

    def _came(self) -> bool:
        """A request is whole; return whether its body took its time."""
        late = self._timed is Reading.BODY
        self._awaited = self._timed = Reading.NOTHING
        self._framing = 0
        self._stop_waiting()
        return late

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(seconds, self._tired)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    # A caller that does not read

    def _await_drain(self) -> None:
        size = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(self.write_timeout, self._stalled, size)

    def _stalled(self, size: int) -> None:
        """Cut off a caller that took nothing since ``size`` bytes were waiting for it."""
        self._stall = None
        if self.transport.get_write_buffer_size() < size:
            self._await_drain()
        else:
            self.transport.abort()

    def _drained(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    # A connection at rest

    def _rest(self) -> None:
        """Begin a rest. One timer watches all rests of a connection.

        uvicorn's own, one for each answer, costs more than the look-up of the key.
        """
        self._rests_since = monotonic()
        if self.timeout_keep_alive_task is None:
            self._rest_for(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has rested long enough; the end of an answer that is under way begins a new rest."""
        self.timeout_keep_alive_task = None
        if self._awaited or (self.cycle is not None and not self.cycle.response_complete):
            return
        left = self._rests_since + self.timeout_keep_alive - monotonic()
        if left <= 0:
            super().timeout_keep_alive_handler()
        else:
            self._rest_for(left)

    def _rest_for(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)
