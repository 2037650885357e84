"""Bytes of callers end in an answer, never in an exception."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.edge.native import Road, WeirProtocol
from gateway.types import ids
from gateway.types.errors import Unauthorized
from tests.fakes.fuzz import Nothing, cut, strict_loop
from tests.fakes.raw_client import RawClient
from tests.fakes.transport import FakeTransport

Step = st.lists(st.integers(1, 60), max_size=12)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return one loop for all examples."""
    with strict_loop() as made:
        yield made


class Echo:
    """What ``WeirProtocol`` needs of ``Inference``; a whole request is answered with the size of its body."""

    max_body = 2_000

    def __init__(self) -> None:
        self.desk = Nothing()
        self.log = Nothing()
        self._ids = ids.RequestIds()

    def new_id(self) -> ids.RequestId:
        """Return an id."""
        return self._ids.new()

    def authenticate(self, headers: Any) -> Any:
        """Let one key in."""
        if headers.get(b"authorization") != b"Bearer good":
            raise Unauthorized("no")
        return object()

    def start(self, exchange: Any, dialect: Any, principal: Any) -> None:
        """Answer, whole or streamed."""
        assert len(exchange.body) <= self.max_body
        if len(exchange.body) % 2:
            exchange.open(b"x-a: b\r\n")
            exchange.write(b"one")
            exchange.close(b"two")
        else:
            exchange.respond(200, b"", b"%d" % len(exchange.body))


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Read a request and answer 404."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


FRAGMENTS = [
    b"POST /v1/chat/completions HTTP/1.1\r\n",
    b"POST /api/v1/embeddings?x=%00 HTTP/1.1\r\n",
    b"POST /v1/completions HTTP/1.0\r\n",
    b"GET /v1/models HTTP/1.1\r\n",
    b"PUT /v1/chat/completions HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"CONNECT x:1 HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"Host: x\r\n",
    b"Authorization: Bearer good\r\n",
    b"Authorization: Bearer bad\r\n",
    b"Content-Length: 2\r\n",
    b"Content-Length: 3000\r\n",
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    b"X: a\r\n b\r\n",
    b"X\0: \xff\r\n",
    b"\r\n",
    b"{}",
    b"2\r\n{}\r\n",
    b"bb8\r\n" + b" " * 3000 + b"\r\n",
    b"0\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nContent-Length: 3\r\n\r\n{ }",
    b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{ }",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nTransfer-Encoding: chunked\r\n\r\n",
]
REQUESTS = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=12)), max_size=14).map(b"".join)


async def converse(pieces: list[bytes], *, leave: bool) -> FakeTransport:
    """Feed a connection and return its transport; ``leave``: the caller goes before the answers are there."""
    loop = asyncio.get_running_loop()
    road = Road()
    road.inference = Echo()  # type: ignore[assignment] # all of it that the protocol uses
    config = Config(application, log_config=None, lifespan="off", ws="none", access_log=False)
    protocol = WeirProtocol(config, ServerState(), {}, loop, road=road)
    transport = FakeTransport(loop, protocol)
    protocol.connection_made(transport)
    for number, piece in enumerate(pieces):
        if not transport.is_closing():
            protocol.data_received(piece)
        if number % 3 == 2:
            await asyncio.sleep(0)
    if leave:
        transport.lose(ConnectionResetError())
    for _ in range(40):
        await asyncio.sleep(0)
    if not transport.is_closing() and not protocol._deaf:
        protocol._tired()
    for _ in range(10):
        await asyncio.sleep(0)
    transport.lose()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        await task
    return transport


@given(REQUESTS, Step, st.booleans())
@example(FRAGMENTS[-3] * 3, [], False)
@example(FRAGMENTS[-3] + FRAGMENTS[-2] + FRAGMENTS[-3] + b"\0", [3, 200], False)
@example(FRAGMENTS[-2] + b"CONNECT x:1 HTTP/1.1\r\n\r\n", [], False)
@settings(deadline=None)
def test_any_bytes_of_a_caller_are_answered_in_http(
    loop: asyncio.AbstractEventLoop, data: bytes, steps: list[int], leave: bool
) -> None:
    """Whatever comes, in whatever pieces: what goes out is a row of valid responses, none of them a 500."""
    transport = loop.run_until_complete(converse(cut(data, steps), leave=leave))
    reader = RawClient(None, None)  # type: ignore[arg-type] # only its parser is used
    reader._parser.feed_data(bytes(transport.written))
    assert {each.status for each in reader.responses} <= {200, 400, 401, 404, 405, 408, 413, 415, 431}
    assert set(reader.informational) <= {100}
    assert all(each.complete for each in reader.responses[:-1])
    for each in reader.responses:
        if each.headers.get("content-type") == "application/json":
            assert each.document["error"]["code"] == each.status
