"""One request and its response on the native road, written to the caller's transport itself.

See ``gateway.edge.exchange.Exchange``. What uvicorn's protocol expects of a request cycle (``keep_alive``,
``response_complete``) is here as well. After the caller has gone nothing is written and nothing raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from gateway.access.principal import Principal
from gateway.edge.errors import status_line
from gateway.edge.head import too_large
from gateway.edge.inference import Inlet
from gateway.types.errors import WeirError
from gateway.types.ids import RequestId
from gateway.types.reply import Flow

_EMPTY: Final = b":\n\n"
"""The shortest comment of an event stream."""
_EMPTY_CHUNK: Final = b"%x\r\n%s\r\n" % (len(_EMPTY), _EMPTY)


class Line(Protocol):
    """The caller's connection, as an exchange uses it."""

    transport: asyncio.Transport

    @property
    def write_paused(self) -> bool:
        """Whether the caller does not keep up."""

    def default_lines(self) -> bytes:
        """Return the headers every response carries, each line ended by CRLF."""

    def hang_up(self) -> None:
        """Close the connection behind what has been written."""

    def answered(self, exchange: NativeExchange) -> None:
        """An exchange has been answered: go on with the connection."""


class NativeExchange:
    """A request on the native road.

    Args:
        line: the caller's connection.
        request_id: of the request.
        path: without the query.
        headers: lower-case names to values.
        inlet: who reads the body.
        keep_alive: whether the connection goes on after the response.
        chunked: whether the caller understands chunks.
        bodiless: whether the response has no body.

    Attributes:
        inlet: who reads the body.
        keep_alive: whether the connection goes on after the response.
        principal: who asks, once authenticated.
        refusal: why the request is refused before its body is read.
        response_complete: whether the response has been written.
        turn: whether no earlier request of the connection is still to be answered.
        wants_continue: whether the caller waits to be told that it may send the body.
        whole: whether the body is complete.
    """

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_flow",
        "_head",
        "_line",
        "_parts",
        "_size",
        "arrived",
        "begun",
        "body",
        "gone",
        "headers",
        "inlet",
        "keep_alive",
        "path",
        "principal",
        "refusal",
        "request_id",
        "response_complete",
        "turn",
        "wants_continue",
        "whole",
    )

    def __init__(
        self,
        line: Line,
        request_id: RequestId,
        path: bytes,
        headers: Mapping[bytes, bytes],
        inlet: Inlet,
        keep_alive: bool = True,
        chunked: bool = True,
        bodiless: bool = False,
    ) -> None:
        self._line = line
        self._flow: Flow | None = None
        self._head = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._chunked = chunked
        self._bodiless = bodiless
        self.request_id = request_id
        self.path = path
        self.headers = headers
        self.body = b""
        self.gone = False
        self.arrived = 0.0
        self.begun = False
        self.keep_alive = keep_alive
        self.response_complete = False
        self.inlet = inlet
        self.principal: Principal | None = None
        self.refusal: WeirError | None = None
        self.turn = False
        self.wants_continue = False
        self.whole = False

    # The request

    @property
    def repeatable(self) -> bool:
        """Whether its head says nothing that ends the connection or shapes the response."""
        return self._chunked and self.keep_alive and not self._bodiless

    def receive(self, data: bytes, limit: int) -> None:
        """Take body bytes; over ``limit`` the request is refused and the rest thrown away."""
        self._size += len(data)
        if self._size > limit:
            self._parts.clear()
            self.refusal = self.refusal or too_large(limit)
        elif self.refusal is None:
            self._parts.append(data)

    def complete(self, now: float) -> None:
        """The request is whole."""
        self.whole = True
        self.arrived = now
        parts = self._parts
        self.body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []

    # The connection

    def lost(self) -> None:
        """The caller has left."""
        if not self.response_complete:
            self.gone = True
            flow, self._flow = self._flow, None
            if flow is not None:
                flow.abort()

    def pressed(self, *, paused: bool) -> None:
        """The caller's transport is full, or has room again."""
        if self._flow is not None and not self.response_complete:
            if paused:
                self._flow.pause()
            else:
                self._flow.resume()

    # Exchange

    def steer(self, flow: Flow) -> None:
        """See ``Exchange``."""
        self._flow = flow
        if self.gone:
            flow.abort()

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """See ``Exchange``."""
        if self.gone or self.response_complete:
            return
        line = self._line
        line.transport.write(
            b"%s%s%s%scontent-length: %d\r\n\r\n%s"
            % (
                status_line(status),
                line.default_lines(),
                headers,
                b"" if self.keep_alive else b"connection: close\r\n",
                len(body),
                b"" if self._bodiless else body,
            )
        )
        self._end()

    def open(self, headers: bytes) -> None:
        """See ``Exchange``. Where an HTTP/1.0 caller asks, the end of the connection is the end of the body."""
        self.begun = True
        self._head = b"%s%s%s%s%s\r\n" % (
            status_line(200),
            self._line.default_lines(),
            headers,
            b"" if self.keep_alive else b"connection: close\r\n",
            b"transfer-encoding: chunked\r\n" if self._chunked else b"",
        )
        if self._line.write_paused and self._flow is not None:
            self._flow.pause()  # an earlier response fills the transport, which will not say so again

    def write(self, data: bytes) -> None:
        """See ``Exchange``."""
        if self.gone:
            return
        if self._chunked:
            data = b"%x\r\n%s\r\n" % (len(data), data)
        if self._head:
            data = self._head + data
            self._head = b""
        self._line.transport.write(data)

    def framed(self) -> Callable[[bytes], None] | None:
        """See ``Exchange``."""
        if self.gone or self.response_complete or self.silent or not self._chunked:
            return None
        return self._line.transport.write

    @property
    def silent(self) -> bool:
        """Whether the caller has had nothing of the response yet but comments."""
        return not self.begun or bool(self._head)

    def comment(self, data: bytes) -> None:
        """Send ``data``, whole lines of a comment, while the caller waits for the first event; after ``open``."""
        if self.gone or self.response_complete or self._line.write_paused:
            return
        # What the first event sends in place of the head, so that events need not ask whether comments came before.
        empty = _EMPTY_CHUNK if self._chunked else _EMPTY
        head = b"" if self._head is empty else self._head
        self._head = empty
        self._line.transport.write(head + (b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data))

    def close(self, data: bytes) -> None:
        """See ``Exchange``."""
        if self.gone or self.response_complete:
            return
        if self._chunked:
            piece = b"%x\r\n%s\r\n" % (len(data), data) if data else b""
            self._line.transport.write(b"%s%s0\r\n\r\n" % (self._head, piece))
        else:
            self._line.transport.write(self._head + data)
        self._head = b""
        self._end()

    def _end(self) -> None:
        self.response_complete = True
        self._flow = None
        if not self.keep_alive:
            self._line.hang_up()
        self._line.answered(self)


class SharedExchange(NativeExchange):
    """A request on the native road that came from a web page: its response says who may read it.

    Attributes:
        shared: the lines that say so.
    """

    __slots__ = ("shared",)

    shared: bytes

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """See ``Exchange``."""
        super().respond(status, headers + self.shared, body)

    def open(self, headers: bytes) -> None:
        """See ``Exchange``."""
        super().open(headers + self.shared)
