"""The decision, with parts of the test's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Drop, Picker, Refusal, RouteRequest, Scorer
from gateway.routing.pipeline import Policy, decide
from gateway.types.errors import ContextTooLong, NotFound, Unavailable, WeirError
from policies.pickers.best import BestParams, BestPicker
from tests.fakes.fleet import backend, candidates, route_request

FLEET = candidates(*(backend(f"gpu-{number}") for number in range(6)))


class Without:
    """A filter that drops candidates by backend name."""

    def __init__(self, name: str, refusal: Refusal, *dropped: str, applying: bool = True) -> None:
        self.name = name
        self.refusal = refusal
        self.dropped = set(dropped)
        self.applying = applying
        self.asked = 0

    def applies(self, request: RouteRequest) -> bool:
        """Return what the test said."""
        return self.applying

    def keep(self, request: RouteRequest, candidates: Sequence[Candidate], drops: list[Drop]) -> Sequence[Candidate]:
        """Drop by name."""
        self.asked += 1
        gone = [candidate for candidate in candidates if candidate.replica.name in self.dropped]
        drops += [Drop(candidate, self.name, f"{self.name} says no") for candidate in gone]
        return [candidate for candidate in candidates if candidate not in gone]


class Fixed:
    """A scorer with fixed scores by backend name."""

    def __init__(self, name: str, scores: dict[str, float]) -> None:
        self.name = name
        self.scores = scores

    def score(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return the scores, 0.5 where there is none."""
        return [self.scores.get(candidate.replica.name, 0.5) for candidate in candidates]


def policy(*filters: Without, scorers: Sequence[tuple[Scorer, float]] = (), picker: Picker | None = None) -> Policy:
    """Return a policy of these parts."""
    return Policy(
        "test", "", filters, tuple(scorers) or ((Fixed("even", {}), 1.0),), picker or BestPicker(BestParams(near=0))
    )


def names(found: Sequence[Candidate]) -> list[str]:
    """Return the backends of candidates."""
    return [candidate.replica.name for candidate in found]


def test_scores_are_weighed_and_added() -> None:
    """The total is the sum of the shares times the scores, and decides the order."""
    first = Fixed("first", {"gpu-0": 1.0, "gpu-1": 0.0})
    second = Fixed("second", {"gpu-0": 0.0, "gpu-1": 0.9})
    plan = decide(route_request(), FLEET[:2], policy(scorers=[(first, 0.25), (second, 0.75)]), Random(1))
    assert plan.scores == pytest.approx((0.25, 0.675))
    assert names(plan.steps) == ["gpu-1", "gpu-0"]
    assert plan.terms == ()


def test_terms_are_kept_when_asked_for() -> None:
    """An explained plan holds every scorer's share and clamped scores."""
    wild = Fixed("wild", {"gpu-0": 7.0, "gpu-1": -7.0})
    plan = decide(route_request(), FLEET[:2], policy(scorers=[(wild, 1.0)]), Random(1), explain=True)
    assert plan.terms == (("wild", 1.0, (1.0, 0.0)),)


def test_a_filter_that_cannot_drop_anything_is_skipped() -> None:
    """Filters that do not apply are not asked."""
    skipped = Without("skipped", Refusal.UNSUPPORTED, "gpu-0", applying=False)
    plan = decide(route_request(), FLEET, policy(skipped), Random(1))
    assert skipped.asked == 0
    assert len(plan.scored) == len(FLEET)


def test_what_was_dropped_is_in_the_plan_with_its_reason_and_never_a_step() -> None:
    """Drops are values, and nothing is routed to what a filter dropped."""
    dropping = Without("health", Refusal.UNAVAILABLE, "gpu-1", "gpu-3")
    plan = decide(route_request(), FLEET, policy(dropping), Random(1))
    assert [(drop.candidate.replica.name, drop.filter, drop.reason) for drop in plan.drops] == [
        ("gpu-1", "health", "health says no"),
        ("gpu-3", "health", "health says no"),
    ]
    assert not {"gpu-1", "gpu-3"} & set(names(plan.steps))
    assert plan.considered == 6


everything = tuple(f"gpu-{number}" for number in range(6))


@pytest.mark.parametrize(
    ("filters", "error"),
    [
        ([Without("capability", Refusal.UNSUPPORTED, *everything)], NotFound),
        ([Without("context", Refusal.TOO_LONG, *everything)], ContextTooLong),
        ([Without("health", Refusal.UNAVAILABLE, *everything)], Unavailable),
        (
            [
                Without("capability", Refusal.UNSUPPORTED, *everything[:5]),
                Without("health", Refusal.UNAVAILABLE, everything[5]),
            ],
            Unavailable,
        ),
        (
            [
                Without("capability", Refusal.UNSUPPORTED, *everything[:5]),
                Without("context", Refusal.TOO_LONG, everything[5]),
                Without("health", Refusal.UNAVAILABLE),
            ],
            ContextTooLong,
        ),
    ],
)
def test_the_last_filter_that_dropped_something_decides_the_error(
    filters: list[Without], error: type[WeirError]
) -> None:
    """Nothing left is 404, 400 or 503 by what stopped those that were left, with all drops as data."""
    with pytest.raises(error) as caught:
        decide(route_request(), FLEET, policy(*filters), Random(1))
    drops = caught.value.metadata["drops"]
    assert {drop["candidate"] for drop in drops} == {candidate.slug for candidate in FLEET}
    assert all(drop["filter"] and drop["reason"] for drop in drops)


def test_a_request_that_is_too_long_is_told_the_numbers() -> None:
    """The error of a long prompt is OpenRouter's, with what was counted and what there is room for."""
    with pytest.raises(ContextTooLong) as caught:
        decide(route_request(), FLEET, policy(Without("context", Refusal.TOO_LONG, *everything)), Random(1))
    assert (caught.value.code, caught.value.kind) == (400, "context_length_exceeded")
    assert caught.value.metadata["prompt_tokens"] == 1_000
    assert caught.value.metadata["context_length"] == 40_960


def test_when_all_are_out_the_error_says_when_the_first_is_back() -> None:
    """``Retry-After`` is the time until the first ejected or cooling replica returns."""
    fleet = candidates(backend("gpu-0"), backend("gpu-1"), backend("gpu-2"))
    fleet[0].replica.load.ejected_until = 1_030.0
    fleet[1].replica.load.cooling_until = 1_012.0
    fleet[2].replica.load.ejected_until = 1_300.0
    out = Without("health", Refusal.UNAVAILABLE, "gpu-0", "gpu-1", "gpu-2")
    with pytest.raises(Unavailable) as caught:
        decide(route_request(now=1_000.0), fleet, policy(out), Random(1))
    assert caught.value.retry_after == pytest.approx(12.0)
    fleet[2].replica.load.ready = False
    with pytest.raises(Unavailable) as caught:
        decide(route_request(now=1_000.0), fleet, policy(out), Random(1))
    assert caught.value.retry_after == 1.0


class Lopsided:
    """A scorer that forgets a candidate."""

    name = "lopsided"

    def score(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return one score too few."""
        return [0.5] * (len(candidates) - 1)


def test_a_scorer_that_forgets_a_candidate_is_a_defect() -> None:
    """A score belongs to a candidate; a list of another length is refused, not shifted."""
    with pytest.raises(ValueError, match="lopsided"):
        decide(route_request(), FLEET, policy(scorers=[(Fixed("even", {}), 0.5), (Lopsided(), 0.5)]), Random(1))
    with pytest.raises(ValueError, match="lopsided"):
        decide(route_request(), FLEET, policy(scorers=[(Lopsided(), 1.0)]), Random(1))


scores = st.floats(allow_nan=True, allow_infinity=True)


@given(
    dropped=st.sets(st.sampled_from(everything)),
    first=st.lists(scores, min_size=6, max_size=6),
    second=st.lists(scores, min_size=6, max_size=6),
    near=st.floats(0, 0.99),
    seed=st.integers(0, 1_000),
)
def test_any_decision_is_whole(
    dropped: set[str], first: list[float], second: list[float], near: float, seed: int
) -> None:
    """A plan has each candidate at most once, drops and scored add up, totals stay between 0 and 1."""
    parts = policy(
        Without("health", Refusal.UNAVAILABLE, *dropped),
        scorers=[
            (Fixed("first", dict(zip(everything, first, strict=True))), 0.3),
            (Fixed("second", dict(zip(everything, second, strict=True))), 0.7),
        ],
        picker=BestPicker(BestParams(near=near)),
    )
    if len(dropped) == len(everything):
        with pytest.raises(Unavailable):
            decide(route_request(), FLEET, parts, Random(seed))
        return
    plan = decide(route_request(), FLEET, parts, Random(seed), explain=True)
    assert len({id(step) for step in plan.steps}) == len(plan.steps) > 0
    assert {id(step) for step in plan.steps} == {id(candidate) for candidate in plan.scored}
    assert len(plan.drops) + len(plan.scored) == plan.considered == len(FLEET)
    assert not {id(drop.candidate) for drop in plan.drops} & {id(candidate) for candidate in plan.scored}
    assert all(0.0 <= score <= 1.0 + 1e-9 and not math.isnan(score) for score in plan.scores)
    for _, _, clamped in plan.terms:
        assert all(0.0 <= score <= 1.0 for score in clamped)
    again = decide(route_request(), FLEET, parts, Random(seed))
    assert names(again.steps) == names(plan.steps)
