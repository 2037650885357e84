"""A thin HTTP/1.1 client for probes: small pages of one backend over one connection that is kept.

Made for many replicas asked every second: a request is bytes made once, an answer is parsed in the loop step in which
it arrives, and nothing else is done (no redirects, no cookies, no decompression, no proxies). It connects only to
addresses that the egress guard has checked. A connection that the backend closed while it was idle is replaced once;
whatever else goes wrong is ``NoAnswer`` with a reason for the operator, and the connection is closed.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from functools import cache
from typing import Final, cast
from urllib.parse import urlsplit

import httptools

from gateway.config.snapshot import BackendSpec
from gateway.engines.catalogue import ENGINES
from gateway.engines.kind import joined
from gateway.fleet.egress import EgressGuard

MAX_PAGE: Final = 1024 * 1024
"""Bytes of the longest answer that is read; a longer one says nothing."""
_FRAMED: Final = (b"content-length", b"transfer-encoding")


class NoAnswer(Exception):
    """No whole answer came; the message says why."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer.

    Attributes:
        status: of HTTP.
        body: empty when the answer is longer than ``MAX_PAGE``.
    """

    status: int
    body: bytes


class ProbeClient:
    """Asks one backend, one request at a time.

    Args:
        backend: who is asked, and the key that is presented.
        guard: resolves and checks the backend's host.
        connect_limit: seconds a connection may take to be made.
    """

    __slots__ = ("_base", "_connect_limit", "_connection", "_guard", "_head", "_host", "_port", "_requests", "_tls")

    def __init__(self, backend: BackendSpec, guard: EgressGuard, *, connect_limit: float) -> None:
        url = urlsplit(backend.url)
        self._guard = guard
        self._connect_limit = connect_limit
        self._base = url.path
        self._host = url.hostname or ""
        self._tls = url.scheme == "https"
        self._port = url.port or (443 if self._tls else 80)
        key = backend.api_key
        greeting = ENGINES[backend.kind].greeting(None if key is None else key.reveal())
        self._head = (
            f" HTTP/1.1\r\nhost: {url.netloc}\r\nuser-agent: weir-probe\r\naccept: */*\r\n"
            f"accept-encoding: identity\r\n{greeting}\r\n"
        )
        self._requests: dict[str, bytes] = {}
        self._connection: _Connection | None = None

    async def get(self, path: str, limit: float) -> Page:
        """GET the engine's ``path`` within ``limit`` seconds.

        Raises:
            NoAnswer: no whole answer came in time.
            EgressError: the backend's host may not or cannot be reached.
        """
        request = self._requests.get(path)
        if request is None:
            request = self._requests[path] = f"GET {joined(self._base, path)}{self._head}".encode("latin-1")
        try:
            async with asyncio.timeout(limit):
                return await self._asked(request)
        except TimeoutError:
            raise NoAnswer("it does not answer in time") from None

    async def close(self) -> None:
        """Close the connection; it is gone when this returns."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
            await connection.closed

    async def _asked(self, request: bytes) -> Page:
        """Send ``request`` over the kept connection, if it is still good, else over a new one."""
        # The guard is asked each time: what was allowed when the connection was made may be forbidden now.
        addresses = await self._guard.resolve(self._host, self._port)
        kept = self._connection
        if kept is not None and kept.usable and kept.address in addresses:
            try:
                return await kept.ask(request)
            except NoAnswer:
                if kept.touched:
                    raise
        if kept is not None:
            kept.abort()
        self._connection = await self._connected(addresses)
        return await self._connection.ask(request)

    async def _connected(self, addresses: tuple[tuple[str, int], ...]) -> _Connection:
        loop = asyncio.get_running_loop()
        failure = "no answer: the host has no address"
        ends = loop.time() + self._connect_limit
        for place, address in enumerate(addresses):
            try:
                # One that is silent must not use up what the others need.
                async with asyncio.timeout((ends - loop.time()) / (len(addresses) - place)):
                    _, connection = await loop.create_connection(
                        lambda where=address: _Connection(loop, where),
                        *address,
                        ssl=_trusted() if self._tls else None,
                        server_hostname=self._host if self._tls else None,
                    )
                return connection
            except TimeoutError:
                failure = "it does not accept connections in time"
            except ssl.SSLError as error:
                failure = f"no answer: TLS failed: {error.reason}"
            except OSError as error:
                failure = f"no answer: {error.strerror or type(error).__name__}"
        self._guard.doubt(self._host)
        raise NoAnswer(failure)


class _Connection(asyncio.Protocol):
    """One connection; carries one request at a time.

    Attributes:
        address: where it leads.
        closed: done when the connection has ended.
        touched: whether a byte of the current answer has come.
    """

    __slots__ = (
        "_answer",
        "_bare",
        "_keep",
        "_loop",
        "_parser",
        "_parts",
        "_size",
        "_status",
        "_transport",
        "_whole",
        "address",
        "closed",
        "touched",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, address: tuple[str, int]) -> None:
        self.address = address
        self.closed: asyncio.Future[None] = loop.create_future()
        self.touched = False
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Page] | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._status = 0
        self._bare = False
        self._keep = True
        self._whole = False

    @property
    def usable(self) -> bool:
        """Whether it may carry another request."""
        return self._keep and self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> Page:
        """Send ``request`` and return its answer; a caller that stops waiting closes the connection.

        Raises:
            NoAnswer: the connection broke, or what came is not HTTP.
        """
        assert self._transport is not None
        answer = self._answer = self._loop.create_future()
        self.touched = self._whole = False
        self._status = self._size = 0
        self._parts.clear()
        self._transport.write(request)
        try:
            page: Page = await answer
        except BaseException:
            self._answer = None
            self.abort()
            raise
        return page

    def abort(self) -> None:
        """Close at once."""
        self._keep = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because the transports of uvloop do not derive from those of asyncio.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.abort()  # bytes nobody asked for: the framing cannot be trusted any more
            return
        self.touched = True
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._whole:
                self._keep = False
            else:
                self._fail("no answer: what comes is not valid HTTP")
                return
        if self._whole:
            self._end(b"".join(self._parts))
        elif self._size > MAX_PAGE:
            self._keep = False
            self._end(b"")

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._status and self._bare and error is None:
            self._end(b"".join(self._parts))  # an answer that only the end of its connection delimits
        else:
            self._fail("no answer: it closes the connection")
        self.closed.set_result(None)

    # httptools

    def on_message_begin(self) -> None:
        if self._whole:
            raise ValueError("an answer nobody asked for")
        self._bare = True

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name.lower() in _FRAMED:
            self._bare = False

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self._status = status
            # Asked now: once the message is complete the parser has forgotten its flags.
            self._keep = self._keep and self._parser.should_keep_alive() and not self._bare

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._whole = self._status >= 200  # answers 1xx only come before one

    # Ends

    def _end(self, body: bytes) -> None:
        answer, self._answer = self._answer, None
        self._parts.clear()
        if answer is not None and not answer.done():
            answer.set_result(Page(self._status, body))
        if not self._keep:
            self.abort()

    def _fail(self, reason: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(NoAnswer(reason))
        self.abort()


@cache
def _trusted() -> ssl.SSLContext:
    """Return the system's certificates, loaded once: that takes longer than many probes."""
    return ssl.create_default_context()
