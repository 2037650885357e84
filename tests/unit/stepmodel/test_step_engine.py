"""The step model does what a paged, continuously batching engine does; many steps planned at once change nothing."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.stepmodel import PROFILES, Profile, Report, Sequence, StepEngine
from gateway.stepmodel.engine import NEVER

QUIET = replace(PROFILES["fast"], jitter=0.0, drift=0.0, stall_share=0.0)
"""The fast engine without noise."""


def chain(*names: int) -> tuple[int, ...]:
    """Return chain hashes of blocks called ``names``."""
    made: list[int] = []
    for name in names:
        made.append(hash((made[-1] if made else 0, name)))
    return tuple(made)


def run(engine: StepEngine, until: float = NEVER) -> list[tuple[Report, Sequence]]:
    """Advance ``engine`` event by event up to ``until``."""
    reports: list[tuple[Report, Sequence]] = []
    while engine.next_at <= until and engine.next_at < NEVER:
        reports += engine.advance(engine.next_at)
    return reports


def served(engine: StepEngine, requests: list[tuple[float, Sequence]]) -> list[tuple[float | None, float | None]]:
    """Send ``requests`` at their times, run to the end, return first and last token times."""
    for at, sequence in requests:
        run(engine, at)
        engine.submit(sequence, at)
    run(engine)
    return [(sequence.first_at, sequence.ended_at) for _, sequence in requests]


def test_a_lone_request_takes_what_the_formula_says() -> None:
    """Chunks at the prefill rate with growing attention, then one step per token with growing context."""
    engine, profile = StepEngine(QUIET), QUIET
    sequence = Sequence(10_000, 3)
    engine.submit(sequence, 5.0)
    run(engine)
    first, second = 8_192, 10_000 - 8_192
    read = 10_000 / profile.prefill_tokens_per_s
    attention = profile.attention_s * (first * first / 2 + second * (first + second / 2))
    assert sequence.first_at is not None
    assert sequence.first_at == pytest.approx(5.0 + 2 * profile.step_s + read + attention)
    decode = 2 * (profile.step_s + profile.sequence_s) + profile.context_s * (10_000 + 10_001)
    assert sequence.ended_at == pytest.approx(sequence.first_at + decode)


def test_a_prompt_slows_the_answers_beside_it() -> None:
    """Chunked prefill: a sequence that decodes gets one token per step, and a step with a chunk is long."""
    alone, beside = StepEngine(QUIET), StepEngine(QUIET)
    calm, disturbed = Sequence(100, 50), Sequence(100, 50)
    alone.submit(calm, 0.0)
    run(alone)
    served(beside, [(0.0, disturbed), (0.2, Sequence(30_000, 1))])
    assert calm.ended_at is not None
    assert disturbed.ended_at is not None
    assert disturbed.ended_at - calm.ended_at > 30_000 / QUIET.prefill_tokens_per_s


def test_a_known_prefix_is_not_read_again_but_the_last_token_is() -> None:
    """Whole segments of an equal prefix are found in the cache, also after their sequence ended."""
    engine = StepEngine(QUIET, segment_tokens=512)
    keys = chain(*range(4))
    served(engine, [(0.0, Sequence(2_048, 4, keys))])
    same, longer, other = Sequence(2_048, 4, keys), Sequence(2_100, 4, keys), Sequence(2_048, 4, chain(9, 1, 2, 3))
    served(engine, [(10.0, same), (20.0, longer), (30.0, other)])
    assert (same.cached_tokens, longer.cached_tokens, other.cached_tokens) == (3 * 512, 4 * 512, 0)
    assert engine.hit_tokens == 7 * 512
    assert engine.kv_usage == 0.0


def test_what_is_cached_and_used_least_lately_makes_room() -> None:
    """A full cache refuses nobody: prefixes nobody uses go, the oldest first, and its end before its beginning."""
    engine = StepEngine(replace(QUIET, kv_tokens=3_072), segment_tokens=512)
    old, young = chain(*range(4)), chain(*range(10, 12))
    served(engine, [(0.0, Sequence(2_048, 1, old)), (10.0, Sequence(1_024, 1, young))])
    served(engine, [(20.0, Sequence(1_024, 1, chain(77, 78)))])
    assert engine.pool.matched(young) == 2
    assert engine.pool.matched(old) == 2


def test_a_prompt_waits_until_all_of_it_fits() -> None:
    """No prompt is begun that the cache cannot hold, and later ones do not overtake it."""
    engine = StepEngine(replace(QUIET, kv_tokens=4_096))
    first, large, small = Sequence(3_000, 100), Sequence(3_000, 1), Sequence(16, 1)
    for sequence in (first, large, small):
        engine.submit(sequence, 0.0)
    run(engine, 1.0)
    assert (engine.running, engine.waiting) == (1, 2)
    run(engine)
    assert first.ended_at is not None
    assert large.admitted_at is not None
    assert small.admitted_at is not None
    assert large.admitted_at >= first.ended_at
    assert small.admitted_at >= large.admitted_at


def test_who_came_last_is_thrown_out_when_blocks_run_out() -> None:
    """The first goes on, the last waits, is read again with what it had made, and loses no token."""
    engine = StepEngine(replace(QUIET, kv_tokens=1_024))
    first, last = Sequence(400, 300), Sequence(400, 300)
    served(engine, [(0.0, first), (0.0, last)])
    assert (first.preemptions, last.preemptions) == (0, 1)
    assert engine.preemptions == 1
    assert first.generated == last.generated == 300
    assert engine.generation_tokens == 600
    assert first.ended_at is not None
    assert last.ended_at is not None
    assert last.ended_at > first.ended_at
    assert engine.kv_usage == 0.0


def test_what_can_never_fit_is_refused() -> None:
    """A request that would wait for ever is an error, not a silence."""
    with pytest.raises(ValueError, match="do not fit"):
        StepEngine(replace(QUIET, kv_tokens=1_024)).submit(Sequence(1_000, 100), 0.0)


def test_a_cancelled_request_frees_its_blocks_wherever_it_is() -> None:
    """Queued, half read, decoding, over: nothing is left behind, and the others go on."""
    engine = StepEngine(replace(QUIET, kv_tokens=40_000, max_running=3))
    decoding, reading, queued, stays = Sequence(100, 500), Sequence(20_000, 5), Sequence(50, 5), Sequence(64, 400)
    served_already = Sequence(10, 1)
    for sequence in (decoding, stays, reading, queued):
        engine.submit(sequence, 0.0)
    run(engine, 0.6)
    assert decoding.first_at is not None
    assert reading.first_at is None
    assert queued.admitted_at is None
    for sequence in (decoding, reading, queued, served_already):
        engine.cancel(sequence, 0.7)
    assert 0 < decoding.generated < 500
    run(engine)
    assert stays.generated == 400
    assert decoding.ended_at is reading.ended_at is queued.ended_at is None
    assert (engine.running, engine.waiting, engine.kv_usage, engine.next_at) == (0, 0, 0.0, NEVER)


def test_an_engine_that_stops_tells_what_it_lost_and_is_as_new() -> None:
    """A death loses requests, their place and the cache; what was made so far is known."""
    engine = StepEngine(QUIET, segment_tokens=16)
    running, queued = Sequence(160, 500, chain(*range(10))), Sequence(300_000, 2)
    engine.submit(running, 0.0)
    run(engine, 1.0)
    engine.submit(queued, 1.0)
    assert engine.stop(1.5) == [running, queued]
    assert 0 < running.generated < 500
    assert (engine.running, engine.waiting, engine.kv_usage, engine.next_at) == (0, 0, 0.0, NEVER)
    again = Sequence(160, 2, chain(*range(10)))
    served(engine, [(2.0, again)])
    assert again.cached_tokens == 0


def test_a_slow_replica_is_slow_from_the_next_step_on() -> None:
    """A factor on all step times, set while it runs."""
    usual, slow = StepEngine(QUIET), StepEngine(QUIET)
    one, other = Sequence(100, 1_000), Sequence(100, 1_000)
    usual.submit(one, 0.0)
    run(usual)
    slow.slow_down(3.0, 0.0)
    slow.submit(other, 0.0)
    run(slow)
    assert one.ended_at is not None
    assert other.ended_at == pytest.approx(3 * one.ended_at)


def test_noise_repeats_with_its_seed_and_is_fair_on_average() -> None:
    """Equal seeds give equal times; over many steps noise takes nothing and gives nothing."""
    times = []
    for seed in (1, 1, 2):
        engine = StepEngine(PROFILES["fast"], seed=seed)
        sequence = Sequence(10, 4_096)
        served(engine, [(0.0, sequence)])
        times.append(sequence.ended_at)
    quiet = Sequence(10, 4_096)
    served(StepEngine(QUIET), [(0.0, quiet)])
    assert times[0] == times[1] != times[2]
    assert times[0] == pytest.approx(quiet.ended_at, rel=0.01)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 25),
    kv_tokens=st.sampled_from((4_000, 8_000, 312_000)),
    profile=st.sampled_from(tuple(PROFILES.values())),
)
def test_many_steps_planned_at_once_are_the_same_steps(seed: int, count: int, kv_tokens: int, profile: Profile) -> None:
    """Whatever comes when: times, tokens, preemptions and cache are those of one step at a time."""
    small = replace(profile, kv_tokens=kv_tokens, max_running=8)
    requests = []
    draw = Random(seed)
    at = 0.0
    for _ in range(count):
        at += draw.expovariate(2.0)
        prompt = draw.randrange(1, 3_000)
        keys = chain(draw.randrange(3), *range(prompt // 16)) if draw.random() < 0.7 else ()
        requests.append((at, prompt, draw.randrange(1, 400), keys, draw.random() < 0.15))
    outcomes = []
    for longest in (1, 7, 1_000_000):
        engine = StepEngine(small, seed=seed, longest_run=longest)
        sequences = [Sequence(prompt, answer, keys) for _, prompt, answer, keys, _ in requests]
        for (when, *_, cancelled), sequence in zip(requests, sequences, strict=True):
            run(engine, when)
            engine.submit(sequence, when)
            if cancelled:
                run(engine, when + 0.1)
                engine.settle(when + 0.1)
                engine.cancel(sequence, when + 0.1)
        run(engine)
        assert engine.kv_usage == 0.0
        assert (engine.running, engine.waiting) == (0, 0)
        outcomes.append(
            (
                [
                    (round(one.first_at or -1, 6), round(one.ended_at or -1, 6), one.generated, one.preemptions)
                    for one in sequences
                ],
                engine.preemptions,
                engine.hit_tokens,
                engine.generation_tokens,
            )
        )
    assert outcomes[0] == outcomes[1] == outcomes[2]
