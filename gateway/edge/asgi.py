"""The plain ASGI road: the same inference handlers behind any ASGI server, and in tests without one.

Slower than the native road (a task and a queue a request) and otherwise equal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import monotonic
from typing import Any, Final

from gateway.edge.head import check_head, check_repeats, header_map, too_large
from gateway.edge.inference import PATHS, Inference, Inlet, refuse
from gateway.edge.native import Road
from gateway.types.errors import BadRequest, Unavailable, WeirError
from gateway.types.ids import RequestId
from gateway.types.reply import Flow

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

QUEUE_HIGH: Final = 128 * 1024
"""Bytes waiting for the server at which the backend is paused."""


class AsgiExchange:
    """See ``gateway.edge.exchange.Exchange``. Messages queue up here and ``pump`` sends them."""

    def __init__(self, request_id: RequestId, path: bytes, headers: Mapping[bytes, bytes]) -> None:
        self._flow: Flow | None = None
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue()
        self._queued = 0
        self._spoke = False
        self._head: Message | None = None
        self.request_id = request_id
        self.path = path
        self.headers = headers
        self.body = b""
        self.gone = False
        self.arrived = 0.0
        self.begun = False

    def steer(self, flow: Flow) -> None:
        """See ``Exchange``."""
        self._flow = flow
        if self.gone:
            flow.abort()

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """See ``Exchange``."""
        lines = [*_pairs(headers), (b"content-length", b"%d" % len(body))]
        self._put({"type": "http.response.start", "status": status, "headers": lines}, 0)
        self._put({"type": "http.response.body", "body": body, "more_body": False}, 0)
        self._queue.put_nowait(None)

    def open(self, headers: bytes) -> None:
        """See ``Exchange``."""
        self.begun = True
        self._put({"type": "http.response.start", "status": 200, "headers": _pairs(headers)}, 0)

    def write(self, data: bytes) -> None:
        """See ``Exchange``."""
        self._spoke = True
        self._put({"type": "http.response.body", "body": data, "more_body": True}, len(data))
        if self._queued > QUEUE_HIGH and self._flow is not None:
            self._flow.pause()

    def framed(self) -> None:
        """See ``Exchange``: the server makes the pieces."""

    @property
    def silent(self) -> bool:
        """See ``Patient``."""
        return not self._spoke

    def comment(self, data: bytes) -> None:
        """See ``Patient``."""
        self._put({"type": "http.response.body", "body": data, "more_body": True}, len(data))

    def close(self, data: bytes) -> None:
        """See ``Exchange``."""
        self._put({"type": "http.response.body", "body": data, "more_body": False}, 0)
        self._queue.put_nowait(None)

    def lost(self) -> None:
        """The caller has left."""
        self.gone = True
        if self._flow is not None:
            self._flow.abort()

    async def pump(self, send: Send) -> None:
        """Send what is queued until the response is over."""
        while (message := await self._queue.get()) is not None:
            await send(message)
            size = len(message.get("body", b"")) if message.get("more_body") else 0
            before, self._queued = self._queued, self._queued - size
            if before > QUEUE_HIGH >= self._queued and self._flow is not None:
                self._flow.resume()

    def _put(self, message: Message, size: int) -> None:
        self._queued += size
        self._queue.put_nowait(message)


class InferenceApp:
    """ASGI application for the inference paths; any other path goes on to ``other``."""

    def __init__(self, road: Road, other: App) -> None:
        self._road = road
        self._other = other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        path = scope.get("raw_path") or scope.get("path", "").encode()
        inlet = PATHS.get(path.partition(b"?")[0]) if scope["type"] == "http" else None
        inference = self._road.inference
        if inlet is None:
            await self._other(scope, receive, send)
            return
        if inference is None:
            raise Unavailable("the gateway is starting")
        exchange = AsgiExchange(inference.new_id(), path, header_map(scope["headers"]))
        pump = asyncio.ensure_future(exchange.pump(send))
        try:
            await _serve(inference, inlet, exchange, scope, receive)
            if not exchange.gone:
                await pump
        finally:
            pump.cancel()


async def _serve(inference: Inference, inlet: Inlet, exchange: AsgiExchange, scope: Scope, receive: Receive) -> None:
    """Read the request, and answer it while watching for its caller to leave."""
    method, pairs = scope["method"].encode("latin-1"), scope["headers"]
    try:
        if len(pairs) != len(exchange.headers):
            check_repeats(pairs)
        check_head(method, exchange.headers, inference.max_body)
        principal = inference.authenticate(exchange.headers)
        exchange.body = await _body(receive, inference)
        exchange.arrived = monotonic()
    except WeirError as error:
        refuse(exchange, inlet, error, inference)
        return
    watch = asyncio.ensure_future(_watch(receive, exchange))
    try:
        await inference.serve(exchange, inlet, principal)
    finally:
        watch.cancel()


async def _body(receive: Receive, inference: Inference) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("the caller left before its request was whole")
        part = message.get("body", b"")
        size += len(part)
        if size > inference.max_body:
            raise too_large(inference.max_body)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _watch(receive: Receive, exchange: AsgiExchange) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            exchange.lost()
            return


def _pairs(lines: bytes) -> list[tuple[bytes, bytes]]:
    return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines.split(b"\r\n") if line)]
