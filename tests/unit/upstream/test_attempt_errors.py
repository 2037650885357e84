"""An error of a backend that does not come to its end is known by its status: nobody waits long for the rest."""

from __future__ import annotations

from time import monotonic

import pytest

from gateway.types.failure import Cause
from gateway.upstream.attempt import ERROR_TIME, MAX_ERROR, Attempt
from gateway.upstream.wire import Connection, Pool
from tests.fakes.attempt import asked
from tests.fakes.transport import FakeTransport

WORDS = b'{"error":{"message":"the pipeline has burst"}}'


def head(status: int, length: int) -> bytes:
    """Return the head of an answer with ``length`` bytes of JSON."""
    return b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, length)


@pytest.fixture
async def waiting() -> tuple[Attempt, Connection, FakeTransport, Pool]:
    """Return an attempt that waits for its answer, for an hour if need be."""
    return asked(first_byte=3600, idle=3600)


async def test_a_whole_error_leaves_its_connection_in_use(
    waiting: tuple[Attempt, Connection, FakeTransport, Pool],
) -> None:
    """Its words are kept, and the next request may go the same way."""
    attempt, connection, transport, pool = waiting
    connection.data_received(head(500, len(WORDS)) + WORDS)
    assert attempt.failure is not None
    assert (attempt.failure.status, attempt.failure.message) == (500, "the pipeline has burst")
    assert not transport.is_closing()
    assert pool.take() is connection


@pytest.mark.parametrize(("status", "cause"), [(503, Cause.OVERLOADED), (500, Cause.ERROR), (400, Cause.REFUSED)])
async def test_an_error_without_an_end_is_what_its_status_says(
    waiting: tuple[Attempt, Connection, FakeTransport, Pool], status: int, cause: Cause
) -> None:
    """Not the limit for a first byte: the replica did answer, and the request goes on or ends as after any error."""
    attempt, connection, transport, _ = waiting
    connection.data_received(head(status, 2 * len(WORDS)) + WORDS)
    assert not attempt.begun().done()
    assert attempt.deadline <= monotonic() + ERROR_TIME
    attempt.expire()
    assert attempt.begun().done()
    assert attempt.failure is not None
    assert (attempt.failure.status, attempt.failure.cause) == (status, cause)
    assert attempt.failure.message == "the pipeline has burst"
    assert transport.is_closing()


async def test_an_error_that_is_cut_is_what_its_status_says(
    waiting: tuple[Attempt, Connection, FakeTransport, Pool],
) -> None:
    """Not a broken answer: the replica said that it has none."""
    attempt, connection, _, _ = waiting
    connection.data_received(head(503, 2 * len(WORDS)) + WORDS)
    connection.connection_lost(None)
    assert attempt.failure is not None
    assert (attempt.failure.status, attempt.failure.cause) == (503, Cause.OVERLOADED)


async def test_an_error_that_is_too_long_is_not_read_to_its_end(
    waiting: tuple[Attempt, Connection, FakeTransport, Pool],
) -> None:
    """What came of it is enough."""
    attempt, connection, transport, _ = waiting
    connection.data_received(head(500, 10 * MAX_ERROR))
    connection.data_received(b"x" * MAX_ERROR)
    assert attempt.failure is None
    connection.data_received(b"x")
    assert attempt.failure is not None
    assert (attempt.failure.status, attempt.failure.cause) == (500, Cause.ERROR)
    assert transport.is_closing()


async def test_a_shorter_limit_is_not_made_longer(waiting: tuple[Attempt, Connection, FakeTransport, Pool]) -> None:
    """The first-byte limit of the request holds for errors too."""
    attempt, connection, _, _ = waiting
    soon = attempt.deadline = monotonic() + ERROR_TIME / 10
    connection.data_received(head(500, len(WORDS)))
    assert attempt.deadline == soon
