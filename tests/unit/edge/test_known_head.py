"""A connection that remembers its last head takes requests exactly as one that reads every head."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.edge.inference import PATHS
from gateway.edge.known_head import KnownHead
from gateway.edge.native import Road, WeirProtocol
from gateway.types import ids
from gateway.types.errors import Unauthorized
from tests.fakes.fuzz import Nothing, cut, strict_loop
from tests.fakes.transport import FakeTransport

CHAT = "POST /v1/chat/completions HTTP/1.1"
KEY = "Authorization: Bearer a"
LENGTH = "Content-Length: {0}"
HEADS = [
    "\r\n".join([*lines, "", ""])
    for lines in (
        [CHAT, "Host: x", KEY, LENGTH],
        [CHAT, "Host: x", KEY, "content-length:{0}", "X-A: 1"],
        ["POST /api/v1/chat/completions HTTP/1.1", "Host: x", "Authorization: Bearer b", LENGTH],
        [CHAT, "Host: x", KEY, LENGTH, "Connection: close"],
        ["POST /v1/chat/completions HTTP/1.0", KEY, LENGTH, "Connection: keep-alive"],
        [CHAT, "Host: x", KEY, "Expect: 100-continue", LENGTH],
        [CHAT, "Host: x", LENGTH, LENGTH, KEY],
        [CHAT, "Host: x", "X: y", " Content-Length: 1", LENGTH, KEY],
        ["GET /v1/models HTTP/1.1", "Host: x", LENGTH],
    )
]


_ID = re.compile(rb"gen-[0-9a-f]{32}")


class Scribe:
    """What ``WeirProtocol`` needs of ``Inference``; keeps what it was asked, and answers at once or never."""

    max_body = 40

    def __init__(self, *, forgetful: bool) -> None:
        self.desk = Nothing()
        self.log = Nothing()
        self.taken: list[tuple[Any, ...]] = []
        self._forgetful = forgetful
        self._ids = ids.RequestIds()

    def new_id(self) -> ids.RequestId:
        """Return an id."""
        return self._ids.new()

    def authenticate(self, headers: Any) -> Any:
        """Let two keys in."""
        key = headers.get(b"authorization", b"")
        if key not in {b"Bearer a", b"Bearer b"}:
            raise Unauthorized("no")
        return key

    def still(self, _principal: Any) -> bool:
        """Whether what is remembered may be used."""
        return not self._forgetful

    def start(self, exchange: Any, dialect: Any, principal: Any) -> None:
        """Answer whole."""
        headers = {name: value for name, value in exchange.headers.items() if name != b"content-length"}
        self.taken.append((exchange.path, headers, dialect, principal, exchange.body, exchange.keep_alive))
        exchange.respond(200, b"", b"%d" % len(exchange.body))


async def application(_scope: Any, receive: Any, send: Any) -> None:
    """Read a request and answer 404."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


async def converse(pieces: list[bytes], *, forgetful: bool) -> tuple[list[tuple[Any, ...]], bytes]:
    """Feed a connection; return what was asked of inference, and what the caller read."""
    loop = asyncio.get_running_loop()
    road = Road()
    scribe = Scribe(forgetful=forgetful)
    road.inference = scribe  # type: ignore[assignment] # all of it that the protocol uses
    config = Config(application, log_config=None, lifespan="off", ws="none", access_log=False)
    protocol = WeirProtocol(config, ServerState(), {}, loop, road=road)
    transport = FakeTransport(loop, protocol)
    protocol.connection_made(transport)
    for piece in pieces:
        if not transport.is_closing():
            protocol.data_received(piece)
        for _ in range(4):
            await asyncio.sleep(0)
    transport.lose()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        await task
    return scribe.taken, _ID.sub(b"gen", bytes(transport.written))


REQUEST = st.builds(
    lambda head, body, wrong: head.format(len(body) + wrong).encode() + body,
    st.sampled_from(HEADS),
    st.binary(max_size=45),
    st.sampled_from([0, 0, 0, 0, 0, 1, -1]),
)


READ = st.lists(REQUEST, min_size=1, max_size=3).map(b"".join)
"""What a caller sends at once: more than one request where it pipelines."""
OTHERS = [HEADS[place].format(2).encode() + b"{}" for place in (0, 2)]


@given(st.lists(st.tuples(READ, st.lists(st.integers(1, 200), max_size=3), st.integers(1, 3)), max_size=6))
@example([(HEADS[0].format(2).encode() + b"{}", [], 3), (HEADS[0].format(12).encode() + b"{          }", [], 2)])
@example([(OTHERS[0] + OTHERS[1], [], 1), (OTHERS[0], [], 2)])
@settings(deadline=None)
def test_a_remembered_head_means_what_it_meant(requests: list[tuple[bytes, list[int], int]]) -> None:
    """Whatever a caller sends, in whatever pieces, is taken and answered as by a connection that remembers nothing."""
    pieces = [piece for data, steps, times in requests for _ in range(times) for piece in cut(data, steps)]
    with strict_loop() as loop:
        remembering = loop.run_until_complete(converse(pieces, forgetful=False))
        forgetting = loop.run_until_complete(converse(pieces, forgetful=True))
    assert remembering == forgetting


def test_a_repeated_head_is_not_read_again() -> None:
    """The same head with another length is served without the parser; a body that came in two reads is not."""
    data = HEADS[0].format(2).encode() + b"{}"
    headers = {b"host": b"x", b"authorization": b"Bearer a", b"content-length": b"2"}
    known = KnownHead.of(data, b"/v1/chat/completions", headers, PATHS[b"/v1/chat/completions"], object())  # type: ignore[arg-type] # only kept
    assert known is not None
    assert known.body(HEADS[0].format(11).encode() + b"{         }", 40) == b"{         }"
    assert known.body(HEADS[0].format(0).encode(), 40) == b""
    assert known.body(HEADS[0].format(11).encode() + b"{        }", 40) is None
    assert known.body(HEADS[0].format(11).encode() + b"{         } ", 40) is None
    assert known.body(HEADS[0].format(41).encode() + b" " * 41, 40) is None
    assert known.body(HEADS[2].format(2).encode() + b"{}", 40) is None
    assert known.body(data.replace(b": 2", b": +2"), 40) is None
