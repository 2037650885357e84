"""The scorers and the picker that ship."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.snapshot import BackendSpec, Capacity
from gateway.fleet.booking import Booking, Work
from gateway.fleet.build import build
from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import NoParams
from gateway.routing.pipeline import decide
from gateway.routing.registry import PolicyRegistry
from gateway.types.failure import Cause, Failure
from gateway.types.money import Rates
from policies import BUILTIN, PRESETS
from policies.pickers.best import BestParams, BestPicker
from policies.scorers.cold import ColdScorer
from policies.scorers.cost import CostParams, CostScorer
from policies.scorers.latency import LatencyParams, LatencyScorer
from policies.scorers.price import PriceParams, PriceScorer
from policies.scorers.queue import QueueParams, QueueScorer
from policies.scorers.throughput import ThroughputScorer
from policies.scorers.uptime import UptimeScorer, UptimeScorerParams
from tests.fakes.fleet import MODEL, backend, candidates, endpoint, model, price_id, route_request, snapshot


def priced(*prices: Rates) -> tuple[Candidate, ...]:
    """Return one candidate per price."""
    specs = [backend(f"gpu-{number}", provider=f"p{number}") for number in range(len(prices))]
    endpoints = [endpoint(spec, price=price) for spec, price in zip(specs, prices, strict=True)]
    return build(snapshot(specs, [model(endpoints)]), None, price_id).models[MODEL].candidates


def test_the_cheapest_scores_one_and_twice_the_price_a_half() -> None:
    """The score is the lowest price over the own one, sharpened by the exponent."""
    found = priced(Rates(100, 100), Rates(200, 200), Rates(100, 100))
    assert list(PriceScorer(PriceParams()).score(route_request(), found)) == [1.0, 0.5, 1.0]
    assert list(PriceScorer(PriceParams(exponent=2)).score(route_request(), found)) == [1.0, 0.25, 1.0]


def test_the_price_is_that_of_this_very_request() -> None:
    """A cheap prompt wins for long prompts, a cheap answer for long answers, a price per request for neither."""
    found = priced(Rates(100, 900), Rates(200, 300), Rates(1, 1, request=10_000))
    scorer = PriceScorer(PriceParams())
    reading = scorer.score(route_request(prompt_tokens=10_000, expected_tokens=100), found)
    writing = scorer.score(route_request(prompt_tokens=100, expected_tokens=10_000), found)
    assert reading[0] == 1.0 > reading[1] > reading[2]
    assert writing[1] == 1.0 > writing[0] > writing[2]


def test_free_is_cheaper_than_anything() -> None:
    """A price of nothing beats every other, and two of them are equal."""
    found = priced(Rates(0, 0), Rates(1, 1), Rates(0, 0))
    assert list(PriceScorer(PriceParams()).score(route_request(), found)) == [1.0, 0.0, 1.0]


def test_equal_prices_score_alike() -> None:
    """Replicas of one endpoint are equally cheap: there is nothing to tell them apart by."""
    found = candidates(backend("a"), backend("b"), backend("c"))
    assert not PriceScorer(PriceParams()).score(route_request(), found)


def timed(ttfts: list[float | None], **changes: object) -> tuple[Candidate, ...]:
    """Return one candidate per average time to first token."""
    found = candidates(*(backend(f"gpu-{number}", **changes) for number in range(len(ttfts))))
    for one, ttft in zip(found, ttfts, strict=True):
        one.replica.load.ttft = ttft
    return found


LATENCY = LatencyScorer(LatencyParams(slack_s=0.5))


def test_the_quickest_scores_one() -> None:
    """Scores are ratios of predicted times, both with the slack added."""
    assert list(LATENCY.score(route_request(), timed([0.5, 1.5, 3.5]))) == [1.0, 0.5, 0.25]


def test_differences_below_the_slack_hardly_matter() -> None:
    """Ten or twenty milliseconds are both at once."""
    assert min(LATENCY.score(route_request(), timed([0.010, 0.020]))) > 0.95


def test_long_answers_are_judged_by_their_tokens() -> None:
    """Expected tokens per choice times the time between tokens is part of the prediction."""
    found = timed([0.5, 0.1])
    found[0].replica.load.itl, found[1].replica.load.itl = 0.01, 0.05
    short = LATENCY.score(route_request(expected_tokens=1), found)
    long = LATENCY.score(route_request(expected_tokens=1_000), found)
    assert short[1] == 1.0 > short[0]
    assert long[0] == 1.0 > long[1]
    assert LATENCY.score(route_request(expected_tokens=1_000, choices=1_000), found) == short


def test_prompt_tokens_that_wait_take_their_time() -> None:
    """What was sent from here and has no first token yet is ahead, at the replica's own prefill rate."""
    found = timed([0.5, 0.5], capacity=Capacity(prefill_tokens_per_s=1_000.0))
    found[1].replica.load.waiting_tokens = 3_000
    assert list(LATENCY.score(route_request(), found)) == [1.0, 0.25]
    usual = timed([0.5, 0.5])
    usual[1].replica.load.waiting_tokens = 15_928
    assert list(LATENCY.score(route_request(), usual)) == [1.0, 0.5]


def test_an_unknown_replica_is_as_good_as_the_best() -> None:
    """A replica without samples gets the chance to have some, but waits in its own queue."""
    found = timed([0.5, None, 1.5])
    assert list(LATENCY.score(route_request(), found)) == [1.0, 1.0, 0.5]
    found[1].replica.load.waiting_tokens = 15_928
    assert LATENCY.score(route_request(), found)[1] == 0.5


def test_a_fleet_nobody_knows_is_all_alike() -> None:
    """Without any sample only queues count."""
    found = timed([None, None])
    assert list(LATENCY.score(route_request(), found)) == [1.0, 1.0]
    found[0].replica.load.waiting_tokens = 15_928
    scores = LATENCY.score(route_request(), found)
    assert scores[1] == 1.0 > scores[0]


QUEUE = QueueScorer(QueueParams(assumed_running=10, queued_is_full=5))


def test_room_is_what_is_left_of_the_capacity() -> None:
    """Our own requests against the configured capacity, else against the assumed one."""
    found = candidates(backend("a", capacity=Capacity(max_running=4)), backend("b"))
    for one in found:
        one.replica.load.in_flight = 2
    assert list(QUEUE.score(route_request(), found)) == [0.5, 0.8]


def test_other_peoples_requests_take_room() -> None:
    """What the engine reported beyond our own counts, and what we sent since counts, too."""
    (only,) = found = candidates(backend("a", capacity=Capacity(max_running=10)))
    load = only.replica.load
    load.in_flight = 2
    load.reported(running=5, waiting=0, kv_usage=None, now=1.0)
    load.in_flight = 4
    assert QUEUE.score(route_request(), found)[0] == pytest.approx(1 - (4 + 3) / 10)


def test_a_queue_on_the_engine_means_full_whatever_the_capacity() -> None:
    """Five requests that wait on the engine are a full engine; one is a warning."""
    found = candidates(backend("a", capacity=Capacity(max_running=1_000)))
    found[0].replica.load.reported(running=4, waiting=1, kv_usage=None, now=1.0)
    assert QUEUE.score(route_request(), found)[0] == pytest.approx(0.8)
    found[0].replica.load.reported(running=4, waiting=50, kv_usage=None, now=1.0)
    assert QUEUE.score(route_request(), found)[0] <= 0


def loaded(depths: list[int]) -> tuple[Candidate, ...]:
    """Return candidates with so many requests in flight."""
    found = candidates(*(backend(f"gpu-{number}") for number in range(len(depths))))
    for one, depth in zip(found, depths, strict=True):
        one.replica.load.in_flight = depth
    return found


def test_the_best_goes_first_and_the_rest_follow_by_score() -> None:
    """Without near-ties the order is that of the scores."""
    order = BestPicker(BestParams(near=0.05)).order(route_request(), loaded([0] * 4), [0.2, 0.9, 0.5, 0.7], Random(1))
    assert list(order) == [1, 3, 2, 0]


def test_near_ties_go_to_the_less_loaded_of_two() -> None:
    """Among equals two are drawn and the one with fewer requests wins: the most loaded of all never does."""
    found = loaded([9, 1, 5, 3])
    picker, rng = BestPicker(BestParams(near=0.05)), Random(1)
    first = Counter(picker.order(route_request(), found, [0.98, 1.0, 0.99, 1.0], rng)[0] for _ in range(600))
    assert first[0] == 0
    assert first[1] > first[3] > first[2] > 0
    assert abs(first[1] - 300) < 60  # the least loaded wins every pair it is in: half of them


def test_what_is_not_near_is_not_drawn() -> None:
    """A score outside of the tie never goes first, however idle it is."""
    found = loaded([50, 50, 0])
    picker, rng = BestPicker(BestParams(near=0.05)), Random(1)
    assert {picker.order(route_request(), found, [1.0, 0.96, 0.94], rng)[0] for _ in range(200)} == {0, 1}


def test_equal_depths_are_decided_by_waiting_tokens() -> None:
    """Two requests are not two equal requests."""
    found = loaded([2, 2])
    found[0].replica.load.waiting_tokens = 8_000
    picker, rng = BestPicker(BestParams()), Random(1)
    assert {picker.order(route_request(), found, [1.0, 1.0], rng)[0] for _ in range(50)} == {1}


def test_a_fleet_where_nothing_scores_is_spread_too() -> None:
    """Scores of nothing are ties, too: everybody full still means the least full of two."""
    found = loaded([9, 1])
    assert BestPicker(BestParams()).order(route_request(), found, [0.0, 0.0], Random(1))[0] == 1


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=20), near=st.floats(0, 0.99), seed=st.integers(0, 10_000))
def test_any_order_holds_everybody_once(scores: list[float], near: float, seed: int) -> None:
    """The order is a permutation, its head is among the near-ties, its tail is sorted."""
    found = loaded([seed % (index + 2) for index in range(len(scores))])
    order = list(BestPicker(BestParams(near=near)).order(route_request(), found, scores, Random(seed)))
    assert sorted(order) == list(range(len(scores)))
    assert scores[order[0]] >= max(scores) * (1 - near)
    tail = [scores[index] for index in order[1:]]
    assert tail == sorted(tail, reverse=True)


POLICIES = PolicyRegistry(BUILTIN).load(PRESETS)


def own_and_outside() -> tuple[Candidate, ...]:
    """Return two own replicas of 64 slots and an external endpoint at more than twice the price."""
    specs: list[BackendSpec] = [
        backend("gpu-a", capacity=Capacity(max_running=64)),
        backend("gpu-b", capacity=Capacity(max_running=64)),
        backend("api", provider="api", kind="openai"),
    ]
    return candidates(*specs)


def pick(preset: str, found: tuple[Candidate, ...]) -> str:
    """Return the first step of a preset's plan."""
    return decide(route_request(), found, POLICIES[preset], Random(1)).steps[0].replica.name


def test_balanced_stays_at_home_until_it_is_nearly_full() -> None:
    """The cheap replicas keep the traffic at half load and give it away when they are full and slow."""
    found = own_and_outside()
    loads = [one.replica.load for one in found]
    for load in loads:
        load.ttft, load.itl = 0.3, 0.02
    assert pick("balanced", found) in {"gpu-a", "gpu-b"}
    for load in loads[:2]:
        load.in_flight = 32
    assert pick("balanced", found) in {"gpu-a", "gpu-b"}
    for load in loads[:2]:
        load.in_flight, load.ttft = 64, 3.0
        load.reported(64, 20, 0.99, 1.0)
    assert pick("balanced", found) == "api"


def test_what_was_found_of_one_fleet_is_not_believed_of_another() -> None:
    """Candidates that cost alike are recognised when they come again; others are looked at, whatever came before."""
    scorer, alike, mixed = CostScorer(CostParams()), loaded([0, 0, 0]), own_and_outside()
    first = list(scorer.score(route_request(), mixed))
    assert list(scorer.score(route_request(), alike)) == list(scorer.score(route_request(), alike)) == []
    assert list(scorer.score(route_request(), mixed)) == first != []


def test_cheapest_never_pays_more_and_fastest_never_waits() -> None:
    """The other two presets do what they are called after."""
    found = own_and_outside()
    for one in found[:2]:
        one.replica.load.in_flight, one.replica.load.waiting_tokens = 20, 40_000
    assert pick("cheapest", found) in {"gpu-a", "gpu-b"}
    assert pick("fastest", found) == "api"


def of_two_providers() -> tuple[Candidate, ...]:
    """Return two replicas of one endpoint and one of another."""
    specs = [backend("a"), backend("b"), backend("c", provider="other")]
    return build(snapshot(specs), None, price_id).models[MODEL].candidates


def test_throughput_is_compared_as_soon_as_two_endpoints_are_measured() -> None:
    """Replicas of one endpoint share its median; one endpoint alone cannot be compared."""
    found, scorer = of_two_providers(), ThroughputScorer(NoParams())
    found[0].endpoint.track.answered(0.1, 1.0, 100, 1_000.0)
    assert not scorer.score(route_request(now=1_002.0), found)
    found[2].endpoint.track.answered(0.1, 1.0, 50, 1_003.0)
    scores = scorer.score(route_request(now=1_005.0), found)
    assert scores[0] == scores[1] == 1.0
    assert scores[2] == pytest.approx(0.5, rel=0.2)


def test_uptime_counts_once_there_are_enough_attempts() -> None:
    """A failure of few attempts says nothing."""
    found, scorer = of_two_providers(), UptimeScorer(UptimeScorerParams(attempts=4))
    track = found[2].endpoint.track
    for _ in range(3):
        track.ended(Failure(Cause.CONNECT, "no"), 1_000.0)
    assert list(scorer.score(route_request(), found)) == [1.0, 1.0, 1.0]
    track.ended(None, 1_000.0)
    assert list(scorer.score(route_request(), found)) == [1.0, 1.0, 0.25]


def test_cold_prompts_go_where_none_was_sent_for_longest() -> None:
    """The one that had a cold prompt last comes last; a prompt that somebody knows finds all alike."""
    found, scorer = candidates(backend("a"), backend("b"), backend("c")), ColdScorer(NoParams())
    assert not scorer.score(route_request(blocks=(1, 2)), found)
    for number, candidate in enumerate(found[:2]):
        Booking(candidate.load, Work(128, 10, (10 * number + 11, 10 * number + 12)), 999.0)
    assert list(scorer.score(route_request(blocks=(1, 2)), found)) == [0.5, 0.0, 1.0]
    assert not scorer.score(route_request(blocks=(11, 12)), found)
    assert not scorer.score(route_request(), found)
