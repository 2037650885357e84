"""The scorer ``time``: everybody's time, and answers that come too late."""

from __future__ import annotations

import pytest

from gateway.fleet.booking import Booking, Work
from gateway.fleet.snapshot import Candidate
from gateway.types.priority import Priority
from policies.scorers.time import TimeParams, TimeScorer
from tests.fakes.fleet import backend, candidates, route_request

PLAIN = TimeScorer(TimeParams())
IN_TIME = TimeScorer(TimeParams(miss_s=300.0))


def busy(candidate: Candidate, itl: float, requests: int = 20) -> None:
    """Put so many answers on a replica, whose engine takes ``itl`` seconds between tokens then."""
    load = candidate.replica.load
    for _ in range(requests):
        Booking(load, Work(100, 200), 999.0).answered(999.5)
    load.watched = 1.0  # for long, so that what came at one moment says little of what will come
    estimate = load.estimate
    estimate.step, estimate.per_request, estimate.per_context = itl, 0.0, 0.0
    load.facts = None


def fleet(*itls: float) -> tuple[Candidate, ...]:
    """Return replicas with those seconds between tokens, all with the same work."""
    found = candidates(*(backend(f"gpu-{number}") for number in range(len(itls))))
    for candidate, itl in zip(found, itls, strict=True):
        busy(candidate, itl)
    return found


def test_far_from_the_limits_time_alone_decides() -> None:
    """With room to spare on every replica the scores are the very same ones."""
    found = fleet(0.015, 0.02, 0.025)
    request = route_request(prompt_tokens=200)
    assert IN_TIME.score(request, found) == PLAIN.score(request, found)


def test_with_room_to_spare_the_first_token_counts_more() -> None:
    """A prompt does not queue behind a long one for the sake of a few answers that would run a little quicker."""
    quiet, queued = found = fleet(0.0165, 0.015)
    Booking(queued.replica.load, Work(4_000, 200), 999.9)
    assert quiet is not queued
    for candidate in found:
        candidate.replica.load.estimate.per_request = 0.0
        candidate.replica.load.facts = None
    request = route_request(prompt_tokens=200, expected_tokens=600)
    assert PLAIN.score(request, found)[1] == 1.0
    assert TimeScorer(TimeParams(miss_s=300.0, first=6.0)).score(request, found)[0] == 1.0


def test_who_would_be_late_goes_where_it_harms_fewest() -> None:
    """Beyond the limit already, a replica takes a long prompt that would push another one over it."""
    edge, lost = found = fleet(0.055, 0.09)
    request = route_request(prompt_tokens=30_000, expected_tokens=100)
    assert edge is not lost
    in_time = IN_TIME.score(request, found)
    assert in_time[1] == 1.0 > in_time[0]
    assert PLAIN.score(request, found)[0] == 1.0


def test_of_two_that_are_beyond_the_limit_the_slow_one_takes_the_excess() -> None:
    """The fast one could keep the limit again with less to do."""
    found = fleet(0.2, 0.2)
    for candidate in found:
        estimate = candidate.replica.load.estimate
        estimate.step, estimate.per_request = 0.02, 0.18 / candidate.replica.load.depth
    slow = found[1].replica.load.estimate
    slow.step, slow.per_request, slow.token = 0.04, 0.16 / found[1].replica.load.depth, 3 * slow.token
    found[1].replica.load.facts = None
    request = route_request(prompt_tokens=100, expected_tokens=10)
    assert PLAIN.score(request, found)[0] == 1.0
    assert IN_TIME.score(request, found)[1] == 1.0


def test_a_long_line_of_prompts_does_not_make_a_slow_machine() -> None:
    """How fast a machine is shows in its steps: one that was given up is spared until it is back, however late."""
    found = fleet(0.048, 0.2)
    for candidate in found:
        candidate.replica.load.estimate.step, load = 0.02, candidate.replica.load
        load.estimate.per_request = ((0.048 if candidate is found[0] else 0.2) - 0.02) / load.depth
        load.facts = None
    request = route_request(prompt_tokens=100, expected_tokens=10)
    before = IN_TIME.score(request, found)
    found[1].replica.load.estimate.token *= 1.01
    found[1].replica.load.facts = None
    assert IN_TIME.score(request, found)[1] == pytest.approx(before[1], rel=1e-3)
    assert before[0] == 1.0


def test_a_replica_that_is_slow_by_itself_is_not_spared_for_better_times() -> None:
    """Less to do would not bring it within the limit, so nothing is gained by leaving it idle."""
    found = candidates(backend("idle"), backend("crowded"))
    busy(found[0], 0.07, requests=0)
    busy(found[1], 0.2, requests=40)
    found[1].replica.load.estimate.token *= 3
    request = route_request(prompt_tokens=100, expected_tokens=10)
    assert IN_TIME.score(request, found)[0] == 1.0


@pytest.mark.parametrize("change", [{"waited": 30.0}, {"priority": Priority.BATCH}])
def test_a_request_that_has_nothing_to_miss_leaves_the_good_place_to_others(change: dict[str, object]) -> None:
    """One that waited too long already, or is in no hurry, goes where answers are late anyway."""
    scorer = TimeScorer(TimeParams(miss_s=300.0, relief=0.0))
    found = fleet(0.051, 0.075)
    usual = scorer.score(route_request(prompt_tokens=1_000, expected_tokens=200), found)
    other = scorer.score(route_request(prompt_tokens=1_000, expected_tokens=200, **change), found)
    assert usual[0] == 1.0 > usual[1]
    assert other[1] == 1.0 > other[0]


def test_own_replicas_may_be_fuller_where_an_external_api_takes_the_rest() -> None:
    """At two thirds of the limit a busy own replica already loses to a calm one, and beside an API it does not yet."""
    found = fleet(0.036, 0.02)
    outside = candidates(backend("api", kind="openai", provider="api"))
    request = route_request(prompt_tokens=200, expected_tokens=100)
    plain, alone = PLAIN.score(request, found), IN_TIME.score(request, found)
    assert alone[0] < 0.9 * plain[0]
    beside = IN_TIME.score(request, (*found, *outside))
    assert beside[0] / beside[1] == pytest.approx(plain[0] / plain[1], rel=1e-6)


def test_a_callers_own_limits_count_for_it() -> None:
    """A caller that asks for 10 ms between tokens gets the replica that can, though all keep the usual limit."""
    found = fleet(0.009, 0.02)
    busy(found[0], 0.009, requests=400)
    request = route_request(prompt_tokens=100, expected_tokens=200)
    hurried = route_request(prompt_tokens=100, expected_tokens=200, slo_itl=0.012)
    assert IN_TIME.score(hurried, found)[1] < IN_TIME.score(request, found)[1]
