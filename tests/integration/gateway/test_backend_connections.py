"""Connections to backends: each time limit strikes by itself, and kept connections cost no request."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.sim import SimConfig, SimFleet
from tests.fakes.backend import DONE, LAST, SSE_HEAD, Visit, chunk, event, hand_backend, usage_chunk, whole
from tests.fakes.pair import attempts, pair, said
from tests.fakes.raw_client import events, text_of
from tests.harness import Backend, configuration, staged


async def answer_well(visit: Visit) -> None:
    """Answer whole, streamed or not."""
    if visit.document["stream"]:
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk("hello")), event(chunk(finish="stop")), event(usage_chunk(1)), DONE, last=True)
    else:
        await visit.answer(whole())


async def test_the_connect_limit_strikes_by_itself(tmp_path: Path) -> None:
    """A backend that does not accept is given up after its connect limit, long before the first-byte limit."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):  # fill the backlog: the kernel drops what comes after
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        limits = "timeouts: {connect: 1, first_byte: 60, idle: 60}"
        async with hand_backend(answer_well) as second:
            config = pair(f"http://127.0.0.1:{address[1]}", second.url, more=limits)
            async with staged(tmp_path, config) as stage:
                answer = await stage.chat()
                assert await attempts(stage, answer) == [("first", "failed", "connect"), ("second", "ok", None)]


@pytest.mark.parametrize("phase", ["first_byte", "idle"])
async def test_the_first_byte_and_the_idle_limit_strike_by_themselves(phase: str, tmp_path: Path) -> None:
    """Each limit strikes in its own phase only: the other is a minute."""
    limits = {"first_byte": 60, "idle": 60, phase: 1}

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        if phase == "idle":
            await asyncio.sleep(1.6)  # longer than the idle limit, which does not count yet
            await visit.events(event(chunk("hello")))
        await visit.gone.wait()

    async with hand_backend(script) as first, hand_backend(answer_well) as second:
        more = f"timeouts: {{connect: 60, first_byte: {limits['first_byte']}, idle: {limits['idle']}}}"
        async with staged(tmp_path, pair(first.url, second.url, more=more)) as stage:
            answer = await stage.chat(stream=True)
            tried = await attempts(stage, answer)
            if phase == "first_byte":
                assert tried == [("first", "failed", "first_byte"), ("second", "ok", None)]
            else:
                assert tried == [("first", "continued", "idle"), ("second", "ok", None)]
                assert text_of(events(answer.content)).startswith("hello")
            await asyncio.wait_for(first.visits[0].gone.wait(), 10)


async def test_a_slow_but_living_stream_is_not_cut(tmp_path: Path) -> None:
    """The idle limit is between reads, not for the whole answer, and a comment is a sign of life."""

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        for number in range(8):
            await visit.events(event(chunk("a")) if number % 3 == 0 else b": still thinking\n\n")
            await asyncio.sleep(0.3)
        await visit.events(event(chunk(finish="stop")), DONE, last=True)

    async with hand_backend(script) as first, hand_backend(answer_well) as second:
        more = "timeouts: {connect: 20, first_byte: 20, idle: 2}"
        async with staged(tmp_path, pair(first.url, second.url, more=more)) as stage:
            assert said(await stage.chat(stream=True), stream=True) == "aaa"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stale_connection_is_replaced_unnoticed(stream: bool, tmp_path: Path) -> None:
    """A kept connection that breaks under a new request is no failed try: the same replica gets it on a new one."""

    async def script(visit: Visit) -> None:
        if len(backend.visits) == 2:
            visit.writer.transport.abort()
        else:
            await answer_well(visit)

    async with (
        hand_backend(script) as backend,
        hand_backend(answer_well) as second,
        staged(tmp_path, pair(backend.url, second.url, kind="openai")) as stage,
    ):
        for _ in range(2):
            answer = await stage.chat(stream=stream)
            assert answer.status_code == 200
            assert await attempts(stage, answer) == [("first", "ok", None)]
        assert len(backend.visits) == 3
        assert not second.visits


async def test_connections_the_backend_closes_when_idle_are_not_used_again(tmp_path: Path) -> None:
    """A backend with a short keep-alive loses no request."""
    config = SimConfig(name="first", keep_alive=0.1)
    async with (
        SimFleet([config]) as fleet,
        staged(tmp_path, configuration([Backend("a", fleet["first"].url)])) as stage,
    ):
        for pause in (0.0, 0.2, 0.1, 0.099, 0.101, 0.3):
            await asyncio.sleep(pause)
            answer = await stage.chat(stream=True)
            assert await attempts(stage, answer) == [("own", "ok", None)]


async def test_a_burst_of_streams_shares_connections_without_mixing_answers(tmp_path: Path) -> None:
    """Answers that come whole in one read, again and again on kept connections, all reach their own caller."""

    async def ask(number: int) -> None:
        async with asyncio.timeout(20):
            body: dict[str, Any] = {"messages": [{"role": "user", "content": f"echo {number}"}], "stream": True}
            assert said(await stage.chat(body), stream=True) == f"echo {number}"

    async def script(visit: Visit) -> None:
        text = visit.document["messages"][0]["content"]
        parts = [event(chunk(text)), event(chunk(finish="stop")), event(usage_chunk(1)), DONE]
        data = b"".join(parts)
        await visit.send(SSE_HEAD + b"%x\r\n%b\r\n" % (len(data), data) + LAST)

    async with (
        hand_backend(script) as backend,
        staged(tmp_path, configuration([Backend("a", backend.url, kind="openai")])) as stage,
    ):
        for number in (1, 3, 6, 1, 4, 9, 2, 9):
            await asyncio.gather(*(ask(each) for each in range(number)))
        assert backend.connections <= 15
