"""Callers' controls in a decision: what is dropped, what goes first, what a refusal says."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.snapshot import BackendSpec
from gateway.fleet.build import build
from gateway.fleet.snapshot import Candidate, Fleet
from gateway.routing.interface import Plan, RouteRequest
from gateway.routing.pipeline import Policy, decide
from gateway.routing.preferences import gather
from gateway.routing.registry import PolicyRegistry
from gateway.types.call import Need
from gateway.types.errors import BadRequest, NotFound
from gateway.types.failure import Cause, Failure
from gateway.types.money import Rates
from gateway.types.preferences import Cutoffs, Preferences, Sort
from policies import BUILTIN, PRESETS
from tests.fakes.fleet import MODEL, backend, endpoint, model, price_id, route_request, snapshot

POLICIES = PolicyRegistry(BUILTIN).load(PRESETS)
SMALL = "qwen/qwen3-8b"


def make(*names: str, **more: Any) -> Fleet:
    """Return a fleet in which each name is a provider with one endpoint, dearer by the letter; ``SMALL`` is dearest."""
    specs = [backend(name, provider=name.partition("-")[0]) for name in names]
    providers = sorted({spec.provider for spec in specs})
    prices = {name: Rates(100_000 * (place + 1), 100_000 * (place + 1)) for place, name in enumerate(providers)}
    small = backend("small", provider="small")
    models = [
        model([endpoint(spec, price=prices[spec.provider], **more) for spec in specs]),
        model([endpoint(small, SMALL, price=Rates(10**9, 10**9))], SMALL),
    ]
    return build(snapshot([*specs, small], models, aliases={"house": ((MODEL, 1),)}), None, price_id)


def plan(fleet: Fleet, wishes: Preferences | None = None, policy: str = "balanced", seed: int = 0, **more: Any) -> Plan:
    """Decide as the router does."""
    request = route_request(preferences=wishes, **more)
    return decide(request, gather(fleet, request, Random(seed)), POLICIES[policy], Random(seed))


def order(*args: Any, **more: Any) -> list[str]:
    """Return the replicas of a plan in their order."""
    return [step.replica.name for step in plan(*args, **more).steps]


def fill(candidate: Candidate, ttft: float, tokens_per_s: float, count: int = 20) -> None:
    """Let an endpoint have answered so."""
    for _ in range(count):
        candidate.endpoint.track.answered(ttft, 100 / tokens_per_s, 100, 1_000.0)


def candidate(fleet: Fleet, name: str) -> Candidate:
    """Return the candidate of ``MODEL`` on a replica."""
    return next(each for each in fleet.models[MODEL].candidates if each.replica.name == name)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_preset_obeys(policy: str) -> None:
    """What a caller forbids no preset allows, and what it lists goes first in every one."""
    fleet = make("a", "b-1", "b-2", "c")
    assert set(order(fleet, Preferences(only=("b",)), policy)) == {"b-1", "b-2"}
    assert "a" not in order(fleet, Preferences(ignore=("a",)), policy)
    assert order(fleet, Preferences(order=("c", "b-2")), policy)[:2] == ["c", "b-2"]
    assert order(fleet, Preferences(sort=Sort.PRICE), policy)[0] == "a"
    assert order(fleet, Preferences(sort=Sort.PRICE), policy)[-1] == "c"


def test_without_fallbacks_one_endpoint_is_left_and_all_its_replicas() -> None:
    """The top endpoint of each model stays, or what the caller listed."""
    fleet = make("b-1", "b-2", "c")
    alone = Preferences(sort=Sort.PRICE, allow_fallbacks=False)
    assert set(order(fleet, alone)) == {"b-1", "b-2"}
    assert set(order(fleet, Preferences(sort=Sort.PRICE, allow_fallbacks=False, models=(SMALL,)))) == {
        "b-1",
        "b-2",
        "small",
    }
    assert order(fleet, Preferences(order=("c", "b-2"), allow_fallbacks=False)) == ["c", "b-2"]


def test_models_in_order_or_together() -> None:
    """Endpoints of the second model come after all of the first, unless they are sorted together."""
    fleet = make("a", "b")
    assert order(fleet, Preferences(models=(MODEL,), sort=Sort.PRICE), model_id=SMALL)[0] == "small"
    together = Preferences(models=(MODEL,), sort=Sort.PRICE, across_models=True)
    assert order(fleet, together, model_id=SMALL) == ["a", "b", "small"]


def test_suffixes_sort_their_own_model() -> None:
    """Each name has its own suffixes; what the body says of sorting goes before them."""
    fleet = make("a", "b")
    fill(candidate(fleet, "b"), 0.1, 90.0)
    fill(candidate(fleet, "a"), 0.1, 10.0)
    assert order(fleet, model_id=f"{MODEL}:nitro") == ["b", "a"]
    assert order(fleet, model_id="house:nitro") == ["b", "a"]
    assert order(fleet, model_id=f"{MODEL}:nitro:floor") == ["a", "b"]
    assert order(fleet, Preferences(sort=Sort.PRICE), model_id=f"{MODEL}:nitro") == ["a", "b"]
    assert order(fleet, Preferences(models=(f"{MODEL}:nitro",)), model_id=SMALL) == ["small", "b", "a"]


@pytest.mark.parametrize("name", [f"{MODEL}:free", f"{MODEL}:turbo", ":nitro", "nitro", "nowhere:nitro"])
def test_other_suffixes_are_other_models(name: str) -> None:
    """Nothing but a routing suffix is ever taken off a name."""
    with pytest.raises(NotFound):
        order(make("a"), model_id=name)


def test_a_model_may_end_like_a_suffix() -> None:
    """A configured name is meant as it stands."""
    spec = backend("x")
    fleet = build(snapshot([spec], [model([endpoint(spec, "m:nitro")], "m:nitro")]), None, price_id)
    request = route_request(model_id="m:nitro")
    gather(fleet, request, Random(0))
    assert (request.model_id, request.preferences) == ("m:nitro", None)


def test_speed_that_is_preferred_only_reorders() -> None:
    """All cutoffs must hold; what misses one comes last, and what was never measured has the benefit of the doubt."""
    fleet = make("a", "b", "c")
    fill(candidate(fleet, "a"), 2.0, 20.0)
    fill(candidate(fleet, "b"), 0.2, 80.0)
    quick = Preferences(min_throughput=Cutoffs(p50=50, p90=40), max_latency=Cutoffs(p99=1.0))
    assert order(fleet, quick)[-1] == "a"
    assert set(order(fleet, quick)) == {"a", "b", "c"}
    assert order(fleet, Preferences(max_latency=Cutoffs(p50=0.1), sort=Sort.PRICE)) == ["c", "a", "b"]
    assert order(fleet, Preferences(sort=Sort.LATENCY))[-1] == "a"
    assert order(fleet, Preferences(sort=Sort.THROUGHPUT))[-1] == "a"


@pytest.mark.parametrize(
    ("wishes", "field", "words"),
    [
        (Preferences(only=("small",)), "provider.only", "is not in provider.only; there are a, b"),
        (Preferences(ignore=("a", "b")), "provider.ignore", "is in provider.ignore"),
        (Preferences(zdr=True), "provider.zdr", "zero data retention"),
        (Preferences(deny_collection=True), "provider.data_collection", "may store prompts"),
        (Preferences(quantizations=("fp8",)), "provider.quantizations", "quantization unknown"),
        (
            Preferences(require_parameters=True, parameters=frozenset({"top_a"})),
            "provider.require_parameters",
            "does not support top_a",
        ),
    ],
)
def test_a_wish_that_leaves_nothing_is_told_by_its_field(wishes: Preferences, field: str, words: str) -> None:
    """404, with the field and what there is."""
    specs: list[BackendSpec] = [backend(name, provider=name, zdr=False, collects=True) for name in ("a", "b", "small")]
    models = [model([endpoint(spec) for spec in specs[:2]]), model([endpoint(specs[2], SMALL)], SMALL)]
    with pytest.raises(NotFound) as caught:
        plan(build(snapshot(specs, models), None, price_id), wishes)
    assert caught.value.param == field
    assert words in caught.value.message
    assert caught.value.metadata["available_endpoints"] == ["a", "b"]
    assert caught.value.metadata["availability"]["constraint"] == field


@pytest.mark.parametrize(
    ("wishes", "param"),
    [
        (Preferences(order=("a", "bee")), "provider.order[1]"),
        (Preferences(only=("A",)), "provider.only[0]"),
        (Preferences(ignore=("",)), "provider.ignore[0]"),
        (Preferences(quantizations=("fp8", "fp7")), "provider.quantizations[1]"),
    ],
)
def test_names_that_mean_nothing_anywhere_are_refused(wishes: Preferences, param: str) -> None:
    """A mistyped restriction is not taken for none. Slugs come case-folded from the dialect."""
    with pytest.raises(BadRequest) as caught:
        plan(make("a", "b"), wishes)
    assert caught.value.param == param
    assert caught.value.metadata["available"]


def test_soft_parameters_prefer_and_never_empty() -> None:
    """Endpoints that take ``response_format`` serve alone when there are any; when there are none, all do."""
    wishes = Preferences(parameters=frozenset({"response_format", "seed"}))
    specs = [backend("a", provider="a"), backend("b", provider="b")]
    ends = [endpoint(specs[0], supported_parameters=("seed",)), endpoint(specs[1])]
    assert order(build(snapshot(specs, [model(ends)]), None, price_id), wishes) == ["b"]
    neither = [endpoint(spec, supported_parameters=("seed",)) for spec in specs]
    assert len(order(build(snapshot(specs, [model(neither)]), None, price_id), wishes)) == 2


def test_a_draw_by_one_over_the_square_of_the_price() -> None:
    """At 1, 3 and 9 USD nine of ten requests go to the first and one to the second; the third is too dear to draw."""
    specs = [backend(name, provider=name) for name in "abc"]
    ends = [endpoint(spec, price=Rates(price, price)) for spec, price in zip(specs, (10, 30, 90), strict=True)]
    fleet = build(snapshot(specs, [model(ends)]), None, price_id)
    rng = Random(7)
    request = route_request()
    policy: Policy = POLICIES["openrouter"]
    firsts = Counter(
        decide(request, fleet.models[MODEL].candidates, policy, rng).steps[0].replica.name for _ in range(2000)
    )
    assert firsts["c"] == 0
    assert 0.87 < firsts["a"] / 2000 < 0.93
    assert order(fleet, policy="openrouter")[-1] == "c"


def test_an_outage_and_a_bad_record_go_last() -> None:
    """Two failures in half a minute put an endpoint last, as does an uptime below 80 %; up to 95 % is in between."""
    error = Failure(Cause.ERROR, "it failed", 500)
    fleet = make("a", "b", "c")
    track = candidate(fleet, "a").endpoint.track
    for _ in range(2):
        track.ended(error, 990.0)
    assert order(fleet, policy="openrouter")[-1] == "a"
    assert order(fleet, policy="openrouter", now=1_050.0)[-1] != "a"
    for name, failures in (("a", 30), ("b", 10), ("c", 0)):
        track = candidate(fleet, name).endpoint.track
        for number in range(100):
            track.ended(error if number < failures else None, 800.0)
    assert order(fleet, policy="openrouter", now=1_050.0) == ["c", "b", "a"]
    for _ in range(300):
        candidate(fleet, "a").endpoint.track.ended(Failure(Cause.OVERLOADED, "full", 429), 1_040.0)
    assert candidate(fleet, "a").endpoint.track.outage(1_050.0, 30.0) == (0, 0)


def test_tools_go_where_they_are_called_well() -> None:
    """A request with tools prefers the configured quality; with four endpoints a slow outlier goes last."""
    specs = [backend(name, provider=name) for name in "abcd"]
    ends = [
        endpoint(spec, price=Rates(price, price), tool_quality=quality)
        for spec, price, quality in zip(specs, (1, 2, 3, 4), (0.5, 0.6, 0.9, 0.95), strict=True)
    ]
    fleet = build(snapshot(specs, [model(ends)]), None, price_id)
    assert order(fleet, policy="openrouter", needs=Need.TOOLS) == ["d", "c", "b", "a"]
    assert order(fleet, Preferences(sort=Sort.PRICE), policy="openrouter", needs=Need.TOOLS)[0] == "a"
    for name, speed in (("a", 80.0), ("b", 85.0), ("c", 90.0), ("d", 10.0)):
        fill(candidate(fleet, name), 0.1, speed)
        for _ in range(120):
            candidate(fleet, name).endpoint.track.ended(None, 999.0)
    assert order(fleet, policy="openrouter", needs=Need.TOOLS, now=1_002.0) == ["c", "b", "a", "d"]
    assert order(fleet, model_id=f"{MODEL}:exacto", now=1_002.0)[-1] == "d"


SLUGS = st.lists(st.sampled_from(["a", "b", "c", "b-1", "c/b-1"]), max_size=3).map(tuple)


@given(
    only=SLUGS,
    ignore=SLUGS,
    first=SLUGS,
    fallbacks=st.booleans(),
    sort=st.none() | st.sampled_from(list(Sort)),
    policy=st.sampled_from(sorted(POLICIES)),
    seed=st.integers(0, 99),
)
def test_whatever_is_asked_nothing_unwanted_is_planned(
    only: tuple[str, ...],
    ignore: tuple[str, ...],
    first: tuple[str, ...],
    fallbacks: bool,
    sort: Sort | None,
    policy: str,
    seed: int,
) -> None:
    """A plan holds each wanted candidate at most once, none that is unwanted, and the listed ones in their order."""
    fleet = make("a", "b-1", "b-2", "c")
    wishes = Preferences(only=only, ignore=ignore, order=first, allow_fallbacks=fallbacks, sort=sort)
    steps: tuple[Candidate, ...] = ()
    with suppress(NotFound, BadRequest):
        steps = plan(fleet, wishes, policy, seed).steps
    assert len(set(map(id, steps))) == len(steps)
    for step in steps:
        assert not only or step.names & set(only)
        assert not step.names & set(ignore)
    places = [next((place for place, slug in enumerate(first) if slug in step.names), len(first)) for step in steps]
    assert places == sorted(places)
    if steps and not fallbacks and not first:
        assert len({step.endpoint.slug for step in steps}) == 1


def test_the_clock_of_a_request_is_the_only_clock() -> None:
    """Speeds are judged at the moment of the decision: old ones are forgotten."""
    fleet = make("a", "b")
    fill(candidate(fleet, "a"), 5.0, 1.0)
    request: RouteRequest = route_request(preferences=Preferences(max_latency=Cutoffs(p50=1.0), sort=Sort.PRICE))
    candidates = gather(fleet, request, Random(0))
    assert decide(request, candidates, POLICIES["balanced"], Random(0)).steps[0].replica.name == "b"
    request.now += 400.0
    assert decide(request, candidates, POLICIES["balanced"], Random(0)).steps[0].replica.name == "a"
