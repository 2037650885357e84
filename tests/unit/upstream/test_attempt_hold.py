"""What comes of a stream before anybody takes it: little, in order, and never so much that it costs memory."""

from __future__ import annotations

import math

import pytest

from gateway.types.chunk import Chunk, ListSink, TextChunk
from gateway.upstream.attempt import HOLD, Attempt
from gateway.upstream.wire import Connection, Pool
from tests.fakes.attempt import asked
from tests.fakes.transport import FakeTransport

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"data: [DONE]\n\n"


def event(number: int, size: int) -> bytes:
    """Return one event with a text of ``size`` characters."""
    text = f"{number}".ljust(size, "x")
    return b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text.encode()


def frame(data: bytes) -> bytes:
    """Return one piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture
async def begun() -> tuple[Attempt, Connection, FakeTransport, Pool]:
    """Return an attempt whose answer has begun, and that nobody takes yet."""
    attempt, connection, transport, pool = asked(first_byte=60, idle=60)
    connection.data_received(HEAD + frame(event(0, 10)))
    assert attempt.begun().done()
    assert not transport.paused
    return attempt, connection, transport, pool


def texts(chunks: list[Chunk]) -> list[str]:
    """Return the first character of each piece of text."""
    return [str(chunk.choices[0].delta.content)[0] for chunk in chunks if isinstance(chunk, TextChunk)]


async def test_a_flood_that_nobody_takes_yet_is_not_read(
    begun: tuple[Attempt, Connection, FakeTransport, Pool],
) -> None:
    """Beyond ``HOLD`` the backend waits for the sink, is not idle meanwhile, and loses nothing."""
    attempt, connection, transport, _ = begun
    connection.data_received(frame(event(1, HOLD)))
    assert transport.paused
    assert attempt.deadline == math.inf
    chunks: list[Chunk] = []
    attempt.attach(ListSink(chunks.extend))
    assert not transport.paused
    assert attempt.deadline < math.inf
    connection.data_received(frame(event(2, 10)) + frame(END) + b"0\r\n\r\n")
    assert texts(chunks) == ["0", "1", "2"]
    assert attempt.over
    assert attempt.failure is None


async def test_a_caller_that_is_full_already_keeps_the_flood_paused(
    begun: tuple[Attempt, Connection, FakeTransport, Pool],
) -> None:
    """Whichever of the two ends first, the backend is read again only when both have."""
    attempt, connection, transport, _ = begun
    attempt.pause()
    connection.data_received(frame(event(1, HOLD)))
    attempt.attach(ListSink(lambda chunks: None))
    assert transport.paused
    attempt.resume()
    assert not transport.paused


async def test_a_caller_that_reads_does_not_end_the_wait_for_the_sink(
    begun: tuple[Attempt, Connection, FakeTransport, Pool],
) -> None:
    """The other order of the two."""
    attempt, connection, transport, _ = begun
    attempt.pause()
    connection.data_received(frame(event(1, HOLD)))
    attempt.resume()
    assert transport.paused
    attempt.attach(ListSink(lambda chunks: None))
    assert not transport.paused


async def test_a_sink_that_is_filled_by_what_waited_keeps_the_backend_paused(
    begun: tuple[Attempt, Connection, FakeTransport, Pool],
) -> None:
    """Its caller says so while it takes what waited."""
    attempt, connection, transport, _ = begun
    connection.data_received(frame(event(1, HOLD)))
    attempt.attach(ListSink(lambda chunks: attempt.pause()))
    assert transport.paused


async def test_an_answer_that_ends_while_it_waits_gives_its_connection_back_readable(
    begun: tuple[Attempt, Connection, FakeTransport, Pool],
) -> None:
    """A whole answer may come in the very read that was too much."""
    _, connection, transport, pool = begun
    connection.data_received(frame(event(1, HOLD)) + frame(END) + b"0\r\n\r\n")
    assert pool.take() is connection
    assert not transport.paused


@pytest.mark.parametrize("paused", [False, True])
async def test_the_limit_of_the_first_byte_stays_when_reading_goes_on(paused: bool) -> None:
    """A caller that leaves a request which is to run on anyway, or is slow with what came before, shortens nothing."""
    attempt, connection, _, _ = asked(first_byte=600, idle=1)
    before = attempt.deadline
    if paused:
        attempt.pause()
        assert attempt.deadline == math.inf
    attempt.resume()
    assert before <= attempt.deadline < before + 60
    connection.data_received(HEAD + frame(event(0, 10)))
    assert attempt.deadline < before - 500
