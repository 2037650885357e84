"""A model's own limits: how long it may take to begin, how long to pause, and when a second replica is asked too."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from gateway.sim import Fault, SimConfig, SimFleet, SimServer, Timing
from gateway.upstream.attempt import Attempt
from gateway.upstream.wire import Connection, Pool, Receiver
from tests.fakes.backend import SSE_HEAD, Visit, chunk, event, hand_backend, whole
from tests.fakes.pair import CHEAP, DEAR, attempts, said
from tests.fakes.raw_client import events
from tests.harness import Backend, Stage, configuration, staged

TOKENS = 8
SLOW = Fault(kind="slow", delay=60.0)


def models(*listed: Backend, keys: str) -> str:
    """Return the section of one model over ``listed``, the first always tried first, with ``keys`` of its own."""
    lines = [
        "  - id: qwen/qwen3-32b",
        "    context_length: 40960",
        '    price: {prompt: "0.10", completion: "0.30"}',
        f"    {keys}",
        "    endpoints:",
    ]
    for place, backend in enumerate(listed):
        price = f", {DEAR if place else CHEAP}"
        lines.append(f"      - {{backend: {backend.name}, model: {backend.model}{price}}}")
    return "\n".join(lines)


@asynccontextmanager
async def model_of(
    home: Path, keys: str, *faults: Fault | None, second: str = "vllm"
) -> AsyncIterator[tuple[Stage, SimServer, SimServer]]:
    """Run a gateway over two simulators under a model with ``keys``; ``faults`` break them."""
    configs = [SimConfig(name=name, timing=Timing(itl=0.01), answer_tokens=TOKENS) for name in ("first", "second")]
    async with SimFleet(configs) as fleet:
        listed = [
            Backend(name, fleet[name].url, kind, "Qwen/Qwen3-32B", name)
            for name, kind in (("first", "vllm"), ("second", second))
        ]
        text = configuration(listed, models=models(*listed, keys=keys), more="routing: {default: cheapest}")
        async with staged(home, text) as stage:
            for sim, fault in zip(fleet, faults, strict=False):
                if fault is not None:
                    sim.faults.arm(fault)
            yield stage, fleet["first"], fleet["second"]


async def hedges(stage: Stage) -> dict[str, float]:
    """Return the outcomes of hedging, counted."""
    page = (await stage.http.get(f"{stage.url}/metrics", headers=stage.admin)).text
    lines = [line for line in page.splitlines() if line.startswith("weir_hedges_total{")]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}


async def test_the_second_answers_when_the_first_is_slow_to_begin(tmp_path: Path) -> None:
    """The loser is stopped and is the owner's; the caller pays one answer; books and gauges are even again."""
    async with model_of(tmp_path, "hedge_after: 0.2", SLOW) as (stage, first, second):
        answer = await stage.chat(stream=True)
        said(answer, stream=True)
        assert await attempts(stage, answer) == [("first", "failed", "hedged"), ("second", "ok", None)]
        (record,) = await stage.settled()
        loser, winner = record.attempts
        assert (loser.charge_nano, loser.usage.total) == (0, 0)
        assert winner.charge_nano == winner.usage.prompt * 100 + TOKENS * 300
        assert await hedges(stage) == {"second": 1}
        async with asyncio.timeout(10):
            while [entry.outcome for entry in first.books] != ["cancelled"]:
                await asyncio.sleep(0.02)
        replicas = stage.gateway.registry.fleet.replicas
        assert [replica.load.in_flight for replica in replicas.values()] == [0, 0]
        assert [replica.load.waiting_tokens for replica in replicas.values()] == [0, 0]
        assert replicas["first"].load.failures == 0
        assert (first.books.totals.completed, second.books.totals.completed) == (0, 1)
        assert (await stage.keeper.audit()).ok


async def test_the_first_answers_when_it_begins_before_the_second(tmp_path: Path) -> None:
    """The second was asked in vain: its row says so, and the answer is the first one's."""
    first, second = Fault(kind="slow", delay=1.5), Fault(kind="slow", delay=60.0)
    async with model_of(tmp_path, "hedge_after: 0.2", first, second) as (stage, _, _):
        answer = await stage.chat(stream=True)
        said(answer, stream=True)
        assert await attempts(stage, answer) == [("first", "ok", None), ("second", "failed", "hedged")]
        found = await stage.generation(answer.headers["x-generation-id"])
        assert (found["tokens_completion"], found["status"]) == (TOKENS, "ok")
        assert found["total_cost"] > 0
        assert await hedges(stage) == {"first": 1}
        assert (await stage.keeper.audit()).ok


async def test_a_rival_that_fails_leaves_the_other_to_answer(tmp_path: Path) -> None:
    """Either may fail on its own while both are asked."""
    broken = Fault(kind="error_status", status=500)
    async with model_of(tmp_path, "hedge_after: 0.2", Fault(kind="slow", delay=1.5), broken) as (stage, first, second):
        answer = await stage.chat(stream=True)
        said(answer, stream=True)
        assert await attempts(stage, answer) == [("first", "ok", None), ("second", "failed", "error")]
        first.faults.arm(Fault(kind="stall", mode="silent"))
        second.faults.arm(broken)
        asking = asyncio.create_task(stage.chat(stream=True))
        await asyncio.sleep(0.6)
        asking.cancel()  # both are of no use: the caller goes
        await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(10):
            while len(await stage.keeper.recent(9)) < 2:
                await asyncio.sleep(0.05)
        (record,) = await stage.settled()
        assert {row.status for row in record.attempts} <= {"failed", "client_cancel"}
        assert all(row.charge_nano == 0 for row in record.attempts)
        replicas = stage.gateway.registry.fleet.replicas
        assert [replica.load.in_flight for replica in replicas.values()] == [0, 0]
        assert (await stage.keeper.audit()).ok


@pytest.mark.parametrize(("keys", "kind"), [("hedge_after: 0.2", "openai"), ("name: unhedged", "vllm")])
async def test_nobody_is_hedged_unasked_or_at_somebody_elses_price(keys: str, kind: str, tmp_path: Path) -> None:
    """Off by default, and never with an external API: it would bill the request twice."""
    async with model_of(tmp_path, keys, Fault(kind="slow", delay=0.6), second=kind) as (stage, _, second):
        answer = await stage.chat(stream=True)
        assert await attempts(stage, answer) == [("first", "ok", None)]
        assert second.books.totals.requests == 0
        assert await hedges(stage) == {}


async def test_a_whole_answer_is_not_asked_for_twice(tmp_path: Path) -> None:
    """It comes all at once: how long it takes says nothing of when the engine began it."""
    async with model_of(tmp_path, "hedge_after: 0.1", Fault(kind="slow", delay=0.6)) as (stage, _, second):
        answer = await stage.chat()
        said(answer, stream=False)
        assert await attempts(stage, answer) == [("first", "ok", None)]
        assert second.books.totals.requests == 0
        assert await hedges(stage) == {}


async def test_hedges_stay_within_the_retry_budget(tmp_path: Path) -> None:
    """When everything is slow, hedging adds no more load than retries may."""
    slow = Fault(kind="slow", delay=2.0)
    async with model_of(tmp_path, "hedge_after: 0.05", slow, slow) as (stage, first, second):
        await asyncio.gather(*(stage.chat(stream=True) for _ in range(30)))
        assert first.books.totals.requests + second.books.totals.requests <= 40
        assert stage.gateway.desk.upstream.budget.remaining(monotonic()) == 0


async def test_the_models_first_token_limit_moves_the_request_on(tmp_path: Path) -> None:
    """It is tighter than the backend's own, which allows ten minutes."""
    async with model_of(tmp_path, "limits: {ttft: 1}", Fault(kind="slow", delay=60.0)) as (stage, _, _):
        answer = await stage.chat(stream=True)
        said(answer, stream=True)
        assert await attempts(stage, answer) == [("first", "failed", "first_byte"), ("second", "ok", None)]


async def test_the_models_gap_limit_ends_a_stalled_answer_and_signs_of_life_do_not_help(tmp_path: Path) -> None:
    """An engine that only sends comments has stalled where a model limits the gap between tokens."""

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk("Weirs ")))
        while not visit.gone.is_set():
            await visit.events(b": alive\n\n")
            await asyncio.sleep(0.05)

    async with hand_backend(script) as backend:
        listed: list[Any] = [Backend("first", backend.url, model="m")]
        text = configuration(listed, models=models(*listed, keys="limits: {inter_token: 0.4}"))
        async with staged(tmp_path, text) as stage:
            answer = await asyncio.wait_for(stage.chat(stream=True), 20)
            error = events(answer.content)[-1]["error"]
            assert (error["code"], error["metadata"]["error_type"]) == (504, "timeout")


def established(port: int) -> set[int]:
    """Return the local ports of connections to ``port`` that are open at both ends."""
    table = Path("/proc/net/tcp").read_text()
    return {int(found[1], 16) for found in re.finditer(rf"\d+: \S+:(\w+) \S+:{port:04X} 01 ", table)}


async def test_no_connection_is_left_that_came_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first begins in about the loop step in which the second is connected and has not been asked anything."""
    connect, send = Pool.connect, Connection.send
    asked: list[Receiver] = []
    late: list[int] = []
    steps = 0

    def noted(self: Connection, request: bytes, receiver: Receiver) -> None:
        if isinstance(receiver, Attempt):
            asked.append(receiver)
        send(self, request, receiver)

    async def beaten(self: Pool, limit: float) -> Connection:
        made = await connect(self, limit)
        if asked and self.host == second.url.removeprefix("http://").encode():
            assert made.transport is not None
            late.append(made.transport.get_extra_info("sockname")[1])
            asked[0].head(200, [(b"content-type", b"application/json")])
            asked[0].data(json.dumps(whole()).encode())
            asked[0].end()
            try:
                for _ in range(steps):
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                made.abort()  # as the loop itself does
                raise
        return made

    async def silent(visit: Visit) -> None:
        await visit.gone.wait()

    async with hand_backend(silent) as first, hand_backend(silent) as second:
        listed = [Backend(name, each.url, provider=name) for name, each in (("first", first), ("second", second))]
        text = configuration(
            listed, models=models(*listed, keys="hedge_after: 0.1"), more="routing: {default: cheapest}"
        )
        async with staged(tmp_path, text) as stage:
            monkeypatch.setattr(Connection, "send", noted)
            monkeypatch.setattr(Pool, "connect", beaten)
            for each in range(5):
                steps = each
                asked.clear()
                answer = await stage.chat(stream=True)
                assert answer.status_code == 200, answer.text
            assert len(late) == 5
            port = int(second.url.rpartition(":")[2])
            async with asyncio.timeout(10):
                while left := established(port).intersection(late):
                    await asyncio.sleep(0.02)
            assert not left
