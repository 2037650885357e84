"""The probes' HTTP client against servers of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Self

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.config.egress import Egress
from gateway.fleet.client import MAX_PAGE, NoAnswer, Page, ProbeClient
from gateway.fleet.egress import AddressForbidden, EgressGuard
from tests.fakes.fleet import LOOPBACK, backend, fleet
from tests.fakes.silence import HERE, SILENT, silent_beside

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A server whose every connection is played by a function."""

    def __init__(self, serve: Serve) -> None:
        self.connections = 0
        self._serve = serve
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._play, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port


def saying(*answers: bytes) -> Serve:
    """Answer the requests of a connection one by one, then close it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

    return serve


@asynccontextmanager
async def client_of(
    port: int, guard: EgressGuard | None = None, host: str = "127.0.0.1", connect_limit: float = 5.0
) -> AsyncIterator[ProbeClient]:
    """Give the block a client of ``port``."""
    replica = fleet(backend("gpu-a", url=f"http://{host}:{port}")).replicas["gpu-a"]
    client = ProbeClient(replica.backend, guard or EgressGuard(LOOPBACK), connect_limit=connect_limit)
    try:
        yield client
    finally:
        await client.close()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK,
    ],
)
async def test_every_form_of_an_answer_is_understood(answer: bytes) -> None:
    """Lengths, chunks, the end of the connection and informational answers: the same page."""
    async with Server(saying(answer)) as server, client_of(server.port) as client:
        assert await client.get("/metrics", 10.0) == Page(200, b"ok")


async def test_one_connection_is_kept_and_replaced_when_the_server_has_closed_it() -> None:
    """A probe a second does not open a connection a second; an engine that closes idle ones loses no probe."""
    async with Server(saying(OK, OK, OK)) as server, client_of(server.port) as client:
        for _ in range(7):
            assert await client.get("/metrics", 10.0) == Page(200, b"ok")
        assert server.connections == 3


async def test_a_connection_whose_answer_said_close_carries_nothing_more() -> None:
    """A new one is made instead, without trying the old one."""
    async with (
        Server(saying(b"HTTP/1.1 204 X\r\nconnection: close\r\n\r\n", OK)) as server,
        client_of(server.port) as client,
    ):
        assert [await client.get("/health", 10.0) for _ in range(2)] == [Page(204, b"")] * 2
        assert server.connections == 2


async def test_an_answer_cut_in_its_middle_is_no_answer_and_is_not_asked_for_again() -> None:
    """Only a connection that said nothing at all may just have been closed for its idleness."""
    async with Server(saying(OK, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")) as server:
        async with client_of(server.port) as client:
            assert await client.get("/health", 10.0) == Page(200, b"ok")
            with pytest.raises(NoAnswer, match="closes the connection"):
                await client.get("/health", 10.0)
        assert server.connections == 1


async def test_an_answer_that_never_ends_costs_its_time_limit_and_its_connection() -> None:
    """What comes too late is never taken for the answer to a later question."""
    late = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if late.is_set():
            writer.write(OK)
        else:
            late.set()
            await reader.read()

    async with Server(serve) as server, client_of(server.port) as client:
        with pytest.raises(NoAnswer, match="in time"):
            await client.get("/health", 0.2)
        assert await client.get("/health", 10.0) == Page(200, b"ok")
        assert server.connections == 2


async def test_an_answer_that_is_too_long_says_nothing() -> None:
    """It is read up to the bound, its status counts, and its connection is closed."""
    length = 64 * MAX_PAGE
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length)
        while sent < length:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    async with Server(serve) as server, client_of(server.port) as client:
        assert await client.get("/metrics", 30.0) == Page(200, b"")
        assert sent < length


async def test_two_answers_to_one_question_are_one_and_end_the_connection() -> None:
    """Bytes that nobody asked for are never the answer to the next question."""
    async with Server(saying(OK + OK.replace(b"ok", b"no"), OK)) as server, client_of(server.port) as client:
        assert [await client.get("/health", 10.0) for _ in range(2)] == [Page(200, b"ok")] * 2
        assert server.connections == 2


async def test_rules_that_change_end_the_use_of_a_connection() -> None:
    """What the configuration forbids now is not asked over a connection of yesterday."""
    async with Server(saying(OK, OK)) as server:
        guard = EgressGuard(LOOPBACK)
        async with client_of(server.port, guard) as client:
            await client.get("/health", 10.0)
            guard.configure(Egress())
            with pytest.raises(AddressForbidden):
                await client.get("/health", 10.0)


async def test_an_address_that_has_moved_is_followed() -> None:
    """A name that leads elsewhere now is asked there, though the old connection still works."""
    where = "127.0.0.1"

    async def lookup(_host: str) -> Sequence[str]:
        return [where]

    guard = EgressGuard(LOOPBACK, lookup=lookup)
    async with Server(saying(OK, OK)) as server, client_of(server.port, guard, "gpu.internal") as client:
        await client.get("/health", 10.0)
        where = "127.0.0.2"
        guard.configure(Egress(LOOPBACK.allow * 2))
        with pytest.raises(NoAnswer):
            await client.get("/health", 10.0)


async def test_a_name_at_which_nobody_is_any_more_is_looked_up_before_its_time() -> None:
    """A replica that was made anew has another address; the old one is not asked for a minute."""
    where, now = "127.0.0.3", 100.0

    async def lookup(_host: str) -> Sequence[str]:
        return [where]

    guard = EgressGuard(LOOPBACK, lookup=lookup, clock=lambda: now)
    async with Server(saying(OK)) as server, client_of(server.port, guard, "gpu.internal") as client:
        with pytest.raises(NoAnswer):
            await client.get("/health", 10.0)
        where, now = "127.0.0.1", 106.0
        with pytest.raises(NoAnswer):
            await client.get("/health", 10.0)
        assert (await client.get("/health", 10.0)).status == 200
        assert await guard.resolve("gpu.internal", 1) == (("127.0.0.1", 1),)


async def test_an_address_that_is_silent_leaves_time_for_the_others() -> None:
    """A probe of a name with several addresses finds the one that is there."""

    async def lookup(_host: str) -> Sequence[str]:
        return [SILENT, HERE]

    guard = EgressGuard(LOOPBACK, lookup=lookup)
    async with Server(saying(OK)) as server, client_of(server.port, guard, "gpu.internal", connect_limit=1.0) as client:
        with silent_beside(server.port):
            assert (await client.get("/health", 5.0)).status == 200


pieces = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 Switching Protocols\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n",
        b"content-length: 2\r\n", b"content-length: 99\r\n", b"transfer-encoding: chunked\r\n", b"2\r\nok\r\n",
        b"0\r\n\r\n", b"ok", b"connection: upgrade\r\nupgrade: x\r\n", b"\x00", b"HTTP/9 x", b": \r\n",
    ]
)  # fmt: skip


@given(st.lists(pieces, max_size=12))
@example([b"HTTP/1.1 101 Switching Protocols\r\n", b"connection: upgrade\r\nupgrade: x\r\n", b"\r\n", b"ok"])
@example([b"HTTP/1.1 200 OK\r\n", b"\r\n", *[b"HTTP/1.1 200 OK\r\n"] * 6])
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_server_says_is_a_page_or_no_answer(parts: list[bytes]) -> None:
    """Nothing else leaves the client, however the answer is broken and cut into reads."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    async def ask() -> None:
        async with Server(serve) as server, client_of(server.port) as client:
            for _ in range(2):
                with suppress(NoAnswer):
                    page = await client.get("/metrics", 10.0)
                    assert page.status >= 200
                    assert len(page.body) < 99 or len(b"".join(parts)) > 99  # what is cut short is no page

    asyncio.run(ask())
