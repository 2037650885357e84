"""The clocks of a caller's connection: how long a head, a body, a rest and a full transport may take.

A head has one limit from its first byte; a body has one for each ``BODY_STEP`` bytes, so that a trickle does not keep
a connection; a caller that takes no byte of its answer is cut off; a connection at rest is closed.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from enum import IntEnum
from struct import Struct
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
_LINUX: Final = sys.platform == "linux"
_ACKED: Final = Struct("=Q")
_ACKED_AT: Final = 120
"""Where Linux writes ``tcpi_bytes_acked`` in its ``struct tcp_info``, which only ever grows at its end."""


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
        self._mark: tuple[int, int] | None = None
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
        """Bytes wait for the caller: until they are gone it must take some of them in each ``write_timeout``."""
        if self._stall is None:
            self._mark = self._acked(), self.transport.get_write_buffer_size()
            self._stall = self.loop.call_later(self.write_timeout, self._stalled)

    def _stalled(self) -> None:
        """Cut off a caller that took nothing since the last look.

        What waits here does not tell. It grows with what is written meanwhile, and stands still while a caller reads:
        Linux calls a socket writable only when a third of what it holds for the caller is gone, a megabyte or more.
        """
        self._stall = None
        mark, waiting = self._mark, self.transport.get_write_buffer_size()
        if not waiting:
            return
        if mark is None or waiting < mark[1] or self._acked() > mark[0]:
            self._await_drain()
        else:
            self.transport.abort()

    def _drained(self) -> None:
        """The caller took much of what waited; the rest goes on being watched where the system tells what it takes."""
        self._mark = None
        if not (self._acked() or self.transport.is_closing()):
            self._unwatch()

    def _see_out(self) -> None:
        """The connection closes behind what waits: so little presses no backend, and nobody else would watch it."""
        if self.transport.get_write_buffer_size():
            self._await_drain()

    def _unwatch(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _acked(self) -> int:
        """Return how many bytes the caller's side has acknowledged in all, 0 where the system does not say."""
        try:
            sock = self.transport.get_extra_info("socket")
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + _ACKED.size) if _LINUX else b""
        except (OSError, ValueError):  # not TCP, or closed
            return 0
        return int(_ACKED.unpack_from(info, _ACKED_AT)[0]) if len(info) == _ACKED_AT + _ACKED.size else 0

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
            self._see_out()
        else:
            self._rest_for(left)

    def _rest_for(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)
