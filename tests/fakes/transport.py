"""A transport without a socket: what is written is kept, closing reaches the protocol in the next loop step."""

from __future__ import annotations

import asyncio
from typing import Any


class FakeTransport(asyncio.Transport):
    """Connects to nothing.

    Attributes:
        written: everything written so far.
        paused: whether reading is paused.
        ended: whether the writing half was ended.
        aborted: whether it was closed without regard to what was still to be written.
        fill: bytes the peer has not taken; set by tests.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__({"sockname": ("127.0.0.1", 80), "peername": ("127.0.0.1", 50_000)})
        self._loop = loop
        self._protocol = protocol
        self._closing = False
        self.written = bytearray()
        self.paused = self.ended = self.aborted = False
        self.fill = 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell ``protocol`` from now on."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.Protocol:
        """Return who is told."""
        return self._protocol

    def write(self, data: Any) -> None:
        """Keep what is written while it is open."""
        if not self._closing:
            self.written += data

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._closing

    def close(self) -> None:
        """Close."""
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._lost)

    def abort(self) -> None:
        """Close at once."""
        self.aborted = True
        self.close()

    def lose(self, error: Exception | None = None) -> None:
        """The peer closes, by a reset when there is an ``error``."""
        if not self._closing:
            self._closing = True
            self._protocol.connection_lost(error)

    def _lost(self) -> None:
        self._protocol.connection_lost(None)

    def can_write_eof(self) -> bool:
        """As on TCP."""
        return True

    def write_eof(self) -> None:
        """End the writing half."""
        self.ended = True

    def pause_reading(self) -> None:
        """Note it."""
        self.paused = True

    def resume_reading(self) -> None:
        """Note it."""
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever full by itself."""

    def get_write_buffer_size(self) -> int:
        """What the peer has not taken."""
        return self.fill
