"""Requests that come together go from stop to stop together, and what must be whole is whole all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway import relay
from gateway.edge.native_exchange import NativeExchange
from gateway.inflight import InFlight
from gateway.step import _Step
from gateway.upstream import attempts, trial
from gateway.upstream.attempts import Walk
from tests.fakes.backend import HandBackend, Visit, hand_backend, whole
from tests.fakes.raw_client import post, raw_client
from tests.harness import Backend, Stage, chat_body, configuration, staged

TOGETHER = 12
REPLICAS = 4


async def at_once(stage: Stage, stack: AsyncExitStack) -> Callable[[], Any]:
    """Send ``TOGETHER`` requests in one step of the loop; return what waits for their answers."""
    clients = [await stack.enter_async_context(raw_client(stage.port)) for _ in range(TOGETHER)]
    for client in clients:
        await client.send(post("/v1/chat/completions", chat_body(), stage.key), drain=False)

    async def answers() -> list[int]:
        return [(await client.response()).status for client in clients]

    return answers


async def test_each_stop_is_passed_by_all_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first one brought into the processor's caches serves the others: that is what the steps are for."""
    passed: list[str] = []

    def noted(kind: type, name: str) -> None:
        stop = getattr(kind, name)

        def note(*given: Any, **named: Any) -> Any:
            passed.append(name)
            return stop(*given, **named)

        monkeypatch.setattr(kind, name, note)

    async def script(visit: Visit) -> None:
        await visit.answer(whole())

    noted(InFlight, "__init__")
    noted(InFlight, "route")
    noted(Walk, "_run")
    async with (
        hand_backend(script) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "vllm")])) as stage,
        AsyncExitStack() as stack,
    ):
        answers = await at_once(stage, stack)
        assert await answers() == [200] * TOGETHER
    first = passed[: 3 * TOGETHER]
    assert first == ["__init__"] * TOGETHER + ["route"] * TOGETHER + ["_run"] * TOGETHER


async def test_a_caller_who_asks_again_at_once_comes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However soon that is: nobody is there to give way to, and each turn of the loop would cost it time."""
    monkeypatch.setattr("gateway.step.TOGETHER_S", 1_000.0)
    gave_way: list[bool] = []
    steps = _Step.__await__

    def counted(step: _Step) -> Generator[None, None, None]:
        gave_way.append(step._together)
        return steps(step)

    monkeypatch.setattr(_Step, "__await__", counted)

    async def script(visit: Visit) -> None:
        await visit.answer(whole())

    async with (
        hand_backend(script) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "vllm")])) as stage,
    ):
        for _ in range(5):
            assert (await stage.chat(chat_body())).status_code == 200
    assert len(gave_way) == 5 * 9
    assert not any(gave_way)


async def test_those_that_come_together_do_not_choose_the_same_replica(tmp_path: Path) -> None:
    """Each is in the books of its replica before the next one decides."""
    go_on = asyncio.Event()

    async def script(visit: Visit) -> None:
        await go_on.wait()
        await visit.answer(whole())

    async with AsyncExitStack() as stack:
        backends: list[HandBackend] = [await stack.enter_async_context(hand_backend(script)) for _ in range(REPLICAS)]
        config = configuration(
            [Backend(f"replica{number}", each.url, "vllm") for number, each in enumerate(backends)],
            more="routing: {default: least_request}",
        )
        stage = await stack.enter_async_context(staged(tmp_path, config))
        answers = await at_once(stage, stack)
        async with asyncio.timeout(10):
            while sum(len(each.visits) for each in backends) < TOGETHER:
                await asyncio.sleep(0.01)
        assert [len(each.visits) for each in backends] == [TOGETHER // REPLICAS] * REPLICAS
        go_on.set()
        assert await answers() == [200] * TOGETHER


class Leaving:
    """A step in which every caller leaves."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def __await__(self) -> Generator[None, None, None]:
        for exchange in list(self._stage.gateway.inference.active):
            assert isinstance(exchange, NativeExchange)
            exchange.lost()
        yield


@pytest.mark.parametrize("module", [relay, attempts, trial])
async def test_a_caller_that_leaves_in_a_step_before_its_request_is_sent_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    """Nobody is asked, nothing stays booked, and the ledger says what became of it."""

    async def script(visit: Visit) -> None:
        await visit.answer(whole())

    async with (
        hand_backend(script) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "vllm")])) as stage,
    ):
        assert (await stage.chat()).status_code == 200  # its connection waits in the pool now
        with monkeypatch.context() as patch:
            patch.setattr(module, "STEP", Leaving(stage))
            async with raw_client(stage.port) as client:
                await client.send(post("/v1/chat/completions", chat_body(), stage.key))
                async with asyncio.timeout(10):
                    while not stage.gateway.inference.active:
                        await asyncio.sleep(0)
                    while stage.gateway.inference.active:
                        await asyncio.sleep(0.01)
        assert len(backend.visits) == 1
        (replica,) = stage.gateway.registry.fleet.replicas.values()
        assert replica.load.in_flight == 0
        assert (await stage.chat()).status_code == 200
