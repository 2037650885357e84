"""The HTTP/1.1 client of the data plane: pooled connections that hand each read straight to its receiver.

Callbacks instead of coroutines on purpose: between head and end no task is woken, so a chunk leaves in the same loop
step in which it arrived. Failure behaviour: every connection either delivers a whole message and returns to its pool,
or reports one ``lost`` and is closed; a receiver that has been detached is never called again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

import httptools

from gateway.types.failure import Cause, Failure
from gateway.upstream.deadlines import Deadlines

IDLE_LIMIT: Final = 4.0
"""Seconds an idle connection is kept: llama.cpp and uvicorn-based engines close theirs after 5."""
MAX_HEAD: Final = 256 * 1024
"""Bytes between two pieces of a body: heads, informational answers, chunk sizes, trailers."""
BULKY: Final = 64 * 1024
"""Bytes of a request over TLS, where nobody tells what was sent, that a backend may refuse without having read them."""
LINGER: Final = 1.0
"""Seconds a detached connection may take to end its message before it is closed instead of pooled."""
SILENT_S: Final = 30.0
"""Seconds for which an address that did not accept in its time is tried after the others of its name."""

Resolve = Callable[[str, int], Awaitable[tuple[tuple[str, int], ...]]]
"""Maps host and port to the addresses that may be connected to; raises ``AttemptFailed`` when none may."""


class AttemptFailed(Exception):
    """Carries a ``Failure`` up to where the attempt is decided about."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Receiver(Protocol):
    """Who gets the response of one request."""

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The status line and headers have come; names are lower-case."""

    def data(self, data: bytes) -> None:
        """Body bytes of one read have come."""

    def end(self) -> None:
        """The message is complete."""

    def lost(self, failure: Failure) -> None:
        """The connection broke before the message was complete."""


class Connection(asyncio.Protocol):
    """One connection to a backend; carries one request at a time.

    Attributes:
        on_piece: called once with a read and the piece of a body that it was, behind the receiver; or None.
        idle_since: monotonic seconds at which it came into its pool, 0 while it is not there.
        deadline: monotonic seconds until which a detached one may end its message.
        fresh: whether it has carried no request before the current one.
    """

    __slots__ = (
        "_bulky",
        "_complete",
        "_head_bytes",
        "_headers",
        "_informational",
        "_keep",
        "_parser",
        "_parts",
        "_paused",
        "_pool",
        "_receiver",
        "_started",
        "deadline",
        "fresh",
        "idle_since",
        "on_body",
        "on_piece",
        "transport",
    )

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._receiver: Receiver | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # the parser calls it with each piece of a body
        self._parser = httptools.HttpResponseParser(self)
        self.on_piece: Callable[[bytes, bytes], None] | None = None
        self._bulky = False
        self._head_bytes = 0
        self._started = False
        self._complete = True
        self._informational = False
        self._keep = False
        self._paused = False
        self.transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self.deadline = 0.0
        self.fresh = True

    # What attempts do with it

    def send(self, request: bytes, receiver: Receiver) -> None:
        """Send a whole request; its response goes to ``receiver``, as does the news that nothing can be sent."""
        transport = self.transport
        if transport is None or transport.is_closing():
            words = "the backend closed the connection before it was used"
            receiver.lost(Failure(Cause.RESET, words, sent=False))
            return
        self._receiver = receiver
        self._started = self._complete = False
        self._head_bytes = 0
        self._bulky = len(request) > BULKY and self._pool.encrypted
        transport.write(request)

    def detach(self) -> None:
        """Forget the receiver: pool the connection, now or when its message ends shortly."""
        self._receiver = self.on_piece = None
        if self._paused:
            self.resume()  # who paused it will not; nobody would read the answer to the next request
        if self._complete:
            self._pool.put(self)
        else:
            self.deadline = monotonic() + LINGER
            self._pool.deadlines.watch(self)

    def abort(self) -> None:
        """Close at once; the receiver hears nothing."""
        self._receiver = None
        if self.transport is not None:
            self.transport.abort()

    def expire(self) -> None:
        """A detached connection did not end its message in time."""
        self.abort()

    def pause(self) -> None:
        """Stop reading: the caller does not keep up."""
        self._paused = True
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    @property
    def deadlines(self) -> Deadlines:
        """Who watches time limits."""
        return self._pool.deadlines

    @property
    def usable(self) -> bool:
        """Whether an idle connection may carry another request."""
        return self._keep and self._complete and self.transport is not None and not self.transport.is_closing()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse one read and hand its body bytes over in one piece."""
        idle = self._complete
        if idle:
            self.abort()  # bytes nobody asked for: the framing cannot be trusted any more
            return
        broken = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            broken = True
        parts = self._parts
        if parts:
            self._head_bytes = 0
            body = parts.pop()
            if parts:
                body = b"".join(parts) + body
                parts.clear()
            if self._receiver is not None:
                self._receiver.data(body)
            if self.on_piece is not None:
                on_piece, self.on_piece = self.on_piece, None
                on_piece(data, body)
        else:
            self._head_bytes += len(data)
            broken = broken or self._head_bytes > MAX_HEAD
        if self._complete:
            if broken:
                self._keep = False  # what follows a whole answer is refused, not delivered
            self._finish()
        elif broken:
            self._break(Failure(Cause.MALFORMED, "the backend's answer is not valid HTTP"))

    def eof_received(self) -> None:
        """Let the transport close; ``connection_lost`` decides what that means."""

    def connection_lost(self, exc: Exception | None) -> None:
        """End a message that only the end of the connection delimits; report any other as lost."""
        self._pool.discard(self)
        del self._parser  # each knows the other: what they hold would wait for the garbage collector
        receiver, self._receiver = self._receiver, None
        if receiver is None or self._complete:
            return
        if not self._started:
            receiver.lost(Failure(Cause.RESET, "the backend closed the connection before it answered"))
        elif exc is None and _without_length(self._headers):
            self._complete = True
            receiver.end()
        else:
            receiver.lost(Failure(Cause.CUT, "the backend closed the connection in the middle of its answer"))

    # httptools callbacks

    def on_message_begin(self) -> None:
        """A response starts; a second one to the same request is refused as splitting."""
        if self._complete:
            raise ValueError("a response nobody asked for")
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers mean nothing here."""
        if not self._started:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Hand the head over; answers 1xx are skipped."""
        status = self._parser.get_status_code()
        self._informational = status < 200
        if self._informational:
            return
        self._started = True
        # Asked now: once the message is complete the parser has forgotten its flags. It is never true of an answer
        # that only the end of the connection ends.
        self._keep = self._parser.should_keep_alive() and not (self._bulky and status != 200)
        if self._receiver is not None:
            self._receiver.head(status, self._headers)

    def on_message_complete(self) -> None:
        """Note that the response is whole."""
        self._complete = not self._informational

    # Internals

    def _finish(self) -> None:
        receiver, keep, transport = self._receiver, self._keep, self.transport
        if transport is not None:
            if keep and transport.get_write_buffer_size():
                # It answered before it had the whole request: the next one would wait behind the rest of this.
                keep = self._keep = False
                transport.abort()
            elif not keep:
                transport.close()
        if receiver is not None:
            receiver.end()
        elif keep:
            self._pool.deadlines.forget(self)
            self._pool.put(self)

    def _break(self, failure: Failure) -> None:
        receiver, self._receiver = self._receiver, None
        if self.transport is not None:
            self.transport.abort()
        if receiver is not None:
            receiver.lost(failure)


def _without_length(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether only the end of the connection ends the body behind ``headers``."""
    return not any(name in {b"content-length", b"transfer-encoding"} for name, _ in headers)


class Pool:
    """Connections to one origin (scheme, host, port), newest idle one first.

    Attributes:
        host: host and port as the URL has them.
        path: of the URL, without a slash at its end.
    """

    __slots__ = (
        "_closed",
        "_hostname",
        "_idle",
        "_port",
        "_resolve",
        "_silent",
        "_tls",
        "deadlines",
        "host",
        "loop",
        "path",
    )

    def __init__(self, url: str, *, loop: asyncio.AbstractEventLoop, deadlines: Deadlines, resolve: Resolve) -> None:
        parts = urlsplit(url)
        self.loop = loop
        self.deadlines = deadlines
        self.host = parts.netloc.encode("ascii")
        self._hostname = parts.hostname or ""
        self.path = parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._resolve = resolve
        self._silent: dict[str, float] = {}
        self._idle: deque[Connection] = deque()
        self._closed = False

    @property
    def encrypted(self) -> bool:
        """Whether connections are made by TLS."""
        return self._tls is not None

    def take(self) -> Connection | None:
        """Return an idle connection that is still good, or None."""
        idle = self._idle
        if not idle:
            return None
        oldest = monotonic() - IDLE_LIMIT
        while idle:
            connection = idle.pop()
            good = connection.idle_since > oldest and connection.usable
            connection.idle_since = 0.0
            if good:
                connection.fresh = False
                return connection
            connection.abort()
        return None

    def put(self, connection: Connection) -> None:
        """Keep a connection whose message is complete, once; close those idle for too long."""
        if connection.idle_since or not connection.usable:
            return
        if self._closed:
            connection.abort()
            return
        now = monotonic()
        connection.idle_since = now
        idle = self._idle
        idle.append(connection)
        while idle[0].idle_since < now - IDLE_LIMIT:
            idle.popleft().abort()

    def discard(self, connection: Connection) -> None:
        """A connection has closed."""
        self.deadlines.forget(connection)

    async def connect(self, limit: float) -> Connection:
        """Open a connection within ``limit`` seconds, trying each allowed address. Raises ``AttemptFailed``.

        An address that is silent has but its share of the time, and for a while its turn behind the others.
        """
        failure = Failure(Cause.CONNECT, "the backend's name has no address", sent=False)
        late, now = "the name service did not answer", monotonic()
        try:
            async with asyncio.timeout(limit):
                addresses = await self._resolve(self._hostname, self._port)
                late = "the backend did not accept"
                turns = sorted(addresses, key=lambda each: self._silent.get(each[0], 0.0) > now)
                for place, (address, port) in enumerate(turns):
                    try:
                        async with asyncio.timeout((now + limit - monotonic()) / (len(turns) - place)):
                            return await self._opened(address, port)
                    except TimeoutError:
                        self._silent[address] = monotonic() + SILENT_S
                        failure = Failure(Cause.CONNECT, f"{late} within {limit:g} s", sent=False)
                    except ssl.SSLError as error:
                        failure = Failure(Cause.CONNECT, f"TLS with the backend failed: {error.reason}", sent=False)
                    except OSError as error:
                        failure = Failure(Cause.CONNECT, f"no connection to the backend: {error.strerror}", sent=False)
        except TimeoutError:
            failure = Failure(Cause.CONNECT, f"{late} within {limit:g} s", sent=False)
        raise AttemptFailed(failure)

    async def _opened(self, address: str, port: int) -> Connection:
        """Return a connection to one address. Raises ``OSError``."""
        name = self._hostname if self._tls else None
        made = self.loop.create_connection(lambda: Connection(self), address, port, ssl=self._tls, server_hostname=name)
        return (await made)[1]

    def close(self) -> None:
        """Close all idle connections now, and those in use once they are done."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()
