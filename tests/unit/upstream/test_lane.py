"""The lane: what runs on it connects to what the egress guard lets pass, and to nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.fleet.egress import AddressForbidden
from gateway.upstream.lane import JUDGE, lane


async def on_lane(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run ``work`` on the lane and return what it gives."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), lane()))


@asynccontextmanager
async def server() -> AsyncIterator[tuple[int, list[None]]]:
    """Run a server; yield its port and its connections so far."""
    came: list[None] = []

    def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(None)
        writer.write(b"hello\n")
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as found:
        yield found.sockets[0].getsockname()[1], came


Judge = Callable[[str, int], Awaitable[tuple[tuple[str, int], ...]]]


def connecting(host: str, port: int, judge: Judge | None) -> Callable[[], Coroutine[Any, Any, bytes]]:
    """Return work that reads a line from a host under ``judge``."""

    async def work() -> bytes:
        JUDGE.set(judge)
        reader, writer = await asyncio.open_connection(host, port)
        line = await reader.readline()
        writer.close()
        return line

    return work


async def test_a_name_leads_where_the_guard_says() -> None:
    """A name that no name service knows is connected to at the address that passed, which is judged once more."""
    asked: list[str] = []

    async def judge(host: str, port: int) -> tuple[tuple[str, int], ...]:
        asked.append(host)
        return (("127.0.0.1", port),)

    async with server() as (port, _):
        assert await on_lane(connecting("nobody.invalid", port, judge)) == b"hello\n"
    assert asked == ["nobody.invalid", "127.0.0.1"]


async def test_a_name_that_changes_its_mind_is_not_connected_to() -> None:
    """What passed when it was resolved and does not when it is connected to gets no connection."""

    async def judge(host: str, port: int) -> tuple[tuple[str, int], ...]:
        if host == "127.0.0.1":
            raise AddressForbidden("no")
        return (("127.0.0.1", port),)

    async with server() as (port, came):
        with pytest.raises(OSError, match="may not be connected"):
            await on_lane(connecting("nobody.invalid", port, judge))
        with pytest.raises(OSError, match="may not be connected"):
            await on_lane(connecting("127.0.0.1", port, judge))
    assert came == []


async def test_nothing_is_connected_to_outside_of_a_request() -> None:
    """What a library does by itself, without a request, reaches nobody."""
    async with server() as (port, came):
        for host in ("localhost", "127.0.0.1"):
            with pytest.raises(OSError, match="outside of a request"):
                await on_lane(connecting(host, port, None))
    assert came == []
