"""The native road: uvicorn's HTTP protocol, with the inference paths taken out of ASGI.

Requests on inference paths are parsed, authenticated and answered on the transport itself; everything else goes on to
the ASGI application unchanged. What uvicorn's protocol expects of a request cycle (keep-alive, pipelining, graceful
shutdown) ``NativeExchange`` provides as well.

Failure behaviour: a body over the limit is refused before it is read; a request that does not arrive in time is
answered 408; bytes that are not HTTP are answered 400; each in the caller's error shape, and never in the middle of
another answer. A caller that takes no byte of its answer for ``Road.write_timeout`` is cut off.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.utils import is_ssl
from uvicorn.server import ServerState

from gateway.edge.answering import Answering, Terms
from gateway.edge.clocks import Reading
from gateway.edge.head import check_head, check_repeats, header_map, without_offer
from gateway.edge.inference import PATHS
from gateway.edge.known_head import KnownHead
from gateway.edge.native_exchange import NativeExchange, SharedExchange
from gateway.types.errors import BadRequest, WeirError

WRITE_HIGH: Final = 128 * 1024
"""Bytes waiting in a caller's transport at which its backend is paused."""
LEARNING: Final = 3
"""Heads that a connection remembers in vain before it stops trying."""
_VERSIONS: Final = ("1.1", "1.0")


class Road(Terms):
    """What all connections of a process share, and where uvicorn gets them from."""

    def protocol(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], **kept: Any
    ) -> WeirProtocol:
        """Make the protocol of one connection; uvicorn calls it as it would the protocol class."""
        return WeirProtocol(config, server_state, app_state, road=self, **kept)


class WeirProtocol(Answering):
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
        super().__init__(config, server_state, app_state, _loop, road)
        self._known: KnownHead | None = None
        self._fresh: NativeExchange | None = None
        self._patience_to_learn = LEARNING

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn declares it
        """Start the clock for the first head. What only ASGI wants to know of the connection waits until it asks."""
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        transport.set_write_buffer_limits(high=WRITE_HIGH)
        self._wait(self.header_timeout)

    def data_received(self, data: bytes) -> None:
        """Parse; refuse what cannot or need not be read further; keep the clock."""
        if self._deaf or (self._known is not None and self._again(data)):
            return
        began = not self._awaited
        self._parse(data)
        if self._fresh is not None:
            self._learn(data, began=began)
        if self._awaited and self.parser is not None and not self._deaf and not self.transport.is_closing():
            reading = self._reading
            if reading is not None and reading.refusal is not None and reading.turn:
                self._refuse(reading)
            else:
                self._watch(len(data))

    # httptools

    def on_message_begin(self) -> None:
        """A request starts; what only ASGI needs is made once the path is known to be ASGI's."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._awaited = Reading.HEAD

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the head. What stands behind a body (trailers) means nothing here: RFC 9110, 6.5.1."""
        if self._awaited is Reading.HEAD:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Take the request natively if its path is an inference path."""
        parser = self.parser
        version = parser.get_http_version()
        if version not in _VERSIONS:
            raise ValueError("a version of HTTP that is not spoken here")
        if parser.should_upgrade():
            if parser.get_method() == b"CONNECT":
                raise ValueError("nothing is handed on to others here, and the parser reads no more behind it")
            return  # the parser reads no body behind such an offer: see without_offer
        self._awaited = Reading.BODY
        path, _, _ = self.url.partition(b"?")
        inlet = PATHS.get(path)
        inference = self._road.inference
        method = parser.get_method()
        if inlet is None or inference is None or (method == b"OPTIONS" and self._road.cors.on):
            self._begin_asgi()
            return
        headers = header_map(self.headers)
        modern = version == "1.1"
        shared = b"origin" in headers and self._road.cors.on
        exchange = (SharedExchange if shared else NativeExchange)(
            self,
            inference.new_id(),
            path,
            headers,
            inlet,
            modern and parser.should_keep_alive(),
            modern,
            method == b"HEAD",
        )
        if isinstance(exchange, SharedExchange):
            exchange.shared = self._road.cors.lines(headers[b"origin"])
        try:
            if len(headers) != len(self.headers):
                check_repeats(self.headers)
            if modern and b"host" not in headers:
                raise BadRequest("the header host is missing")
            check_head(method, headers, inference.max_body)
            exchange.principal = inference.authenticate(headers)
        except WeirError as error:
            exchange.refusal = error
        else:
            exchange.wants_continue = self.expect_100_continue and modern
            if self._patience_to_learn and len(headers) == len(self.headers) and b"origin" not in headers:
                self._fresh = exchange
        previous, self.cycle = self.cycle, exchange  # type: ignore[assignment] # it provides what is used of a cycle
        self._reading = exchange
        if previous is None or previous.response_complete:
            exchange.turn = True
            self._invite(exchange)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type] # as above

    def on_body(self, body: bytes) -> None:
        """Collect the body of a native request."""
        self._fed = True
        reading = self._reading
        if reading is None:
            super().on_body(body)
        elif not reading.response_complete:
            assert self._road.inference is not None
            reading.receive(body, self._road.inference.max_body)

    def on_message_complete(self) -> None:
        """Serve a native request once it is whole and its turn has come."""
        if self._awaited is Reading.HEAD:
            return  # an offer to upgrade
        late = self._came()
        reading, self._reading = self._reading, None
        if reading is None:
            super().on_message_complete()
            return
        if reading.response_complete:
            return
        reading.complete(monotonic())
        if late:
            self._authenticate_again(reading)
        if reading.turn:
            self._serve(reading)

    # Internals

    def _again(self, data: bytes) -> bool:
        """Serve a request that came whole in one read under the head the last one had; return whether it was one."""
        known, cycle, inference = self._known, self.cycle, self._road.inference
        if known is None or inference is None or self._awaited or not (cycle is None or cycle.response_complete):
            return False
        body = known.body(data, inference.max_body)
        if body is None or not inference.still(known.principal):
            return False
        self._patience_to_learn = LEARNING
        if self._patience is not None:
            self._stop_waiting()
        exchange = NativeExchange(self, inference.new_id(), known.path, known.headers, known.inlet)
        exchange.principal = known.principal
        exchange.turn = exchange.whole = True
        exchange.arrived = monotonic()
        exchange.body = body
        self.cycle = self._running = exchange  # type: ignore[assignment] # it provides what is used of a cycle
        inference.start(exchange, known.inlet, known.principal)
        return True

    def _learn(self, data: bytes, *, began: bool) -> None:
        """Remember the head of the request that was just read, if ``data`` ``began`` with it."""
        exchange, self._fresh = self._fresh, None
        if exchange is None or exchange.principal is None or not began or not exchange.repeatable:
            return
        self._patience_to_learn -= 1
        self._known = KnownHead.of(data, exchange.path, exchange.headers, exchange.inlet, exchange.principal)

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                if self._awaited is not Reading.HEAD:
                    return
                data = without_offer(self.parser, self.url, self.headers) + data[offer.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError:
                self._give_up(BadRequest("this is not valid HTTP; check the length headers and the framing"))
                return

    def _begin_asgi(self) -> None:
        transport = self.transport
        if self.scheme is None:
            self.scheme = "https" if is_ssl(transport) else "http"
            # Here and not for each connection, as uvicorn does it: an inference request never wants to know.
            self.server = _address(transport.get_extra_info("sockname"))
            self.client = _address(transport.get_extra_info("peername"))
        self.scope = {  # type: ignore[typeddict-item] # the base class completes it
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        super().on_headers_complete()


def _address(name: object) -> tuple[str, int] | None:
    """Return host and port of what a transport calls an address, or None for one that has no port."""
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
