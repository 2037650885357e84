"""Promises of the calm load: it keeps its pace, counts whole answers, and a failed one never counts."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from bench.calm import CalmError, ask_calmly, is_whole
from bench.load import Target
from bench.mock import Replica

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"


async def test_as_many_answers_as_were_asked_for_no_faster_than_that(target: Target, replica: Replica) -> None:
    """The last request is not sent before its turn, whoever may be able to answer all at once."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await ask_calmly(target, per_s=100, seconds=0.5, limit=60) == 50
    assert replica.served == 50
    assert loop.time() - begun >= 0.48


@pytest.mark.parametrize("answer", [b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n", HEAD + b"{", b""])
async def test_what_is_no_whole_success_fails_the_load(answer: bytes) -> None:
    """An error, an answer that is cut, none at all."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):  # a connection whose turn never came
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1], "/v1/chat/completions", "m", {})
        with pytest.raises(CalmError):
            await ask_calmly(target, per_s=100, seconds=0.1, limit=60)


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (HEAD + b"{}", True),
        (HEAD + b"{", False),
        (HEAD[:-2], False),
        (CHUNKED, False),
        (CHUNKED + b"0\r\n\r\n", True),
    ],
)
def test_an_answer_is_whole_by_its_length_or_its_last_chunk(answer: bytes, whole: bool) -> None:
    """Names of headers in any case."""
    assert is_whole(answer) is whole
