"""One connection of a client to the keeper: calls out, replies and pushes in.

When the connection ends, every call that waits fails with ``ConnectionLostError``; the session is of no more use then.
A result is handed to ``heard`` in the very moment it arrives, so that what is known here changes in the order in which
the keeper said it, whoever waits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import msgspec

from gateway.keeper.protocol import (
    NO_REPLY,
    Failure,
    FrameReader,
    KeyChange,
    Message,
    ProtocolError,
    Request,
    ScopeChange,
    error_of,
    frame,
    raw,
)
from gateway.types.actor import ACTING, GATEWAY
from gateway.types.method import Method

R = TypeVar("R")
Push = KeyChange | ScopeChange
Heard = Callable[[R, bool], None]
"""Told a result as it arrives, and whether somebody still waits for it."""


class ConnectionLostError(Exception):
    """The connection ended before the reply came; whether the call was carried out is unknown."""


@dataclass(slots=True)
class _Call(Generic[R]):
    """A call that waits for its reply."""

    method: Method[R]
    future: asyncio.Future[R]
    heard: Heard[R] | None


class Session(asyncio.Protocol):
    """A connection to the keeper.

    Args:
        on_push: told what the keeper says unasked.
        on_lost: told that the connection has ended, before any call learns of it.

    Attributes:
        closed: set when the connection has ended.
    """

    def __init__(self, on_push: Callable[[Push], None], on_lost: Callable[[Session], None]) -> None:
        self._on_push = on_push
        self._on_lost = on_lost
        self._frames = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, _Call[Any]] = {}
        self._last_call = NO_REPLY
        self.closed = asyncio.Event()

    @classmethod
    async def connect(cls, path: Path, on_push: Callable[[Push], None], on_lost: Callable[[Session], None]) -> Session:
        """Return a session with the keeper that listens at ``path``; arguments as of the class.

        Raises:
            OSError: nobody listens there.
        """
        loop = asyncio.get_running_loop()
        _, session = await loop.create_unix_connection(lambda: cls(on_push, on_lost), os.fspath(path))
        return session

    def request(self, method: Method[R], arguments: Sequence[Any], heard: Heard[R] | None = None) -> asyncio.Future[R]:
        """Send a call and return its future result; fails with ``ConnectionLostError`` or the keeper's error.

        Raises:
            BadRequest: ``arguments`` cannot be said.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        if self._transport is None:
            future.set_exception(ConnectionLostError())
            return future
        said = raw(arguments)
        self._last_call += 1
        self._calls[self._last_call] = _Call(method, future, heard)
        actor = ACTING.get()
        known = None if actor is GATEWAY else actor
        self._transport.write(frame(Request(self._last_call, method.name, said, known)))
        return future

    def notify(self, method: Method[None], arguments: Sequence[Any]) -> None:
        """Send a call whose outcome nobody waits for."""
        if self._transport is not None:
            self._transport.write(frame(Request(NO_REPLY, method.name, raw(arguments))))

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by the event loop."""
        # A cast, because the transports of uvloop do not derive from those of asyncio.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        """Fail what waits; called by the event loop."""
        self._transport = None
        self._on_lost(self)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.future.done():
                call.future.set_exception(ConnectionLostError())
        self.closed.set()

    def data_received(self, data: bytes) -> None:
        """Take in replies and pushes; called by the event loop."""
        try:
            for message in self._frames.feed(data):
                self._take(message)
        except (ProtocolError, msgspec.DecodeError):
            if self._transport is not None:
                self._transport.abort()

    def _take(self, message: Message) -> None:
        if isinstance(message, KeyChange | ScopeChange):
            self._on_push(message)
            return
        if isinstance(message, Request):
            raise ProtocolError("the keeper sends no requests")
        call = self._calls.pop(message.call, None)
        if call is None:
            return
        waited = not call.future.done()
        if isinstance(message, Failure):
            if waited:
                call.future.set_exception(error_of(message.error))
            return
        result = call.method.result.decode(message.result)
        if call.heard is not None:
            call.heard(result, waited)
        if waited:
            call.future.set_result(result)
