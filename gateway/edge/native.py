"""The native road: uvicorn's HTTP protocol, with the inference paths taken out of ASGI.

Requests on inference paths are parsed, authenticated and answered on the transport itself; everything else goes on to
the ASGI application unchanged. What uvicorn's protocol expects of a request cycle (keep-alive, pipelining, graceful
shutdown) ``NativeExchange`` provides as well.

Failure behaviour: a body over the limit is refused before it is read; a request that does not arrive in time is
answered 408; bytes that are not HTTP are answered 400; each in the caller's error shape.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.access.principal import Principal
from gateway.edge.errors import error_body, status_line
from gateway.edge.inference import PATHS, Dialect, Inference, header_map, refuse
from gateway.types import ids
from gateway.types.errors import BadRequest, MethodNotAllowed, PayloadTooLarge, RequestTimeout, WeirError
from gateway.types.ids import RequestId
from gateway.types.reply import Flow

WRITE_HIGH: Final = 128 * 1024
"""Bytes waiting in a caller's transport at which its backend is paused."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Road:
    """What all connections of a process share.

    Attributes:
        inference: serves the paths; None until start-up is over.
        header_timeout: seconds for the head of a request.
        body_timeout: seconds without progress in a body.
    """

    def __init__(self, *, header_timeout: float = 20.0, body_timeout: float = 60.0) -> None:
        self.inference: Inference | None = None
        self.header_timeout = header_timeout
        self.body_timeout = body_timeout
        self._defaults: list[tuple[bytes, bytes]] = []
        self._default_lines = b""

    def protocol(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], **kept: Any
    ) -> WeirProtocol:
        """Make the protocol of one connection; uvicorn calls it as it would the protocol class."""
        return WeirProtocol(config, server_state, app_state, road=self, **kept)

    def default_lines(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return uvicorn's default headers (date, server) as lines; uvicorn makes a new list each second."""
        if headers is not self._defaults:
            self._defaults = headers
            self._default_lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        return self._default_lines


class NativeExchange:
    """See ``gateway.edge.exchange.Exchange``; also a request cycle as uvicorn's protocol knows it."""

    __slots__ = (
        "_flow",
        "_head",
        "_parts",
        "_protocol",
        "_size",
        "arrived",
        "begun",
        "body",
        "dialect",
        "gone",
        "headers",
        "keep_alive",
        "path",
        "principal",
        "refusal",
        "request_id",
        "response_complete",
        "turn",
        "whole",
    )

    def __init__(
        self,
        protocol: WeirProtocol,
        request_id: RequestId,
        path: bytes,
        headers: Mapping[bytes, bytes],
        keep_alive: bool,
    ) -> None:
        self._protocol = protocol
        self._flow: Flow | None = None
        self._head = b""
        self._parts: list[bytes] = []
        self._size = 0
        self.request_id = request_id
        self.path = path
        self.headers = headers
        self.body = b""
        self.gone = False
        self.arrived = 0.0
        self.begun = False
        self.keep_alive = keep_alive
        self.response_complete = False
        self.dialect: Dialect | None = None
        self.principal: Principal | None = None
        self.refusal: WeirError | None = None
        self.turn = False
        self.whole = False

    # The request

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
            if self._flow is not None:
                self._flow.abort()

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
        protocol = self._protocol
        protocol.transport.write(
            b"%s%s%s%scontent-length: %d\r\n\r\n%s"
            % (
                status_line(status),
                protocol.default_lines(),
                headers,
                b"" if self.keep_alive else b"connection: close\r\n",
                len(body),
                body,
            )
        )
        self._end()

    def open(self, headers: bytes) -> None:
        """See ``Exchange``."""
        self.begun = True
        self._head = b"%s%s%s%stransfer-encoding: chunked\r\n\r\n" % (
            status_line(200),
            self._protocol.default_lines(),
            headers,
            b"" if self.keep_alive else b"connection: close\r\n",
        )

    def write(self, data: bytes) -> None:
        """See ``Exchange``."""
        if self.gone:
            return
        if self._head:
            data = b"%s%x\r\n%s\r\n" % (self._head, len(data), data)
            self._head = b""
        else:
            data = b"%x\r\n%s\r\n" % (len(data), data)
        self._protocol.transport.write(data)

    def close(self, data: bytes) -> None:
        """See ``Exchange``."""
        if self.gone or self.response_complete:
            return
        head, self._head = self._head, b""
        piece = b"%x\r\n%s\r\n" % (len(data), data) if data else b""
        self._protocol.transport.write(b"%s%s0\r\n\r\n" % (head, piece))
        self._end()

    def _end(self) -> None:
        self.response_complete = True
        self._flow = None
        protocol = self._protocol
        if not self.keep_alive:
            protocol.transport.close()
        protocol.answered(self)


class WeirProtocol(HttpToolsProtocol):
    """One caller's connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        road: Road,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._road = road
        self._running: NativeExchange | None = None
        self._reading: NativeExchange | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._incomplete = False

    def default_lines(self) -> bytes:
        """Return the headers every response carries."""
        return self._road.default_lines(self.server_state.default_headers)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn declares it
        """Start the clock for the first head."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_HIGH)
        self._wait(self._road.header_timeout)

    def data_received(self, data: bytes) -> None:
        """Parse; refuse what cannot or need not be read further; keep the clock."""
        super().data_received(data)
        if self.parser is None or self.transport.is_closing():
            return
        reading = self._reading
        if reading is not None and reading.refusal is not None:
            self._refuse(reading)
        elif self._incomplete:
            self._wait(self._road.header_timeout if reading is None else self._road.body_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request in flight; uvicorn tells an ASGI one."""
        self._stop_waiting()
        running = self._running
        if running is not None:
            running.lost()
        cycle: object = self.cycle
        if isinstance(cycle, NativeExchange):
            cycle.lost()
            self.cycle = None  # type: ignore[assignment] # uvicorn asks it for ASGI events
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The caller does not keep up."""
        super().pause_writing()
        if self._running is not None:
            self._running.pressed(paused=True)

    def resume_writing(self) -> None:
        """The caller keeps up again."""
        super().resume_writing()
        if self._running is not None:
            self._running.pressed(paused=False)

    # httptools

    def on_message_begin(self) -> None:
        """A request starts; what only ASGI needs is made once the path is known to be ASGI's."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._incomplete = True

    def on_headers_complete(self) -> None:
        """Take the request natively if its path is an inference path."""
        path, _, _ = self.url.partition(b"?")
        dialect = PATHS.get(path)
        inference = self._road.inference
        if dialect is None or inference is None:
            self._begin_asgi()
            return
        headers = header_map(self.headers)
        exchange = NativeExchange(
            self,
            inference.new_id(),
            path,
            headers,
            self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive(),
        )
        exchange.dialect = dialect
        try:
            _check_head(self.parser.get_method(), headers, inference.max_body)
            exchange.principal = inference.authenticate(headers)
        except WeirError as error:
            exchange.refusal = error
        else:
            if self.expect_100_continue:
                self.transport.write(_CONTINUE)
        previous, self.cycle = self.cycle, exchange  # type: ignore[assignment] # it provides what is used of a cycle
        self._reading = exchange
        if previous is None or previous.response_complete:
            exchange.turn = True
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type] # as above

    def on_body(self, body: bytes) -> None:
        """Collect the body of a native request."""
        reading = self._reading
        if reading is None:
            super().on_body(body)
        elif not reading.response_complete:
            assert self._road.inference is not None
            reading.receive(body, self._road.inference.max_body)

    def on_message_complete(self) -> None:
        """Serve a native request once it is whole and its turn has come."""
        self._incomplete = False
        self._stop_waiting()
        reading, self._reading = self._reading, None
        if reading is None:
            super().on_message_complete()
            return
        if reading.response_complete:
            return
        reading.complete(monotonic())
        if reading.turn:
            self._serve(reading)

    # uvicorn's cycle

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Start what has waited in the pipeline."""
        if isinstance(cycle, NativeExchange):
            cycle.turn = True
            if cycle.whole:
                self._serve(cycle)
        else:
            super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP, in the caller's error shape; behind a request in flight, let that one end."""
        if self._running is not None:
            self._running.keep_alive = False
            return
        self._bare_response(BadRequest(msg + " Check the length headers and the framing."))

    def answered(self, exchange: NativeExchange) -> None:
        """An exchange has been answered: go on with the connection."""
        if self._running is exchange:
            self._running = None
        self.on_response_complete()

    # Internals

    def _begin_asgi(self) -> None:
        self.scope = {  # type: ignore[typeddict-item] # the base class completes it
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,  # type: ignore[typeddict-item] # as uvicorn writes it
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        super().on_headers_complete()

    def _serve(self, exchange: NativeExchange) -> None:
        inference = self._road.inference
        assert inference is not None
        self._running = exchange
        if exchange.refusal is not None or exchange.principal is None or exchange.dialect is None:
            refuse(exchange, exchange.refusal or BadRequest("the request cannot be read"), inference)
        else:
            inference.start(exchange, exchange.dialect, exchange.principal)

    def _refuse(self, exchange: NativeExchange) -> None:
        """Answer a request before its body is read; the connection cannot be used any more."""
        if exchange.turn and not exchange.whole:
            self._reading = None
            exchange.keep_alive = False
            self._serve(exchange)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(seconds, self._tired)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _tired(self) -> None:
        """The request did not arrive in time."""
        self._patience = None
        if self.transport.is_closing() or not self._incomplete:
            self.transport.close()
            return
        reading = self._reading
        error = RequestTimeout("the request did not arrive in time; the connection is closed")
        if reading is not None and reading.turn:
            reading.refusal = error
            self._refuse(reading)
        else:
            self._bare_response(error)

    def _bare_response(self, error: WeirError) -> None:
        """Answer without an exchange and close."""
        inference = self._road.inference
        identity = ids.text(inference.new_id()) if inference is not None else ""
        body = error_body(error, identity)
        self.transport.write(
            b"%s%scontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
            % (status_line(error.code), self.default_lines(), len(body), body)
        )
        self.transport.close()


def too_large(limit: int) -> PayloadTooLarge:
    """Return the error for a body over ``limit`` bytes."""
    return PayloadTooLarge(f"the request body is over the limit of {limit} bytes", metadata={"limit_bytes": limit})


def _check_head(method: bytes, headers: Mapping[bytes, bytes], limit: int) -> None:
    if method != b"POST":
        raise MethodNotAllowed(f"use POST, not {method.decode('ascii', 'replace')}")
    length = headers.get(b"content-length")
    if length is not None and int(length) > limit:
        raise too_large(limit)
