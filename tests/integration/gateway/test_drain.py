"""``on_disconnect: drain``: what an API bills on for after its caller has left is in the books, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.sim import SimConfig, SimFleet, Timing
from gateway.upstream.drain import Drains
from tests.harness import Backend, chat_body, configuration, staged
from tests.integration.gateway.ledger import COST, Scene, cost, price

TOKENS = 60
API = SimConfig("openai", name="api", timing=Timing(itl=0.01, base_ttft=0.2), answer_tokens=TOKENS, prompt_cache=False)


@asynccontextmanager
async def scene(home: Path, config: SimConfig = API) -> AsyncIterator[Scene]:
    """Run a gateway over an API that is read to the end."""
    async with SimFleet((config,)) as fleet:
        (sim,) = fleet
        backend = Backend("api", sim.url, config.kind, config.models[0], endpoint=COST, more="on_disconnect: drain")
        async with staged(home, configuration([backend])) as stage:
            yield Scene(stage, fleet)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until ``holds``."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def leave_early(found: Scene, *, stream: bool) -> None:
    """Ask, and leave before the answer begins, once the backend has the request."""
    before = len(found.entries())
    asking = asyncio.create_task(found.stage.chat(stream=stream))
    await until(lambda: len(found.entries()) > before)
    asking.cancel()
    await asyncio.wait([asking])


async def leave_midway(found: Scene) -> None:
    """Ask for a stream and leave after its first words."""
    stream = await found.stage.openai().chat.completions.create(stream=True, **chat_body())
    seen = 0
    async for chunk in stream:
        seen += sum(bool(choice.delta.content) for choice in chunk.choices)
        if seen >= 5:
            break
    await stream.close()


@pytest.mark.parametrize(("more", "paid"), [("", False), ("on_disconnect: count", True)])
async def test_a_whole_answer_nobody_waits_for_is_counted_if_that_is_wanted(
    tmp_path: Path, more: str, paid: bool
) -> None:
    """The engine is stopped either way; what it made of a JSON answer is known only when that was streamed."""
    config = SimConfig(name="gpu", timing=Timing(itl=0.02, base_ttft=0.01), answer_tokens=500, prompt_cache=False)
    async with SimFleet((config,)) as fleet:
        (sim,) = fleet
        backend = Backend("gpu", sim.url, config.kind, config.models[0], endpoint=COST, more=more)
        async with staged(tmp_path, configuration([backend])) as stage:
            found = Scene(stage, fleet)
            asking = asyncio.create_task(stage.chat())
            await until(lambda: bool(found.entries()))
            await asyncio.sleep(1)  # some tokens; of a whole answer the engine's book has none before its end
            asking.cancel()
            await asyncio.wait([asking])
            await until(lambda: found.entries()[0].outcome != "running")
            (entry,) = found.entries()
            assert entry.completion_tokens < 500, "it was stopped"
            (row,) = await found.attempts()
            assert row.status == "client_cancel"
            if paid:
                assert 0 < row.usage.completion <= entry.completion_tokens
                assert row.charge_nano == price(row) > 0
            else:
                assert (row.usage.completion, row.charge_nano) == (0, 0)
            whole = (await stage.chat(max_tokens=7)).json()
            assert whole["object"] == "chat.completion"
            assert whole["usage"]["completion_tokens"] == 7
            await found.audited()


@pytest.mark.parametrize("how", ["stream before its start", "json", "stream in the middle"])
async def test_an_answer_nobody_waits_for_is_read_to_its_end(tmp_path: Path, how: str) -> None:
    """The engine is not stopped; the team pays what it counted, and the owner's cost is what the invoice will say."""
    async with scene(tmp_path) as found:
        if how == "stream in the middle":
            await leave_midway(found)
        else:
            await leave_early(found, stream=how != "json")
        (row,) = await found.attempts()
        (entry,) = found.entries()
        assert entry.outcome == "completed"
        assert (row.status, row.source) == ("client_cancel", "upstream")
        assert (row.usage.prompt, row.usage.completion) == (entry.prompt_tokens, TOKENS)
        assert row.charge_nano == price(row)
        assert row.cost_nano == cost(row)
        assert (await found.metric("weir_drains_total"))['outcome="ended"'] == 1
        assert found.stage.gateway.desk.upstream.drains.active == 0
        await found.audited()


async def test_drains_are_bounded_in_number_and_in_time(tmp_path: Path) -> None:
    """Over the most at once, or past the longest time, the backend is stopped and the tokens so far are the bill."""
    slow = SimConfig("openai", name="api", timing=Timing(itl=0.02), answer_tokens=2000)
    async with scene(tmp_path, slow) as found:
        desk = found.stage.gateway.desk
        desk.upstream.drains = Drains(desk.loop, desk.metrics, most=1, longest_s=3.0)
        await leave_midway(found)
        await until(lambda: desk.upstream.drains.active == 1)
        await leave_midway(found)
        records = await found.stage.settled(2)
        assert [entry.outcome for entry in found.entries()] == ["cancelled", "cancelled"]
        counted = await found.metric("weir_drains_total")
        assert (counted['outcome="full"'], counted['outcome="late"']) == (1, 1)
        rows = [row for record in records for row in record.attempts]
        assert [row.status for row in rows] == ["client_cancel"] * 2
        assert all(0 < row.usage.completion < 2000 for row in rows)
        await found.audited()


async def test_a_drain_ends_with_its_process(tmp_path: Path) -> None:
    """A shutdown waits for nobody who has left: the tokens so far are the bill."""
    slow = SimConfig("openai", name="api", timing=Timing(itl=0.02), answer_tokens=2000)
    async with scene(tmp_path, slow) as found:
        drains = found.stage.gateway.desk.upstream.drains
        await leave_midway(found)
        await until(lambda: drains.active == 1)
        await found.stage.gateway.drain(0.0)
        assert drains.active == 0
        (row,) = await found.attempts()
        assert row.status == "client_cancel"
        assert 0 < row.usage.completion < 2000
        await found.audited()
