"""What a request used is free when it has ended: nothing of it waits for the garbage collector, which comes seldom."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.edge.native import WeirProtocol
from gateway.edge.native_exchange import NativeExchange
from gateway.metering.meter import Meter
from gateway.types.call import Call
from gateway.upstream.attempts import Walk
from gateway.upstream.wire import Connection
from tests.fakes.backend import SSE_HEAD, Visit, chunk, event, hand_backend
from tests.fakes.raw_client import post, raw_client
from tests.harness import Backend, chat_body, configuration, staged

KINDS = (WeirProtocol, NativeExchange, Call, Meter, Walk, Connection)


def alive() -> list[object]:
    """Return all objects of these kinds in this process."""
    return [each for each in gc.get_objects() if isinstance(each, KINDS)]


@pytest.fixture
def uncollected() -> Iterator[Callable[[], list[str]]]:
    """Collect nothing while the test runs; tell the names of the kinds of which it has objects, not other tests."""
    gc.collect()
    gc.disable()
    others = alive()  # kept, lest a new object gets the identity of one of them
    before = set(map(id, others))
    yield lambda: sorted({type(each).__name__ for each in alive() if id(each) not in before})
    others.clear()
    gc.enable()


async def test_a_stream_that_its_caller_leaves_is_freed_at_once(
    tmp_path: Path, uncollected: Callable[[], list[str]]
) -> None:
    """Connections, the request, what it has said so far: all of it goes with the caller."""

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk("hello")))
        await visit.gone.wait()

    async with (
        hand_backend(script) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "openai")])) as stage,
    ):
        async with raw_client(stage.port) as client:
            await client.send(post("/v1/chat/completions", chat_body() | {"stream": True}, stage.key))
            await client.until(b"hello")
            assert uncollected() == sorted(kind.__name__ for kind in KINDS)
        await asyncio.wait_for(backend.visits[0].gone.wait(), 10)
        await stage.settled()
        async with asyncio.timeout(20):
            while uncollected():
                await asyncio.sleep(0.05)
