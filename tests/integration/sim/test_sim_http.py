"""The simulator as an HTTP/1.1 server."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec
import pytest


async def test_a_connection_serves_many_requests(start: Any, connect: Any, chat: Any) -> None:
    """Keep-alive: request after request on one connection, also several sent at once, answered in order."""
    sim = await start()
    client = await connect(sim.url)
    for number in range(1, 6):
        client.send("/v1/chat/completions", chat(max_tokens=number))
        answer = await client.read()
        assert msgspec.json.decode(answer.body)["usage"]["completion_tokens"] == number
    for number in range(1, 6):
        client.send("/v1/chat/completions", chat(max_tokens=number, stream=number % 2 == 0))
    data = b""
    async with asyncio.timeout(10):
        while data.count(b"HTTP/1.1 200") < 5 or not data.endswith(b"}"):
            data += await client.reader.read(65536)
    order = [len(text.split(b'"finish_reason":"length"')) for text in data.split(b"HTTP/1.1 200")[1:]]
    assert order == [2] * 5
    assert sim.books.totals.completed == 10


async def test_connection_close_is_honoured(start: Any, connect: Any, chat: Any) -> None:
    """With ``Connection: close`` the answer says so too and the connection ends."""
    sim = await start()
    for stream in (False, True):
        client = await connect(sim.url)
        client.send("/v1/chat/completions", chat(stream=stream), headers="Connection: close\r\n")
        raw = await client.rest()
        assert b"connection: close\r\n" in raw
        assert raw.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_http_1_0_gets_no_chunks(start: Any, connect: Any, chat: Any) -> None:
    """An old client gets a stream that ends with the connection, without chunk sizes in it."""
    sim = await start()
    client = await connect(sim.url)
    client.send("/v1/chat/completions", chat(stream=True, max_tokens=3), version="1.0")
    head, body = (await client.rest()).split(b"\r\n\r\n", 1)
    assert b"transfer-encoding" not in head
    assert body.startswith(b"data: {")
    assert body.endswith(b"data: [DONE]\n\n")


async def test_large_bodies_arrive_whole(start: Any, connect: Any, chat: Any) -> None:
    """Ten megabytes of prompt are read, counted and kept in the books, also when sent in chunks."""
    sim = await start(context_length=10_000_000)
    words = "river " * 1_700_000
    body = msgspec.json.encode(chat(words, max_tokens=1))
    assert len(body) > 10_000_000
    client = await connect(sim.url)
    client.send("/v1/chat/completions", body)
    answer = await client.read()
    assert msgspec.json.decode(answer.body)["usage"]["prompt_tokens"] == 1_700_004
    assert sim.books[0].raw_body == body
    client.writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: sim\r\nTransfer-Encoding: chunked\r\n\r\n")
    for place in range(0, len(body), 1_000_000):
        part = body[place : place + 1_000_000]
        client.writer.write(b"%x\r\n%b\r\n" % (len(part), part))
    client.writer.write(b"0\r\n\r\n")
    answer = await client.read()
    assert msgspec.json.decode(answer.body)["usage"]["prompt_tokens"] == 1_700_004


async def test_bodies_over_the_limit_are_refused(start: Any, connect: Any, chat: Any) -> None:
    """A body over ``max_body_bytes`` gets 413 and the connection ends."""
    sim = await start(max_body_bytes=1_000)
    client = await connect(sim.url)
    client.send("/v1/chat/completions", chat("river " * 1_000))
    assert (await client.rest()).startswith(b"HTTP/1.1 413 ")
    assert len(sim.books) == 0


async def test_bytes_that_are_not_http_get_400(start: Any, connect: Any) -> None:
    """Noise is answered with 400 and the connection ends."""
    sim = await start()
    client = await connect(sim.url)
    client.writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
    assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


async def test_a_client_that_asks_first_is_invited(start: Any, connect: Any, chat: Any) -> None:
    """``Expect: 100-continue`` gets its answer before the body is sent."""
    sim = await start()
    body = msgspec.json.encode(chat())
    client = await connect(sim.url)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: sim\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    client.writer.write(head % len(body))
    async with asyncio.timeout(10):
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.writer.write(body)
    assert (await client.read()).status == 200


async def test_paths_and_methods_that_do_not_exist(start: Any, client: Any) -> None:
    """Unknown paths are 404, known ones with the wrong method 405."""
    sim = await start()
    assert (await client.get(f"{sim.url}/v1/nothing")).status_code == 404
    assert (await client.get(f"{sim.url}/v1/chat/completions")).status_code == 405
    assert (await client.post(f"{sim.url}/health")).status_code == 405
    tgi = await start(kind="tgi")
    assert (await client.post(f"{tgi.url}/v1/embeddings", json={"input": "x"})).status_code == 404


async def test_idle_connections_are_closed_when_wanted(start: Any, connect: Any) -> None:
    """With ``keep_alive`` a connection without requests ends by itself."""
    sim = await start(keep_alive=0.05)
    client = await connect(sim.url)
    client.send("/health", method="GET")
    assert (await client.read()).status == 200
    assert await client.rest() == b""


async def test_small_parts_leave_at_once(start: Any) -> None:
    """Accepted sockets have Nagle's algorithm off."""
    sim = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: sim\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    (connection,) = sim._main.connections
    accepted = connection._transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    writer.close()


async def test_a_port_that_is_taken_is_an_error(start: Any) -> None:
    """Two backends cannot share a port; the second raises OSError and leaves nothing open."""
    sim = await start()
    with pytest.raises(OSError, match="in use"):
        await start(port=sim.port)
