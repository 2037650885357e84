"""Slots, queue and clock of the simulated engine."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gateway.sim import SimConfig, Timing
from gateway.sim.engine import Engine, GenerationRun, Phase
from gateway.sim.text import Prompt


class Recorder:
    """A reader that notes what it is told, and when."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.moments: list[float] = []
        self.first_at = 0.0
        self.limited = False
        self.ended = asyncio.Event()

    def on_first(self) -> None:
        """Note the first token."""
        self.first_at = time.monotonic()

    def on_steps(self, first: int, last: int) -> None:
        """Note decode steps."""
        self.steps.append((first, last))
        self.moments.append(time.monotonic())

    def on_limit(self) -> None:
        """Note that the limit is reached."""
        self.limited = True

    def on_end(self) -> None:
        """Note the end."""
        self.ended.set()

    def flush(self) -> None:
        """Nothing to write."""


def engine(timing: Timing, **fields: Any) -> Engine:
    """Return an engine on the running loop."""
    return Engine(SimConfig(timing=timing, **fields), asyncio.get_running_loop())


def submit(
    on: Engine, steps: int = 4, *, streamed: bool = True, words: str = "a few words", tokens: int = 3
) -> tuple[GenerationRun, Recorder]:
    """Hand a request to the engine."""
    reader = Recorder()
    run = GenerationRun(on, Prompt(words, tokens), steps, reader, streamed=streamed)
    on.submit(run)
    return run, reader


async def test_without_latencies_everything_happens_at_once() -> None:
    """With zero timing a request is over before ``submit`` returns, its tokens in one report."""
    on = engine(Timing())
    run, reader = submit(on, 50)
    assert run.phase is Phase.DONE
    assert reader.steps == [(0, 50)]
    assert reader.ended.is_set()
    assert (len(on.running), len(on.waiting)) == (0, 0)


async def test_long_bursts_give_the_loop_a_turn() -> None:
    """Thousands of instant tokens come in several reports, so that a reader can stop them in between."""
    on = engine(Timing())
    run, reader = submit(on, 5_000)
    assert run.phase is Phase.DECODE
    async with asyncio.timeout(10):
        await reader.ended.wait()
    assert len(reader.steps) > 5
    assert reader.steps[-1][1] == 5_000


async def test_tokens_come_one_by_one_after_the_prefill() -> None:
    """The first token waits for base and prefill, each further one for the inter-token latency."""
    on = engine(Timing(base_ttft=0.02, prefill_tokens_per_s=1_000, itl=0.02))
    begun = time.monotonic()
    run, reader = submit(on, 4, tokens=30)
    assert run.phase is Phase.PREFILL
    async with asyncio.timeout(10):
        await reader.ended.wait()
    assert reader.first_at - begun >= 0.049
    assert reader.steps == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert reader.moments[-1] - reader.moments[0] >= 0.055


async def test_cached_tokens_take_no_prefill() -> None:
    """The second identical prompt is prefilled only as far as it is not cached."""
    on = engine(Timing(prefill_tokens_per_s=1_000_000))
    words = "the river runs past the old mill " * 20
    first, reader = submit(on, words=words, tokens=140)
    await reader.ended.wait()
    second, reader = submit(on, words=words, tokens=140)
    await reader.ended.wait()
    assert first.cached_tokens == 0
    assert second.cached_tokens >= 112
    assert on.counters.cache_hits == second.cached_tokens


async def test_slots_are_given_in_order_of_arrival() -> None:
    """More requests than slots wait, and start in the order they came."""
    on = engine(Timing(itl=0.005, slots=2))
    readers = [submit(on, 3)[1] for _ in range(6)]
    assert (len(on.running), len(on.waiting)) == (2, 4)
    async with asyncio.timeout(10):
        for reader in readers:
            await reader.ended.wait()
    firsts = [reader.first_at for reader in readers]
    assert firsts == sorted(firsts)
    assert (len(on.running), len(on.waiting)) == (0, 0)


async def test_thousands_of_instant_requests_drain_without_depth() -> None:
    """A long queue of requests that take no time drains in one go, not one stack frame deeper each."""
    on = engine(Timing(slots=1))
    blocker, _ = submit(on, 0)
    assert blocker.phase is Phase.DONE
    stalled, _ = submit(on, 3)
    stalled.limit = 1
    blocked = GenerationRun(on, Prompt("", 0), 3, Recorder(), streamed=True)
    blocked.limit = 0
    on.submit(blocked)
    readers = [submit(on, 1)[1] for _ in range(5_000)]
    assert len(on.waiting) == 5_000
    blocked.stop()
    assert all(reader.ended.is_set() for reader in readers)


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.PREFILL, Phase.DECODE])
async def test_a_stopped_request_frees_its_slot_at_once(phase: Phase) -> None:
    """Stopping works in every phase, produces nothing more, and lets the next one start."""
    on = engine(Timing(base_ttft=0.05 if phase is Phase.PREFILL else 0.0, itl=0.02, slots=1))
    other, other_reader = submit(on, 10_000)  # minutes: it is still going when it is looked at
    if phase is Phase.QUEUED:
        run, reader = submit(on, 10_000)
    else:
        run, reader = other, other_reader
        other, other_reader = submit(on, 2)
        if phase is Phase.DECODE:
            await asyncio.sleep(0.05)
    assert run.phase is phase
    run.stop()
    assert run.phase is Phase.STOPPED
    assert run not in on.running
    assert run not in on.waiting
    made = len(reader.steps)
    if phase is not Phase.QUEUED:
        async with asyncio.timeout(10):
            await other_reader.ended.wait()
    await asyncio.sleep(0.05)
    assert len(reader.steps) == made
    assert not reader.ended.is_set()
    other.stop()
    assert on.unread_tokens == 0


async def test_a_whole_answer_knows_how_far_it_was_when_stopped() -> None:
    """An answer that is not streamed has one timer, and still counts the tokens made until it was stopped."""
    on = engine(Timing(itl=0.01))
    run, _ = submit(on, 1_000, streamed=False)
    await asyncio.sleep(0.1)
    run.stop()
    assert 2 <= run.done < 1_000


async def test_a_reader_that_is_held_gets_nothing_until_it_resumes() -> None:
    """Holding stops production, resuming goes on where it was."""
    on = engine(Timing(itl=0.01))
    run, reader = submit(on, 6)
    run.hold()
    await asyncio.sleep(0.08)
    assert run.done <= 1
    assert run.phase is Phase.DECODE
    run.resume()
    async with asyncio.timeout(10):
        await reader.ended.wait()
    assert reader.steps[-1] == (5, 6)


async def test_a_limited_run_stands_still_and_keeps_its_slot() -> None:
    """At its limit a run reports it once and waits to be stopped."""
    on = engine(Timing())
    reader = Recorder()
    run = GenerationRun(on, Prompt("x", 1), 10, reader, streamed=True)
    run.limit = 4
    on.submit(run)
    assert reader.limited
    assert reader.steps == [(0, 4)]
    assert run in on.running
    run.resume()
    await asyncio.sleep(0.02)
    assert run.done == 4
    run.stop()
    assert not on.running


async def test_full_queues_refuse() -> None:
    """Both limits refuse with their reason, and are counted."""
    on = engine(Timing(itl=1, slots=1, queue_limit=1))
    runs = []
    for _ in range(2):
        assert on.refusal(3) is None
        runs.append(submit(on)[0])
    assert on.refusal(3) == "queue_full"
    runs[0].stop()
    assert on.refusal(3) is None
    runs[1].stop()
    on = engine(Timing(base_ttft=1, queue_token_limit=100))
    assert on.refusal(500) is None
    run, _ = submit(on, tokens=60)
    assert on.refusal(40) is None
    assert on.refusal(41) == "queued_tokens"
    assert on.counters.refused == {"queued_tokens": 1}
    run.stop()
    assert on.refusal(500) is None


async def test_kv_usage_counts_running_requests_only() -> None:
    """The KV gauge is what running requests hold; cached blocks count as free."""
    on = engine(Timing(itl=1), kv_tokens=1_000)
    run, _ = submit(on, 10, tokens=99)
    assert on.kv_usage == pytest.approx(0.1)
    run.stop()
    assert on.kv_usage == 0


async def test_jitter_repeats_with_the_seed() -> None:
    """Two engines of one seed draw the same latencies, another seed others."""
    draws = [[engine(Timing(itl=0.1, jitter=0.3), seed=seed).itl() for _ in range(1)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("fields", [{"itl": -1}, {"slots": 0}, {"queue_limit": -1}, {"jitter": -0.1}])
def test_timings_that_make_no_sense_are_refused(fields: dict[str, int]) -> None:
    """Negative latencies and limits, and no slots at all, raise."""
    with pytest.raises(ValueError, match=next(iter(fields))):
        Timing(**fields)


@pytest.mark.parametrize(
    "fields", [{"kind": "llama"}, {"models": ()}, {"answer_tokens": 0}, {"rpm": 0}, {"answer_tokens_max": 1}]
)
def test_configurations_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    """An unknown kind, no model, no tokens: refused when the configuration is made."""
    with pytest.raises(ValueError, match=r"kind|model|answer_tokens|rpm"):
        SimConfig(**fields)


def test_secrets_are_not_shown() -> None:
    """The API key is not in the printed configuration."""
    assert "s3cret" not in repr(SimConfig(api_key="s3cret"))
