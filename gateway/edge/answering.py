"""The answering half of a caller's connection: requests in their turn, refusals, and the ways it ends.

``gateway.edge.native`` reads the requests. What is written here goes to the transport itself; a caller that has gone is
written nothing.

Failure behaviour: an error before its request could be read whole is answered in the caller's error shape and closes
the connection, never in the middle of another answer.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from gateway.edge.clocks import Clocked, Reading
from gateway.edge.cors import Cors
from gateway.edge.errors import error_body, status_line
from gateway.edge.inference import Inference, refuse
from gateway.edge.native_exchange import NativeExchange
from gateway.types import ids
from gateway.types.errors import BadRequest, RequestTimeout, WeirError

LINGER: Final = 2.0
"""Seconds a caller has to read an early refusal while it still sends; closing at once could lose the refusal."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Terms:
    """What all connections of a process share.

    Attributes:
        inference: serves the paths; None until start-up is over.
        header_timeout: seconds for the head of a request, from its first byte.
        body_timeout: seconds for each ``BODY_STEP`` of a body.
        write_timeout: seconds in which a caller that does not keep up must take at least a byte.
        cors: which web pages may call.
    """

    def __init__(
        self,
        *,
        header_timeout: float = 10.0,
        body_timeout: float = 60.0,
        write_timeout: float = 60.0,
        cors: Cors | None = None,
    ) -> None:
        self.inference: Inference | None = None
        self.cors = cors or Cors()
        self.header_timeout = header_timeout
        self.body_timeout = body_timeout
        self.write_timeout = write_timeout
        self._defaults: list[tuple[bytes, bytes]] = []
        self._default_lines = b""

    def default_lines(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return uvicorn's default headers (date, server) as lines; uvicorn makes a new list each second."""
        if headers is not self._defaults:
            self._defaults = headers
            self._default_lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        return self._default_lines


class Answering(Clocked):
    """A caller's connection, as far as it answers."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None,
        terms: Terms,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.body_timeout = terms.body_timeout
        self.header_timeout = terms.header_timeout
        self.write_timeout = terms.write_timeout
        self._road = terms
        self._running: NativeExchange | None = None
        self._reading: NativeExchange | None = None
        self._asgi: RequestResponseCycle | None = None
        self._deaf = False

    # asyncio.Protocol

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request in flight; uvicorn tells an ASGI one."""
        self._stop_waiting()
        self._unset_keepalive_if_required()
        self._unwatch()
        running, self._running = self._running, None
        if running is not None:
            running.lost()
        cycle: object = self.cycle
        if isinstance(cycle, NativeExchange):
            cycle.lost()
            self.cycle = None  # type: ignore[assignment] # uvicorn asks it for ASGI events
        asgi = self._asgi
        if asgi is not None and asgi is not cycle and not asgi.response_complete:
            asgi.disconnected = True
            asgi.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The caller sends no more: the transport closes."""
        self._see_out()

    def pause_writing(self) -> None:
        """The caller does not keep up."""
        super().pause_writing()
        self._await_drain()
        if self._running is not None:
            self._running.pressed(paused=True)

    def resume_writing(self) -> None:
        """The caller keeps up again."""
        super().resume_writing()
        self._drained()
        if self._running is not None:
            self._running.pressed(paused=False)

    # uvicorn's cycle

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Start what has waited in the pipeline, or an ASGI request at once."""
        if not isinstance(cycle, NativeExchange):
            self._asgi = cycle
            super()._start_asgi_task(cycle, app)
            return
        cycle.turn = True
        if cycle.whole:
            self._serve(cycle)
        elif cycle.refusal is not None:
            self._refuse(cycle)
        else:
            self._invite(cycle)

    def on_response_complete(self) -> None:
        """Go on with the pipeline, or rest until the next request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._see_out()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._rest()

    # The connection, as an exchange uses it

    @property
    def write_paused(self) -> bool:
        """See ``Line``."""
        return self.flow.write_paused

    def default_lines(self) -> bytes:
        """See ``Line``."""
        return self._road.default_lines(self.server_state.default_headers)

    def answered(self, exchange: NativeExchange) -> None:
        """See ``Line``."""
        if self._running is exchange:
            self._running = None
        if self._deaf:
            self.server_state.total_requests += 1
        else:
            self.on_response_complete()

    def hang_up(self) -> None:
        """Close, after a moment in which the rest of a request that was refused early comes to nothing.

        Bytes that arrive at a closed socket reset the connection, and the reset may overtake the answer.
        """
        if not self._awaited or not self.transport.can_write_eof():
            self.transport.close()
            self._see_out()
            return
        self._deaf = True
        self._stop_waiting()
        self.transport.write_eof()
        self._patience = self.loop.call_later(LINGER, self.transport.abort)

    # Requests

    def _serve(self, exchange: NativeExchange) -> None:
        inference = self._road.inference
        assert inference is not None
        self._running = exchange
        if exchange.refusal is not None or exchange.principal is None:
            refuse(exchange, exchange.inlet, exchange.refusal or BadRequest("the request cannot be read"), inference)
        else:
            inference.start(exchange, exchange.inlet, exchange.principal)

    def _authenticate_again(self, exchange: NativeExchange) -> None:
        """Ask once more for the key of a body that took its time: the key may have been revoked meanwhile."""
        inference = self._road.inference
        assert inference is not None
        if exchange.refusal is None:
            try:
                exchange.principal = inference.authenticate(exchange.headers)
            except WeirError as error:
                exchange.refusal = error

    def _invite(self, exchange: NativeExchange) -> None:
        """Tell a caller that waits for it that it may send the body."""
        if exchange.wants_continue:
            self.transport.write(_CONTINUE)

    def _refuse(self, exchange: NativeExchange) -> None:
        """Answer a request before its body is read; the connection cannot be used any more."""
        if exchange.turn and not exchange.whole:
            self._reading = None
            exchange.keep_alive = False
            self._serve(exchange)

    def _tired(self) -> None:
        """The request did not arrive in time."""
        self._patience = None
        reading = self._reading
        if reading is not None and not reading.turn:
            self._wait(self.body_timeout)  # it is we who do not read, until its turn comes
        elif self._awaited:
            self._give_up(RequestTimeout("the request did not arrive in time; the connection is closed"))
        else:
            self.transport.close()

    # Ends

    def _give_up(self, error: WeirError) -> None:
        """Answer a request that will never be whole and close; an answer that is being given may end first."""
        reading, running, asgi = self._reading, self._running, self._asgi
        if reading is not None and reading.turn:
            reading.refusal = error
            self._refuse(reading)
        elif running is not None:
            running.keep_alive = False
            self._deaf = True
        elif asgi is None or asgi.response_complete:
            self._bare_response(error)
        elif asgi is self.cycle and asgi.more_body:
            asgi.disconnected = True
            asgi.message_event.set()
            if asgi.response_started:
                self.transport.close()
                self._see_out()
            else:
                self._bare_response(error)
        else:
            asgi.keep_alive = False
            self._deaf = True

    def _bare_response(self, error: WeirError) -> None:
        """Answer without an exchange and close."""
        inference = self._road.inference
        identity = ""
        if inference is not None:
            request_id = inference.new_id()
            identity = ids.text(request_id)
            inference.log.failed(request_id, error)
        body = error_body(error, identity)
        self.transport.write(
            b"%s%scontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
            % (status_line(error.code), self.default_lines(), len(body), body)
        )
        self._awaited = Reading.BODY  # whatever it is, more of it may come
        self.hang_up()
