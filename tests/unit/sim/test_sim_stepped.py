"""The step model in real time: what readers are told, and when."""

from __future__ import annotations

import asyncio

from gateway.sim import SimConfig
from gateway.sim.engine import Phase
from gateway.sim.stepped import SteppedEngine, SteppedRun
from gateway.sim.text import Prompt
from gateway.stepmodel import PROFILES


class Recorder:
    """A reader that notes what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.limited = 0
        self.first = False
        self.ended = asyncio.Event()

    def on_first(self) -> None:
        """Note the first token."""
        self.first = True

    def on_steps(self, first: int, last: int) -> None:
        """Note decode steps."""
        self.steps.append((first, last))

    def on_limit(self) -> None:
        """Note that the limit is reached."""
        self.limited += 1

    def on_end(self) -> None:
        """Note the end."""
        self.ended.set()

    def flush(self) -> None:
        """Nothing to write."""


def engine() -> SteppedEngine:
    """Return a fast engine on the running loop."""
    return SteppedEngine(SimConfig(profile="fast"), asyncio.get_running_loop(), PROFILES["fast"])


async def test_every_token_is_told_on_its_own() -> None:
    """A reader that keeps up hears of each step once, in order."""
    on, reader = engine(), Recorder()
    on.submit(on.generation(Prompt("a few words", 3), 5, reader, streamed=True))
    async with asyncio.timeout(10):
        await reader.ended.wait()
    assert reader.first
    assert reader.steps == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]


async def test_a_reader_that_pauses_gets_all_of_it_later() -> None:
    """The engine does not wait for slow readers, and nothing is lost for them; the place in the batch is free."""
    on, slow, quick = engine(), Recorder(), Recorder()
    held = on.generation(Prompt("a few words", 3), 5, slow, streamed=True)
    held.hold()
    on.submit(held)
    on.submit(on.generation(Prompt("a few words", 3), 20, quick, streamed=True))
    async with asyncio.timeout(10):
        await quick.ended.wait()
    assert not slow.steps
    assert (len(on.running), on.kv_usage) == (0, 0.0)
    held.resume()
    async with asyncio.timeout(10):
        await slow.ended.wait()
    assert slow.steps == [(0, 5)]


async def test_an_answer_that_stands_still_says_so_once() -> None:
    """A limit is reported one time and the run waits to be stopped."""
    on, reader, quick = engine(), Recorder(), Recorder()
    run = on.generation(Prompt("a few words", 3), 50, reader, streamed=True)
    run.limit = 2
    on.submit(run)
    on.submit(on.generation(Prompt("a few words", 3), 10, quick, streamed=False))
    async with asyncio.timeout(10):
        await quick.ended.wait()
    assert (reader.steps, reader.limited, run.phase) == ([(0, 1), (1, 2)], 1, Phase.DECODE)
    assert not quick.steps
    run.stop()
    assert (run.phase, run.done, on.kv_usage) == (Phase.STOPPED, 2, 0.0)


async def test_a_struck_request_slows_the_engine_while_it_lives() -> None:
    """Real engines have one clock for the batch: a slow one is slow for all, and no longer than the fault."""
    on, reader = engine(), Recorder()
    run = on.generation(Prompt("a few words", 3), 3, reader, streamed=True)
    run.slowness = 6.0
    on.submit(run)
    async with asyncio.timeout(10):
        await reader.ended.wait()
    assert run.ended_at - run.first_at > 2 * 4 * PROFILES["fast"].step_s
    after = Recorder()
    quick = on.generation(Prompt("a few words", 3), 3, after, streamed=True)
    assert isinstance(quick, SteppedRun)
    on.submit(quick)
    async with asyncio.timeout(10):
        await after.ended.wait()
    assert quick.sequence.ended_at is not None
    assert quick.sequence.first_at is not None
    assert quick.sequence.ended_at - quick.sequence.first_at < 2 * 4 * PROFILES["fast"].step_s
