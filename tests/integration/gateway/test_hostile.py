"""What a hostile caller or backend may do costs it something, and the gateway nothing: no clock, no memory, no 500."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.sim import SimConfig, SimFleet
from tests.fakes.raw_client import BODY, CHAT, RawClient, head, post, raw_client
from tests.harness import Backend, Stage, chat_body, configuration, over, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Run one gateway for all tests here."""
    home = tmp_path_factory.mktemp("hostile")
    async with SimFleet([SimConfig(name="gpu-a")]) as fleet, staged(home, configuration(over(*fleet))) as running:
        yield running


def bearer(stage: Stage) -> dict[str, str]:
    """Return the header that authenticates."""
    return {"authorization": f"Bearer {stage.key}"}


# Callers


async def test_a_trailer_is_no_header(stage: Stage) -> None:
    """A key behind the body authenticates nobody: whoever checks heads in front of us must be able to rely on them."""
    chunked = b"%x\r\n%b\r\n0\r\nAuthorization: Bearer %b\r\n\r\n" % (len(BODY), BODY, stage.key.encode())
    async with raw_client(stage.port) as client:
        await client.send(head(CHUNKED, key="") + chunked)
        assert (await client.response()).status == 401
    admin = b"2\r\n{}\r\n0\r\nAuthorization: Bearer " + stage.key.encode() + b"\r\n\r\n"
    async with raw_client(stage.port) as client:
        await client.send(head(CHUNKED, key="", path="/api/v1/keys") + admin)
        assert (await client.response()).status == 401


@pytest.mark.parametrize("path", [CHAT, "/health", "/api/v1/keys"])
@pytest.mark.parametrize("what", ["trailers", "one trailer", "chunk extension"])
async def test_endless_framing_is_given_up(stage: Stage, path: str, what: str) -> None:
    """Bytes that are neither head nor body are bounded, with a key or without."""
    begin, more = {
        "trailers": (b"0\r\n", b"X-A: b\r\n" * 1000),
        "one trailer": (b"0\r\nX-A: ", b"b" * 8000),
        "chunk extension": (b"2;", b"b" * 8000),
    }[what]
    async with raw_client(stage.port) as client:
        await client.send(head(CHUNKED, key=stage.key, path=path) + begin)
        with pytest.raises(ConnectionError):
            await drowning(client, more)


async def drowning(client: RawClient, more: bytes) -> None:
    """Send ``more`` again and again for at most ten seconds, until the gateway has had enough."""
    async with asyncio.timeout(10):
        while True:
            await client.send(more)
            await asyncio.sleep(0.001)


async def test_a_refusal_waits_for_its_turn_only(stage: Stage) -> None:
    """A request without a key, pipelined behind another, is answered and its connection closed, body or no body."""
    async with raw_client(stage.port) as client:
        await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + head("Content-Length: 10", key=""))
        assert (await client.response(1)).status == 200
        assert (await client.response(2)).status == 401
        assert await client.closed()


async def test_a_key_revoked_while_the_body_comes_does_not_work(stage: Stage) -> None:
    """A body that takes its time is asked for its key again at the end."""
    issued = await stage.new_key()
    async with raw_client(stage.port) as client:
        await client.send(head(LENGTH, key=issued.key) + BODY[:-5])
        await asyncio.sleep(0.05)
        await stage.keeper.revoke_key(issued.record.key_id)
        await client.send(BODY[-5:])
        assert (await client.response()).status == 401


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/0.9"])
async def test_other_versions_are_400(stage: Stage, version: str) -> None:
    """Only what is spoken here is answered."""
    async with raw_client(stage.port) as client:
        await client.send(post(CHAT, BODY, stage.key).replace(b"HTTP/1.1", version.encode(), 1))
        assert (await client.response()).status == 400


async def test_two_encodings_in_two_headers_are_refused(stage: Stage) -> None:
    """As they are in one."""
    async with raw_client(stage.port) as client:
        await client.send(head("Transfer-Encoding: gzip", CHUNKED, key=stage.key) + b"2\r\n{}\r\n0\r\n\r\n")
        assert (await client.response()).status == 400


async def test_health_checkers_may_ask_with_head(stage: Stage) -> None:
    """The answer has no body."""
    async with raw_client(stage.port) as client:
        await client.send(b"HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(10):
            data = await client.reader.read()
    assert data.startswith(b"HTTP/1.1 200")
    assert data.endswith(b"\r\n\r\n")


async def test_many_keys_and_one_twice_are_read_once(stage: Stage) -> None:
    """The search for a double key does not grow with the square of the keys."""
    names = "".join(f'"k{number}":0,' for number in range(60_000))
    body = ("{" + names + '"k59999":1}').encode()
    async with asyncio.timeout(10):
        answer = await stage.http.post(stage.url + CHAT, content=body, headers=bearer(stage))
    assert answer.status_code == 400
    assert "k59999" in answer.json()["error"]["message"]


@pytest.mark.parametrize("depth", [129, 970, 976, 977, 978, 1000])
async def test_every_depth_too_deep_is_400(stage: Stage, depth: int) -> None:
    """There is no depth that can be read and not be written again."""
    nested = "[" * depth + "]" * depth
    body = json.dumps(chat_body())[:-1] + f', "tools": [{{"type": "function", "x": {nested}}}]}}'
    answer = await stage.http.post(stage.url + CHAT, content=body, headers=bearer(stage))
    assert answer.status_code == 400
    assert "too deeply" in answer.json()["error"]["message"]


# Backends


@asynccontextmanager
async def misbehaving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Run a backend that does ``serve`` with each connection; give the block its port."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize("what", ["headers", "one header", "informational answers"])
async def test_an_endless_head_of_a_backend_is_given_up(tmp_path: Path, what: str) -> None:
    """It costs the gateway a few hundred kilobytes, and the request moves on or ends in an error."""
    begin, more = {
        "headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 1000),
        "one header": (b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 8000),
        "informational answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 300),
    }[what]
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        line = await reader.readline()
        if not line.startswith(b"POST"):
            return
        writer.write(begin)
        while sent < 64_000_000:
            writer.write(more)
            sent += len(more)
            await writer.drain()

    async with misbehaving(serve) as port:
        config = configuration([Backend("gpu-a", f"http://127.0.0.1:{port}")])
        async with staged(tmp_path, config) as stage:
            answer = await stage.chat()
            assert answer.status_code == 502
    assert sent < 8_000_000


async def test_a_backend_that_closes_what_it_accepts_costs_no_request(tmp_path: Path) -> None:
    """Each request goes on to the replica that works, free of the retry budget."""

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with misbehaving(serve) as port, SimFleet([SimConfig(name="gpu-b")]) as fleet:
        config = configuration([Backend("gpu-a", f"http://127.0.0.1:{port}"), *over(*fleet)])
        async with staged(tmp_path, config) as stage:
            for _ in range(30):
                assert (await stage.chat()).status_code == 200
