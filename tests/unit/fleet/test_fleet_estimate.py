"""The engine model of a replica: what it starts from, what it learns, what it never believes."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.estimate import CLAMP, Estimate, Prior, attended


def test_it_starts_from_its_prior() -> None:
    """Before the first sample a prompt takes the base, its tokens at the rate, and the steps between."""
    estimate = Estimate(Prior(base=0.1, rate=10_000.0, attention=0.0, stated=True))
    assert estimate.ttft(5_000, 0.0, 0.0) == pytest.approx(0.6)
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


def test_reading_prompts_stretches_steps() -> None:
    """With half of the time spent on reading, tokens come at half the pace."""
    estimate = Estimate()
    assert estimate.itl(1, 0, 0.5) == pytest.approx(2 * estimate.itl(1, 0))
