"""Admission in the whole gateway: slow replicas, a queue before them, fair turns, honest refusals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.sim import SimConfig, SimFleet, SimServer, Timing
from gateway.sim.config import Kind
from gateway.types.keys import KeyLimits, NewKey
from tests.harness import Stage, configuration, over, staged

ROOM = "capacity: {max_running: 2}"
TOKENS = 10


@asynccontextmanager
async def slow(home: Path, admission: str = "{}", *, itl: float = 0.02) -> AsyncIterator[tuple[Stage, SimServer]]:
    """Run a gateway over one simulator that answers two requests at a time, as far as the gateway is told."""
    sim = SimConfig(name="gpu", timing=Timing(itl=itl), answer_tokens=TOKENS)
    async with SimFleet([sim]) as fleet:
        config = configuration(over(fleet["gpu"], more=ROOM), more=f"admission: {admission}")
        async with staged(home, config) as stage:
            yield stage, fleet["gpu"]


async def ask(stage: Stage, key: str | None = None, **more: object) -> tuple[httpx.Response, float]:
    """Send a request and return the answer with the time at which it came."""
    headers = {"authorization": f"Bearer {key or stage.key}"}
    body = {"model": "qwen/qwen3-32b", "messages": [{"role": "user", "content": "Tell me about weirs."}]} | more
    answer = await stage.http.post(f"{stage.url}/v1/chat/completions", json=body, headers=headers)
    return answer, time.monotonic()


async def key_of(stage: Stage, team: str) -> str:
    """Return a new key of a new team."""
    await stage.http.post(f"{stage.url}/api/v1/teams", json={"slug": team, "name": team}, headers=stage.admin)
    return (await stage.keeper.create_key(NewKey("test", team, None, KeyLimits()))).key


def scraped(text: str, name: str) -> float:
    """Return the sum of a family's samples."""
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def waiting(stage: Stage, count: int) -> None:
    """Wait until ``count`` requests wait at the gateway."""
    async with asyncio.timeout(10):
        while stage.gateway.desk.gate.waiting != count:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("kind", ["vllm", "openai"])
async def test_who_comes_at_once_waits_for_the_limits_of_a_backend(kind: Kind, keyed: bool, tmp_path: Path) -> None:
    """Ten at the same moment where two may run: all are answered, none is told that the backend is at its limit."""
    limits = "limits: {concurrent: 2}"
    if keyed:
        limits = 'api_keys: [{key: "${PATH}", limits: {concurrent: 1}}, {key: "${HOME}", limits: {concurrent: 1}}]'
    sim = SimConfig(name="api", kind=kind, timing=Timing(itl=0.002), answer_tokens=TOKENS)
    async with SimFleet([sim]) as fleet, staged(tmp_path, configuration(over(fleet["api"], more=limits))) as stage:
        answers = await asyncio.gather(*[ask(stage) for _ in range(10)])
    assert [answer.status_code for answer, _ in answers] == [200] * 10


async def test_who_comes_at_once_waits_for_the_minute_of_a_backend(tmp_path: Path) -> None:
    """Six at the same moment where four may come in a minute: two wait."""
    sim = SimConfig(name="api", kind="openai", answer_tokens=1)
    async with SimFleet([sim]) as fleet:
        limited = configuration(over(fleet["api"], more="limits: {rpm: 4}"))
        async with staged(tmp_path, limited) as stage:
            asking = [asyncio.create_task(ask(stage)) for _ in range(6)]
            await waiting(stage, 2)
            done = await asyncio.gather(*asking[:4])
            for task in asking:
                task.cancel()
    assert [answer.status_code for answer, _ in done] == [200] * 4


async def test_a_replica_never_has_more_than_it_can_run(tmp_path: Path) -> None:
    """Twelve at once, two at a time: all are answered, the others wait here and not in the engine."""
    async with slow(tmp_path) as (stage, sim):
        most = 0
        tasks = [asyncio.create_task(ask(stage)) for _ in range(12)]
        while not all(task.done() for task in tasks):
            most = max(most, stage.gateway.registry.fleet.replicas["gpu"].load.in_flight)
            await asyncio.sleep(0.002)
        assert {(await task)[0].status_code for task in tasks} == {200}
        assert most == 2
        assert sim.books.totals.completed == 12
        page = (await stage.http.get(f"{stage.url}/metrics", headers=stage.admin)).text
        assert scraped(page, "weir_admission_wait_seconds_count") == 10
        assert scraped(page, "weir_admission_queued") == 0
        assert (await stage.keeper.audit()).ok


async def test_a_team_with_one_request_does_not_wait_for_a_team_with_many(tmp_path: Path) -> None:
    """Inside a band the teams take turns, however many requests each has waiting."""
    async with slow(tmp_path, itl=0.06) as (stage, _):
        crowd, single = await key_of(stage, "crowd"), await key_of(stage, "single")
        many = [asyncio.create_task(ask(stage, crowd)) for _ in range(12)]
        await waiting(stage, 10)
        answer, at = await ask(stage, single)
        assert answer.status_code == 200
        later = [(await task)[1] for task in many]
        assert sum(other < at for other in later) <= 6


async def test_who_waits_too_long_gets_a_429_that_says_when(tmp_path: Path) -> None:
    """Contended is 429 with whole seconds in Retry-After; nobody pays, and the queue is empty afterwards."""
    rules = "{bands: {standard: {deadline: 0.2}}}"
    async with slow(tmp_path, rules, itl=0.2) as (stage, sim):
        answers = [answer for answer, _ in await asyncio.gather(*(ask(stage) for _ in range(4)))]
        assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
        refused = next(answer for answer in answers if answer.status_code == 429)
        error = refused.json()["error"]
        assert error["code"] == 429
        assert error["metadata"] == {"error_type": "provider_overloaded", "reason": "deadline", "band": "standard"}
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert sim.books.totals.completed == 2
        assert stage.gateway.desk.gate.waiting == 0


async def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    """The bound holds, and a refusal costs no time."""
    async with slow(tmp_path, "{queue: {requests: 1}}", itl=0.1) as (stage, _):
        tasks = [asyncio.create_task(ask(stage)) for _ in range(3)]
        await waiting(stage, 1)
        answer, _ = await ask(stage)
        assert answer.status_code == 429
        assert answer.json()["error"]["metadata"]["reason"] == "queue_full"
        assert {(await task)[0].status_code for task in tasks} == {200}


async def test_a_caller_who_leaves_while_waiting_is_never_sent(tmp_path: Path) -> None:
    """The place is free at once, the engine never sees the request, and the next in line is served."""
    async with slow(tmp_path, itl=0.15) as (stage, sim):
        running = [asyncio.create_task(ask(stage)) for _ in range(2)]
        async with asyncio.timeout(10):
            while stage.gateway.registry.fleet.replicas["gpu"].load.in_flight < 2:
                await asyncio.sleep(0.005)
        leaving = [asyncio.create_task(ask(stage, stream=True)) for _ in range(3)]
        await waiting(stage, 3)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await waiting(stage, 0)
        last, _ = await ask(stage)
        assert {last.status_code, *[(await task)[0].status_code for task in running]} == {200}
        assert sim.books.totals.completed == 3
        assert stage.gateway.registry.fleet.replicas["gpu"].load.in_flight == 0
        assert (await stage.keeper.audit()).ok


async def test_without_any_replica_routing_answers(tmp_path: Path) -> None:
    """No capacity at all is 503 with its reasons, not 429."""
    async with slow(tmp_path) as (stage, _):
        stage.gateway.registry.fleet.replicas["gpu"].load.draining = True
        answer, _ = await ask(stage)
        assert answer.status_code == 503
        assert answer.json()["error"]["metadata"]["error_type"] == "provider_unavailable"


async def test_switched_off_requests_wait_in_the_engine(tmp_path: Path) -> None:
    """Without admission the gateway sends what comes."""
    async with slow(tmp_path, "{enabled: false}", itl=0.15) as (stage, _):
        tasks = [asyncio.create_task(ask(stage)) for _ in range(6)]
        async with asyncio.timeout(10):
            while stage.gateway.registry.fleet.replicas["gpu"].load.in_flight < 6:
                await asyncio.sleep(0.005)
        assert {(await task)[0].status_code for task in tasks} == {200}
