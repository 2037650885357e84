"""The engine model of a replica: what it starts from, what it learns, what it never believes."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.estimate import CLAMP, Estimate, Prior, attended


def test_it_starts_from_its_prior() -> None:
    """Before the first sample a prompt takes the base, its tokens at the rate, what each prompt takes, and steps."""
    estimate = Estimate(Prior(base=0.1, rate=10_000.0, attention=0.0, per_prompt=0.02, stated=True))
    assert estimate.ttft(5_000, 0.0, 0.0) == pytest.approx(0.62)
    assert estimate.ttft(5_000, 0.0, 0.0, prompts=3) == pytest.approx(0.66)
    assert estimate.itl(0, 0) == pytest.approx(Prior().step)


def test_it_learns_an_engine_that_is_slower_than_its_prior() -> None:
    """After two hundred noisy samples of an engine of half the rate, the error is small and shown."""
    estimate, rng = Estimate(Prior(rate=20_000.0, stated=True)), Random(1)
    for _ in range(200):
        tokens = rng.randrange(500, 8_000)
        seconds = (0.03 + tokens / 10_000.0) * rng.lognormvariate(0.0, 0.05)
        estimate.learn_ttft(tokens, attended(tokens, 0.0), 0.0, seconds)
    assert estimate.ttft(4_000, attended(4_000, 0.0), 0.0) == pytest.approx(0.43, rel=0.1)
    assert estimate.ttft_error is not None
    assert estimate.ttft_error < 0.15
    assert estimate.samples == 200


@given(st.lists(st.tuples(st.integers(0, 100_000), st.floats(1e-4, 1e4)), max_size=60))
def test_no_samples_make_a_replica_free_or_dead(samples: list[tuple[int, float]]) -> None:
    """Whatever is seen, a stated rate stays within its clamp and predictions stay positive."""
    estimate = Estimate(Prior(stated=True))
    for tokens, seconds in samples:
        estimate.learn_ttft(tokens, attended(tokens, 0.0), 0.02, seconds)
        estimate.learn_itl(4, tokens, 0.01, seconds)
    rate = Prior().rate
    assert rate / CLAMP * 0.999 <= estimate.rate <= rate * CLAMP * 1.001
    assert estimate.ttft(100, 0.0, 0.02) > 0
    assert estimate.itl(1, 100, 0.5) > 0


@pytest.mark.parametrize("seed", [7, 21, 57])
def test_a_coefficient_at_its_bound_leaves_the_rest_free_to_learn(seed: int) -> None:
    """Into whatever corner other loads drove the model, two hundred answers at a steady load bring it back."""
    estimate, rng = Estimate(), Random(seed)
    for _ in range(4):
        batch, pace, read = rng.randrange(60, 300), rng.choice((0.01, 0.02, 0.04, 0.08)), 0.01 * rng.random()
        context = batch * rng.randrange(100, 500)
        for _ in range(400):
            noise = [rng.lognormvariate(0.0, spread) for spread in (0.02, 0.1, 0.5, 0.07)]
            estimate.learn_itl(batch * noise[0], context * noise[1], read * noise[2], pace * noise[3])
    for _ in range(200):
        estimate.learn_itl(27.0, 9_000 * rng.lognormvariate(0.0, 0.05), 0.0005, 0.0163 * rng.lognormvariate(0.0, 0.03))
    assert estimate.pace(27, 9_000) + 0.0005 * estimate.reading == pytest.approx(0.0163, rel=0.15)


def test_what_a_prompt_takes_beside_its_tokens_is_learned() -> None:
    """An engine that takes 66 ms more for each prompt is predicted for one prompt and for five that wait."""
    estimate, rng = Estimate(Prior(rate=17_544.0, stated=True)), Random(1)
    for _ in range(400):
        tokens, prompts = rng.randrange(100, 3_000), rng.randrange(1, 5)
        seconds = 0.015 + 0.066 * prompts + tokens * prompts / 17_544.0
        estimate.learn_ttft(tokens * prompts, 0.0, 0.02, seconds, prompts=prompts)
    for prompts in (1, 5):
        true = 0.015 + 0.066 * prompts + 1_000 * prompts / 17_544.0
        assert estimate.ttft(1_000 * prompts, 0.0, 0.02, prompts=prompts) == pytest.approx(true, rel=0.15)


def test_a_standstill_says_nothing_of_reading() -> None:
    """Minutes of waiting for room do not make an engine read slowly; how far they come true is learned."""
    estimate = Estimate(Prior(rate=20_000.0, stated=True))
    rate = estimate.rate
    for _ in range(300):
        estimate.learn_ttft(1_000, 0.0, 0.02, 30.0, standstill=60.0)
    assert estimate.rate == rate
    assert estimate.ttft(1_000, 0.0, 0.02, 60.0) == pytest.approx(30.0, rel=0.1)


def test_who_was_read_with_others_is_judged_but_not_learned_from() -> None:
    """The error says how good predictions are for everybody."""
    estimate = Estimate()
    before = estimate.token
    estimate.learn_ttft(1_000, 0.0, 0.02, 9.0, telling=False)
    assert (estimate.token, estimate.samples) == (before, 0)
    assert estimate.ttft_error is not None


def test_reading_prompts_stretches_steps() -> None:
    """With half of the time spent on reading, tokens come at half the pace."""
    estimate = Estimate()
    assert estimate.itl(1, 0, 0.5) == pytest.approx(2 * estimate.itl(1, 0))


def paced(estimate: Estimate, batch: float, machine: float = 1.0) -> float:
    """Learn one answer beside ``batch`` others of 1,000 tokens from a machine with costly requests; return its time."""
    seconds = machine * (0.0155 + 0.0004 * batch + 7.6e-8 * 1_000 * batch)
    estimate.learn_itl(batch, 1_000 * batch, 0.0, seconds)
    return seconds


def test_a_load_that_does_not_change_washes_nothing_away() -> None:
    """What was learned while the load grew is still known after an hour of one and the same load, noise and all."""
    estimate, rng = Estimate(), Random(3)
    for batch in [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64] * 5:
        paced(estimate, batch)
    for _ in range(5_000):
        paced(estimate, 64, machine=rng.lognormvariate(0.0, 0.07))
    for batch in (4, 32, 64, 128):
        assert estimate.itl(batch, 1_000 * batch) == pytest.approx(0.0155 + 0.000476 * batch, rel=0.25)


def test_a_machine_whose_speed_changes_is_followed() -> None:
    """Under the load that it has then, the prediction is right again after some hundred samples."""
    estimate = Estimate()
    for batch in [1, 8, 16, 32, 64] * 20:
        paced(estimate, batch)
    for _ in range(400):
        paced(estimate, 64, machine=2.0)
    assert estimate.itl(64, 64_000) == pytest.approx(2 * (0.0155 + 0.000476 * 64), rel=0.1)


def test_one_slow_answer_tells_of_the_whole_machine() -> None:
    """A machine that is three times slower at one load is expected to be slower at every load, not at that one only."""
    estimate, usual = Estimate(), Estimate()
    for _ in range(12):
        estimate.learn_itl(20, 20_000, 0.0, 3 * usual.itl(20, 20_000))
    assert estimate.itl(1, 1_000) > 1.5 * usual.itl(1, 1_000)
    assert estimate.itl(100, 100_000) > 1.5 * usual.itl(100, 100_000)


def test_ten_thousand_absurd_samples_do_no_lasting_harm() -> None:
    """After a night of figures that no engine can have, a few hundred true ones are enough."""
    estimate = Estimate()
    for _ in range(10_000):
        estimate.learn_itl(4, 4_000, 0.01, 1e6)
    for _ in range(400):
        estimate.learn_itl(4, 4_000, 0.0, 0.02)
    assert estimate.itl(4, 4_000) == pytest.approx(0.02, rel=0.2)
