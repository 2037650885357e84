"""The upstream client: whole messages or one failure, and no connection that could mix answers up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.types.failure import Cause, Failure
from gateway.upstream import wire
from gateway.upstream.deadlines import Deadlines
from gateway.upstream.wire import AttemptFailed, Connection, Pool
from tests.fakes.silence import HERE, SILENT, silent_beside
from tests.fakes.transport import FakeTransport

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


class Ear:
    """Hears one response; ``on_data`` may act on each piece."""

    def __init__(self, on_data: Callable[[], None] | None = None) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.ends = 0
        self.failures: list[Failure] = []
        self._on_data = on_data

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Keep the head."""
        assert not self.status
        self.status, self.headers = status, dict(headers)

    def data(self, data: bytes) -> None:
        """Keep the body."""
        self.body += data
        if self._on_data is not None:
            self._on_data()

    def end(self) -> None:
        """Count the end."""
        self.ends += 1

    def lost(self, failure: Failure) -> None:
        """Keep the failure."""
        self.failures.append(failure)


async def nowhere(host: str, port: int) -> tuple[tuple[str, int], ...]:
    """Resolve nothing."""
    return ()


async def here(host: str, port: int) -> tuple[tuple[str, int], ...]:
    """Resolve to this machine."""
    return (("127.0.0.1", port),)


@pytest.fixture
async def pool() -> Pool:
    """Return a pool that connects to nothing."""
    loop = asyncio.get_running_loop()
    return Pool("http://backend.example:8000/v1", loop=loop, deadlines=Deadlines(loop), resolve=nowhere)


def connected(pool: Pool) -> tuple[Connection, FakeTransport]:
    """Return a connection on a fake transport."""
    connection = Connection(pool)
    transport = FakeTransport(pool.loop, connection)
    connection.connection_made(transport)
    return connection, transport


def asked(pool: Pool, answer: bytes, *, step: int = 0) -> tuple[Connection, FakeTransport, Ear]:
    """Send a request and receive ``answer``, in pieces of ``step`` bytes or in one; at its end let go."""
    connection, transport = connected(pool)
    ear = Ear()
    connection.send(b"request", ear)
    step = step or len(answer) or 1
    for start in range(0, len(answer), step):
        connection.data_received(answer[start : start + step])
    if ear.ends:
        connection.detach()
    return connection, transport, ear


LENGTH = HEAD + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-Trailer: z\r\n\r\n"


@pytest.mark.parametrize(
    "answer", [LENGTH, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hi\r\nLink: x\r\n\r\n" + LENGTH]
)
@pytest.mark.parametrize("step", [0, 1, 7])
async def test_a_whole_message_is_delivered_once_and_the_connection_is_kept(
    pool: Pool, answer: bytes, step: int
) -> None:
    """However it is framed and cut, and whatever 1xx comes before it."""
    connection, transport, ear = asked(pool, answer, step=step)
    assert (ear.status, ear.body, ear.ends, ear.failures) == (200, b"hello", 1, [])
    assert ear.headers[b"content-type"] == b"text/plain"
    assert transport.written == b"request"
    assert pool.take() is connection
    assert not connection.fresh
    assert pool.take() is None
    again = Ear()
    connection.send(b"request", again)
    connection.data_received(answer)
    assert (again.body, again.ends) == (b"hello", 1)


async def test_a_receiver_that_leaves_with_the_last_bytes_gives_the_connection_back_once(pool: Pool) -> None:
    """Two requests must never get the same connection."""
    connection, transport = connected(pool)
    ear = Ear(on_data=connection.detach)
    connection.send(b"request", ear)
    connection.data_received(LENGTH)
    assert (ear.body, ear.ends) == (b"hello", 0)
    assert pool.take() is connection
    assert pool.take() is None
    assert not transport.is_closing()


async def test_a_connection_left_in_the_middle_is_kept_once_its_message_ends(pool: Pool) -> None:
    """The rest of a message nobody wants is read past, if it comes soon."""
    connection, transport = connected(pool)
    ear = Ear()
    connection.send(b"request", ear)
    connection.data_received(LENGTH[:-3])
    connection.detach()
    assert pool.take() is None
    connection.data_received(LENGTH[-3:])
    assert ear.body == b"he"
    assert pool.take() is connection
    assert not transport.is_closing()


async def test_a_connection_left_in_the_middle_is_closed_when_its_message_goes_on(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the end of an answer that nobody wants."""
    monkeypatch.setattr(wire, "LINGER", 0.01)
    connection, transport = connected(pool)
    connection.send(b"request", Ear())
    connection.data_received(LENGTH[:-3])
    connection.detach()
    async with asyncio.timeout(10):
        while not transport.aborted:
            await asyncio.sleep(0.01)
    assert pool.take() is None


@pytest.mark.parametrize("more", [LENGTH, b"HTTP/1.1 200 OK\r\n\r\n", b"rubbish"])
@pytest.mark.parametrize("together", [True, False])
async def test_a_second_response_to_one_request_is_refused(pool: Pool, more: bytes, together: bool) -> None:
    """Response splitting: what comes behind a whole message reaches nobody, and the connection is not used again."""
    if together:
        _, transport, ear = asked(pool, LENGTH + more)
    else:
        connection, transport, ear = asked(pool, LENGTH)
        connection.data_received(more)
    assert (ear.body, ear.ends, ear.failures) == (b"hello", 1, [])
    assert transport.is_closing()
    assert pool.take() is None


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
async def test_a_connection_the_backend_wants_closed_is_not_kept(pool: Pool, answer: bytes) -> None:
    """``Connection: close`` and HTTP/1.0 end with their message."""
    _, transport, ear = asked(pool, answer)
    assert (ear.body, ear.ends) == (b"hello", 1)
    assert transport.is_closing()
    assert pool.take() is None


@pytest.mark.parametrize(("error", "ends"), [(None, 1), (ConnectionResetError(), 0)])
async def test_a_body_without_length_ends_with_the_connection(pool: Pool, error: Exception | None, ends: int) -> None:
    """A clean end is the end of the body; a reset is a cut."""
    connection, transport, ear = asked(pool, HEAD + b"\r\nhel")
    connection.data_received(b"lo")
    transport.lose(error)
    assert (ear.body, ear.ends) == (b"hello", ends)
    assert [failure.cause for failure in ear.failures] == ([] if ends else [Cause.CUT])
    assert pool.take() is None


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"", Cause.RESET),
        (b"HTTP/1.1 200 OK\r\nContent-", Cause.RESET),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Cause.RESET),
        (LENGTH[:-1], Cause.CUT),
        (CHUNKED[:-5], Cause.CUT),
    ],
)
async def test_a_connection_that_breaks_is_one_failure(pool: Pool, answer: bytes, cause: Cause) -> None:
    """Before the head it is a reset, behind it a cut, and never an end."""
    _, transport, ear = asked(pool, answer)
    transport.lose()
    assert ([failure.cause for failure in ear.failures], ear.ends) == ([cause], 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
    ],
)
@pytest.mark.parametrize("step", [0, 1])
async def test_what_is_not_http_is_one_failure(pool: Pool, answer: bytes, step: int) -> None:
    """Framing that could be read in two ways is not read at all."""
    _, transport, ear = asked(pool, answer, step=step)
    assert ([failure.cause for failure in ear.failures], ear.ends) == ([Cause.MALFORMED], 0)
    assert transport.aborted


async def test_bytes_before_a_framing_error_are_delivered(pool: Pool) -> None:
    """One read or several: the same body comes before the failure."""
    for step in (0, 1):
        _, _, ear = asked(pool, HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz", step=step)
        assert ear.body == b"hello"
        assert [failure.cause for failure in ear.failures] == [Cause.MALFORMED]


async def test_answers_without_a_body_end_at_once(pool: Pool) -> None:
    """204 and 304 have none, whatever their headers say."""
    for status in (204, 304):
        _, _, ear = asked(pool, b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
        assert (ear.status, ear.body, ear.ends) == (status, b"", 1)


async def test_an_aborted_connection_tells_nobody(pool: Pool) -> None:
    """Who gave up does not want to hear of it."""
    connection, transport, ear = asked(pool, LENGTH[:-1])
    connection.abort()
    await asyncio.sleep(0)
    assert transport.aborted
    assert (ear.ends, ear.failures) == (0, [])


async def test_idle_connections_are_used_newest_first_and_not_for_ever(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that has idled too long, or was closed by the backend, is not used."""
    one, two, three = (asked(pool, LENGTH)[0] for _ in range(3))
    assert pool.take() is three
    assert two.transport is not None
    two.transport.close()
    assert pool.take() is one
    asked(pool, LENGTH)
    later = time.monotonic() + wire.IDLE_LIMIT + 1
    monkeypatch.setattr(wire, "monotonic", lambda: later)
    assert pool.take() is None


async def test_a_connection_that_has_not_sent_all_of_its_request_is_not_kept(pool: Pool) -> None:
    """A backend that answered before it had read the request would read the rest of it before the next one."""
    connection, transport = connected(pool)
    ear = Ear()
    connection.send(b"request", ear)
    transport.fill = 5
    connection.data_received(LENGTH)
    connection.detach()
    assert (ear.body, ear.ends, ear.failures) == (b"hello", 1, [])
    assert transport.aborted
    assert pool.take() is None


@pytest.mark.parametrize(("size", "status", "kept"), [(100_000, 413, False), (100_000, 200, True), (1_000, 413, True)])
async def test_over_tls_a_long_request_that_was_refused_keeps_no_connection(size: int, status: int, kept: bool) -> None:
    """How much of it was sent is not to be seen there: what is encrypted waits elsewhere."""
    loop = asyncio.get_running_loop()
    pool = Pool("https://backend.example/v1", loop=loop, deadlines=Deadlines(loop), resolve=nowhere)
    connection, _ = connected(pool)
    ear = Ear()
    connection.send(b"x" * size, ear)
    connection.data_received(LENGTH.replace(b"200 OK", b"%d -" % status))
    connection.detach()
    assert (ear.body, ear.ends) == (b"hello", 1)
    assert (pool.take() is connection) == kept


async def test_a_closed_pool_keeps_nothing(pool: Pool) -> None:
    """After a change of configuration idle connections close now and busy ones when they are done."""
    _, idle, _ = asked(pool, LENGTH)
    busy, transport = connected(pool)
    ear = Ear()
    busy.send(b"request", ear)
    pool.close()
    assert idle.aborted
    assert not transport.is_closing()
    busy.data_received(LENGTH)
    busy.detach()
    assert ear.body == b"hello"
    assert transport.is_closing()


async def test_pausing_a_closed_connection_is_harmless(pool: Pool) -> None:
    """A caller may stop reading just as the backend goes."""
    connection, transport, _ = asked(pool, LENGTH[:-1])
    connection.pause()
    assert transport.paused
    connection.resume()
    assert not transport.paused
    transport.lose()
    connection.pause()
    connection.resume()
    assert not transport.paused


@pytest.mark.parametrize("answer", [LENGTH, LENGTH[:-1]])
async def test_a_connection_that_is_let_go_while_it_is_paused_is_read_again(pool: Pool, answer: bytes) -> None:
    """The read that fills the caller's connection may be the last one of its answer; the next caller is not to wait."""
    connection, transport = connected(pool)
    connection.send(b"request", Ear(on_data=connection.pause))
    connection.data_received(answer)
    assert transport.paused
    connection.detach()
    assert not transport.paused
    if rest := LENGTH[len(answer) :]:
        connection.data_received(rest)
    assert pool.take() is connection


@asynccontextmanager
async def listening(script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[Pool]:
    """Return a pool for a server that answers by ``script``."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            await script(reader, writer)
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    port = server.sockets[0].getsockname()[1]
    pool = Pool(f"http://localhost:{port}", loop=loop, deadlines=Deadlines(loop), resolve=here)
    yield pool
    pool.close()
    server.close()
    await server.wait_closed()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)


async def test_connections_go_to_the_resolved_address_and_carry_answers() -> None:
    """Over a real socket, twice on one connection."""
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.read(100) == b"request":
            writer.write(LENGTH)

    async with listening(script) as pool:
        for _ in range(2):
            connection = pool.take() or await pool.connect(10.0)
            ear = Ear()
            connection.send(b"request", ear)
            async with asyncio.timeout(10):
                while not ear.ends:
                    await asyncio.sleep(0.005)
            connection.detach()
            assert ear.body == b"hello"
        assert connections == 1


async def test_the_next_request_on_a_connection_that_was_paused_at_its_end_is_answered() -> None:
    """A caller that was too slow for the end of its own answer costs nobody else a time limit."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100) == b"request":
            writer.write(LENGTH)

    async with listening(script) as pool:
        connection = await pool.connect(10.0)
        for _ in range(3):
            ear = Ear(on_data=connection.pause)
            connection.send(b"request", ear)
            async with asyncio.timeout(10):
                while not ear.ends:
                    await asyncio.sleep(0.005)
            connection.detach()
            assert pool.take() is connection
        connection.abort()


@pytest.mark.parametrize("resolve", [nowhere, here])
async def test_no_connection_is_a_failure_that_cost_nothing(resolve: Any) -> None:
    """No address, and nobody who listens: the request has not been sent."""
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    pool = Pool(f"http://127.0.0.1:{port}", loop=loop, deadlines=Deadlines(loop), resolve=resolve)
    with pytest.raises(AttemptFailed) as caught:
        await pool.connect(10.0)
    assert caught.value.failure.cause is Cause.CONNECT
    assert not caught.value.failure.sent


async def test_an_address_that_is_silent_does_not_use_up_the_time_of_the_others() -> None:
    """A name with several addresses is there as long as one of them is; a silent one is tried last for a while."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async def both(_host: str, port: int) -> tuple[tuple[str, int], ...]:
        return ((SILENT, port), (HERE, port))

    async with listening(script) as other:
        port = int(other.host.rpartition(b":")[2])
        loop = asyncio.get_running_loop()
        pool = Pool(f"http://gpu.internal:{port}", loop=loop, deadlines=Deadlines(loop), resolve=both)
        with silent_beside(port):
            (await pool.connect(1.0)).abort()
            began = time.monotonic()
            (await pool.connect(1.0)).abort()
            assert time.monotonic() - began < 0.4


async def test_a_backend_without_tls_is_a_failed_connection() -> None:
    """Speaking TLS to a plain port is refused here, not sent in the clear."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read(-1)

    async with listening(script) as plain:
        loop = asyncio.get_running_loop()
        url = f"https://{plain.host.decode()}"
        pool = Pool(url, loop=loop, deadlines=Deadlines(loop), resolve=here)
        with pytest.raises(AttemptFailed) as caught:
            await pool.connect(10.0)
        assert caught.value.failure.cause is Cause.CONNECT
        assert not caught.value.failure.sent
