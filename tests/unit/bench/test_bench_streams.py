"""Promises of the mock and the streaming client: every chunk is timed, and a broken stream never counts."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from bench import streams
from bench.load import Target
from bench.mock import Replica
from bench.payload import CHUNKS, chat_body, stamped
from bench.streams import StreamError


async def _answers(target: Target, answer: bytes) -> tuple[asyncio.Server, Target]:
    """Serves `answer` to every request, then closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    return server, Target(target.host, port, target.path, target.model, target.headers)


@pytest.mark.parametrize("mode", ["burst", "drip", "ttft20"])
async def test_every_chunk_of_every_stream_is_timed(mode: str, target: Target, replica: Replica) -> None:
    """Streams on kept connections give one delay per chunk and one first chunk per stream."""
    seen = await streams.play(target, mode, at_once=3, each=2, spread=0.01, limit=30)
    assert seen.streams == 6
    assert len(seen.chunk_delays) == 6 * CHUNKS
    assert len(seen.first_chunks) == 6
    assert replica.running == 0
    assert replica.served == 6
    if mode != "burst":
        assert min(seen.chunk_delays) > 0


async def test_the_first_chunk_waits_for_the_mock(target: Target) -> None:
    """`ttft20` measures at least the mock's own 20 ms (less a millisecond of timer rounding)."""
    seen = await streams.play(target, "ttft20", at_once=1, each=3, spread=0, limit=30)
    assert min(seen.first_chunks) >= 0.019


async def test_the_mock_answers_as_vllm_does(target: Target) -> None:
    """JSON answer, stream with usage only when asked, the pages routers ask for."""
    async with httpx.AsyncClient(base_url=f"http://{target.host}:{target.port}", trust_env=False) as client:
        answer = (await client.post(target.path, content=chat_body("json", "m"))).json()
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["total_tokens"] == sum(
            answer["usage"][part] for part in ("prompt_tokens", "completion_tokens")
        )
        asked = (await client.post(target.path, content=chat_body("burst", "m"))).text
        plain = chat_body("burst", "m").replace(b'"include_usage":true', b'"include_usage":false')
        unasked = (await client.post(target.path, content=plain)).text
        assert asked.count("data: ") == CHUNKS + 3
        assert unasked.count("data: ") == CHUNKS + 2
        assert '"usage":{' in asked
        assert '"usage":{' not in unasked
        more = chat_body("burst", "m").replace(
            b'"include_usage":true', b'"include_usage":true,"continuous_usage_stats":true'
        )
        events = [
            json.loads(line[6:]) for line in (await client.post(target.path, content=more)).text.split("\n\n")[:CHUNKS]
        ]
        assert [event["usage"]["completion_tokens"] for event in events] == list(range(1, CHUNKS + 1))
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/v1/models")).json()["data"][0]["max_model_len"] == 40_960
        assert "vllm:num_requests_running{" in (await client.get("/metrics")).text
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.post(target.path, content=b'{"no": "mode"}')).status_code == 400


async def test_requests_split_at_any_byte_are_understood(target: Target) -> None:
    """The mock's small parser waits for whole heads and bodies, and takes several in one read."""
    request = streams.request_for(target, "json")
    for at in (1, 20, request.index(b"\r\n\r\n") + 2, len(request) - 1):
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(request[:at])
        await asyncio.sleep(0.02)
        writer.write(request[at:] + request)
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert b'"chat.completion"' in await reader.readexactly(length)
        writer.close()


async def test_open_streams_are_held_and_sampled(target: Target, replica: Replica) -> None:
    """All streams are open while the samples are taken, and closed after."""
    largest = await streams.hold(target, count=70, seconds=0.3, limit=30, sample=lambda: replica.running)
    assert largest == 70
    async with asyncio.timeout(10):
        while replica.running:
            await asyncio.sleep(0.01)


async def test_a_reader_that_does_not_read_pauses_the_mock(target: Target, replica: Replica) -> None:
    """The flood waits for its reader instead of filling memory; the growth of the sample is returned."""
    samples = iter([10.0, 12.0, 11.0])
    grown = await streams.stall(target, seconds=0.25, sample=lambda: next(samples, 11.0))
    assert grown == 2.0
    async with asyncio.timeout(10):
        while replica.running:
            await asyncio.sleep(0.01)


_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_WHOLE = b"".join(stamped(1) for _ in range(CHUNKS))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "not a success: .*503"),
        (_HEAD + _WHOLE, "connection ended"),
        (_HEAD + stamped(1) + b"data: [DONE]\n\n\r\n0\r\n\r\n", f"1 of {CHUNKS} chunks"),
        (b"", "connection ended"),
    ],
    ids=["refused", "cut before the end mark", "chunks missing", "closed at once"],
)
async def test_a_broken_stream_is_an_error(answer: bytes, reason: str, target: Target) -> None:
    """What is refused, cut or incomplete fails the load with its reason."""
    server, broken = await _answers(target, answer)
    async with server:
        with pytest.raises(StreamError, match=reason):
            await streams.play(broken, "drip", at_once=1, each=1, spread=0, limit=10)


async def test_a_stream_may_end_with_its_connection(target: Target) -> None:
    """A gateway that closes after the end mark, without a last frame, has delivered the stream."""
    server, closing = await _answers(target, b"HTTP/1.1 200 OK\r\n\r\n" + _WHOLE + b"data: [DONE]\n\n")
    async with server:
        seen = await streams.play(closing, "drip", at_once=1, each=2, spread=0, limit=10)
    assert seen.streams == 2


async def test_a_refused_slow_reader_is_an_error(target: Target) -> None:
    """No growth because of an error answer must not look like good back-pressure."""
    server, broken = await _answers(target, b"HTTP/1.1 429 Too Many Requests\r\n\r\n")
    async with server:
        with pytest.raises(StreamError, match="429"):
            await streams.stall(broken, seconds=0.1, sample=lambda: 0.0)
