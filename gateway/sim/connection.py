"""One client connection: HTTP/1.1 in, whole answers and chunked streams out.

Requests that arrive while one is being answered wait their turn. A closed connection (also a half-closed one) tells the
exchange under way at once. Bytes that are not HTTP get a 400 and the connection ends.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import Protocol, cast

import httptools

from gateway.sim.wire import LAST_CHUNK, Reply, Request, head, http_chunk

_RESET = struct.pack("ii", 1, 0)
_RESET_DELAY = 0.02
"""Seconds between the last bytes and a reset: a reset at once would overtake them."""


class Exchange(Protocol):
    """The request being answered."""

    def on_disconnect(self) -> None:
        """The client is gone."""

    def hold(self) -> None:
        """The client does not read: write no more."""

    def resume(self) -> None:
        """The client reads again."""


class Host(Protocol):
    """What a connection needs of its server."""

    loop: asyncio.AbstractEventLoop
    server_name: str
    keep_alive: float | None
    max_body_bytes: int

    def opened(self, connection: Connection) -> bool:
        """Note a new connection; False resets it at once."""

    def closed(self, connection: Connection) -> None:
        """Note that a connection is gone."""

    def serve(self, connection: Connection, request: Request) -> None:
        """Answer a request, now or later."""


class Connection(asyncio.Protocol):
    """See the module; ``exchange`` is set by whoever answers over time, ``paused``: the client does not read."""

    __slots__ = (
        "_backlog",
        "_body",
        "_busy",
        "_headers",
        "_host",
        "_idle",
        "_parser",
        "_request",
        "_size",
        "_target",
        "_too_big",
        "_transport",
        "exchange",
        "paused",
    )

    def __init__(self, host: Host) -> None:
        self._host = host
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._backlog: deque[Request] = deque()
        self._busy = False
        self._idle: asyncio.TimerHandle | None = None
        self._request: Request | None = None
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0
        self._too_big = False
        self.exchange: Exchange | None = None
        self.paused = False

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or reset it when the server refuses connections."""
        # uvloop's transports do not derive from asyncio's, they only have the same methods.
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._host.opened(self):
            self.reset()
            return
        self._wait_idle()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; its callbacks below collect the request."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request was handed over before this is raised; the offer to upgrade is not taken up.
            return
        except httptools.HttpParserError:
            self.answer(Reply(400, b"Bad Request", "text/plain"), keep_alive=False)

    def pause_writing(self) -> None:
        """Tell the exchange that the client does not read."""
        self.paused = True
        if self.exchange is not None:
            self.exchange.hold()

    def resume_writing(self) -> None:
        """Tell the exchange that the client reads again."""
        self.paused = False
        if self.exchange is not None:
            self.exchange.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop whatever is being made for this client."""
        del exc
        self._stop_idle()
        self._transport = None
        self._backlog.clear()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.on_disconnect()
        self._host.closed(self)

    # The parser's side.

    def on_message_begin(self) -> None:
        """Start a new request."""
        self._stop_idle()
        self._target = b""
        self._headers = []
        self._body = []
        self._size = 0
        self._too_big = False

    def on_url(self, url: bytes) -> None:
        """Collect the request target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Note what the request line said, and invite the body where the client waits for that."""
        path, _, query = self._target.partition(b"?")
        self._request = Request(
            method=self._parser.get_method().decode("ascii"),
            path=path.decode("latin-1"),
            query=query.decode("latin-1"),
            headers=self._headers,
            body=b"",
            keep_alive=self._parser.should_keep_alive(),
            chunked=self._parser.get_http_version() != "1.0",
        )
        if self._request.header(b"expect") is not None and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Collect the body, up to the limit."""
        self._size += len(body)
        if self._size > self._host.max_body_bytes:
            self._body.clear()
            if not self._too_big:
                self._too_big = True
                self.answer(Reply(413, b"Payload Too Large", "text/plain"), keep_alive=False)
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Serve the request, or let it wait for the one before it."""
        request, self._request = self._request, None
        if request is None or self._too_big:
            return
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if self._busy:
            self._backlog.append(request)
            return
        self._busy = True
        self._host.serve(self, request)

    # The server's side.

    def write(self, data: bytes) -> None:
        """Send raw bytes."""
        if self._transport is not None:
            self._transport.write(data)

    def start(self, request: Request, status: int, content_type: str, headers: tuple[tuple[str, str], ...]) -> bytes:
        """Return the head of a streamed answer, to be written before its first part."""
        return head(
            status,
            content_type,
            headers,
            server=self._host.server_name,
            length=None,
            chunked=request.chunked,
            keep_alive=request.keep_alive and request.chunked,
        )

    def part(self, request: Request, data: bytes, *, last: bool = False) -> bytes:
        """Return ``data`` as a part of a streamed answer; ``last`` adds the end of the body."""
        if not request.chunked:
            return data
        framed = http_chunk(data) if data else b""
        return framed + LAST_CHUNK if last else framed

    def answer(self, reply: Reply, *, keep_alive: bool = True, sent: float = 1.0) -> None:
        """Send a whole answer and go on to the next request; ``sent`` below 1 leaves the rest of the body out."""
        first = head(
            reply.status,
            reply.content_type,
            reply.headers,
            server=self._host.server_name,
            length=len(reply.body),
            chunked=True,
            keep_alive=keep_alive,
        )
        body = reply.body if sent >= 1.0 else reply.body[: int(len(reply.body) * sent)]
        self.write(first + body)
        if sent >= 1.0:
            self.done(keep_alive=keep_alive)

    def done(self, *, keep_alive: bool) -> None:
        """Note that the answer is complete: serve the next request, wait for one, or close."""
        self.exchange = None
        if not keep_alive:
            self.close()
            return
        self._busy = False
        if self._backlog:
            self._host.loop.call_soon(self._next)
        else:
            self._wait_idle()

    def close(self) -> None:
        """End the connection with FIN once everything written has left."""
        if self._transport is not None:
            self._transport.close()

    def reset(self, *, soon: bool = False) -> None:
        """End the connection with RST; ``soon`` lets bytes already written get through first."""
        if soon:
            self._host.loop.call_later(_RESET_DELAY, self.reset)
            return
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def _next(self) -> None:
        if self._backlog and not self._busy and self._transport is not None:
            self._busy = True
            self._host.serve(self, self._backlog.popleft())

    def _wait_idle(self) -> None:
        if self._host.keep_alive is not None:
            self._idle = self._host.loop.call_later(self._host.keep_alive, self.close)

    def _stop_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
