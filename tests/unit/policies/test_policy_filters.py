"""The filters that ship."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import pytest

from gateway.config.snapshot import BackendLimits, Capabilities
from gateway.fleet.build import build
from gateway.fleet.health import BASE, FAILURES, Health
from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Drop, Filter, NoParams, RouteRequest
from gateway.routing.pipeline import decide
from gateway.routing.refusal import refused
from gateway.routing.registry import PolicyRegistry
from gateway.types.call import Need, Operation
from gateway.types.dialect import Dialect
from gateway.types.errors import Unavailable
from gateway.types.money import LongContext, Rates, ServiceTier
from gateway.types.preferences import MaxPrice, Preferences, Sort
from policies import BUILTIN, PRESETS
from policies.filters.adapter import AdapterFilter
from policies.filters.capability import CapabilityFilter
from policies.filters.context import ContextFilter
from policies.filters.health import HealthFilter
from policies.filters.limits import LimitsFilter
from policies.filters.max_price import MaxPriceFilter
from policies.tiers.sort import SortTier
from tests.fakes.fleet import MODEL, backend, candidates, endpoint, model, price_id, route_request, snapshot

NOW = 1_000.0


def kept(part: Filter, request: RouteRequest, found: Sequence[Candidate]) -> tuple[list[str], dict[str, str]]:
    """Return the names of the backends that stay, and the reasons of those that go."""
    drops: list[Drop] = []
    stayed = part.keep(request, found, drops) if part.applies(request) else found
    assert len(stayed) + len(drops) == len(found)
    if not drops:
        assert stayed is found
    assert {drop.filter for drop in drops} <= {part.name}
    return [one.replica.name for one in stayed], {drop.candidate.replica.name: drop.reason for drop in drops}


def able(**flags: Capabilities) -> tuple[Candidate, ...]:
    """Return candidates with the given capabilities."""
    specs = {name: backend(name, provider=name) for name in flags}
    endpoints = [endpoint(specs[name], capabilities=flag) for name, flag in flags.items()]
    return build(snapshot(list(specs.values()), [model(endpoints)]), None, price_id).models[MODEL].candidates


@pytest.mark.parametrize(
    ("need", "capabilities", "words"),
    [
        (Need.TOOLS, Capabilities(tools=False), "tool use"),
        (Need.JSON_SCHEMA, Capabilities(json_schema=False), "structured output"),
        (Need.IMAGES, Capabilities(vision=False), "image input"),
        (Need.AUDIO, Capabilities(audio=False), "audio input"),
        (Need.LOGPROBS, Capabilities(logprobs=False), "logprobs"),
        (Need.EMBEDDINGS, Capabilities(embeddings=False), "embeddings"),
    ],
)
def test_what_an_endpoint_cannot_do(need: Need, capabilities: Capabilities, words: str) -> None:
    """Each need is met by its capability, and the reason names what is missing."""
    everything = Capabilities(tools=True, vision=True, audio=True, json_schema=True, logprobs=True, embeddings=True)
    found = able(lacking=capabilities, full=everything)
    stayed, reasons = kept(CapabilityFilter(NoParams()), route_request(needs=need), found)
    assert stayed == ["full"]
    assert words in reasons["lacking"]


def test_several_missing_things_are_all_named() -> None:
    """A caller sees everything that is missing at once."""
    needs = Need.TOOLS | Need.IMAGES | Need.AUDIO
    _, reasons = kept(CapabilityFilter(NoParams()), route_request(needs=needs), able(plain=Capabilities()))
    assert reasons["plain"] == "no support for image input, audio input"


def test_plain_chat_needs_nothing() -> None:
    """A request without needs skips the filter."""
    assert not CapabilityFilter(NoParams()).applies(route_request())


def test_engines_without_an_api_or_with_one_choice_only() -> None:
    """TGI has no embeddings and gives one choice per chat; the others have and do."""
    found = (
        build(
            snapshot(
                [backend("tgi", kind="tgi"), backend("vllm")],
                [
                    model(
                        [
                            endpoint(backend("tgi", kind="tgi"), capabilities=Capabilities(embeddings=True)),
                            endpoint(backend("vllm"), capabilities=Capabilities(embeddings=True)),
                        ]
                    )
                ],
            ),
            None,
            price_id,
        )
        .models[MODEL]
        .candidates
    )
    part = CapabilityFilter(NoParams())
    stayed, reasons = kept(part, route_request(needs=Need.EMBEDDINGS), found)
    assert (stayed, reasons) == (["vllm"], {"tgi": "no support for the embeddings API"})
    stayed, reasons = kept(part, route_request(needs=Need.MANY_CHOICES, choices=3), found)
    assert (stayed, reasons) == (["vllm"], {"tgi": "no support for more than one choice"})
    stayed, _ = kept(part, route_request(needs=Need.COMPLETIONS | Need.MANY_CHOICES, choices=3), found)
    assert stayed == ["vllm"]
    stayed, _ = kept(part, route_request(needs=Need.COMPLETIONS, choices=3), found)
    assert stayed == ["tgi", "vllm"]  # several prompts, each with one choice


def test_log_probabilities_come_from_engines_whose_api_has_them() -> None:
    """Anthropic's API has none, whatever its endpoint is configured with: null would be no answer."""
    specs = [backend("claude", kind="anthropic"), backend("vllm")]
    found = build(snapshot(specs, [model([endpoint(spec) for spec in specs])]), None, price_id).models[MODEL].candidates
    stayed, reasons = kept(CapabilityFilter(NoParams()), route_request(needs=Need.LOGPROBS), found)
    assert (stayed, reasons) == (["vllm"], {"claude": "no support for logprobs at its backend"})


@pytest.mark.parametrize(("need", "dialect"), [(Need.MESSAGES, "messages"), (Need.RESPONSES, "responses")])
def test_what_only_one_dialect_can_say_goes_where_it_is_spoken(need: Need, dialect: str) -> None:
    """A backend must speak it, by its kind or by its configuration, whatever its neighbours do."""
    found = candidates(
        backend("plain"),
        backend("taught", dialects=frozenset({Dialect(dialect)})),
        backend("claude", kind="anthropic", provider="claude"),
    )
    stayed, reasons = kept(CapabilityFilter(NoParams()), route_request(needs=need), found)
    assert stayed == (["taught", "claude"] if dialect == "messages" else ["taught"])
    assert f"{dialect} can say" in reasons["plain"]


def test_verdicts_do_not_leak_between_replicas() -> None:
    """Replicas of different endpoints and engines in any order each get their own verdict."""
    seeing, blind = Capabilities(vision=True), Capabilities()
    found = able(a=seeing, b=blind, c=seeing, d=blind)
    stayed, _ = kept(CapabilityFilter(NoParams()), route_request(needs=Need.IMAGES), (*found, *found[::-1]))
    assert stayed == ["a", "c", "c", "a"]


def rooms(**lengths: tuple[int, int | None]) -> tuple[Candidate, ...]:
    """Return candidates with the given context lengths and longest answers."""
    specs = {name: backend(name, provider=name) for name in lengths}
    endpoints = [
        endpoint(specs[name], context_length=context, max_output=most) for name, (context, most) in lengths.items()
    ]
    return build(snapshot(list(specs.values()), [model(endpoints)]), None, price_id).models[MODEL].candidates


def test_only_an_exact_count_can_be_too_long() -> None:
    """An estimate drops nothing: the engine counts for itself."""
    part = ContextFilter(NoParams())
    assert not part.applies(route_request(prompt_tokens=10**9, prompt_tokens_exact=False))
    assert part.applies(route_request(prompt_tokens_exact=True))


@pytest.mark.parametrize(
    ("prompt", "limit", "stayed"),
    [
        (4_000, 96, ["small", "big"]),
        (4_000, 97, ["big"]),
        (4_095, None, ["small", "big"]),
        (4_096, None, ["big"]),
        (32_000, 769, []),
    ],
)
def test_prompt_and_answer_must_fit(prompt: int, limit: int | None, stayed: list[str]) -> None:
    """The prompt and the answer asked for, or one token, fit the context to the token."""
    found = rooms(small=(4_096, None), big=(32_768, None))
    request = route_request(prompt_tokens=prompt, prompt_tokens_exact=True, max_tokens=limit)
    names, reasons = kept(ContextFilter(NoParams()), request, found)
    assert names == stayed
    assert all(str(prompt) in reason for reason in reasons.values())


def test_an_answer_is_counted_as_long_as_the_endpoint_would_make_it() -> None:
    """A limit above the endpoint's longest answer is clamped before it is sent, so it counts clamped."""
    request = route_request(prompt_tokens=4_000, prompt_tokens_exact=True, max_tokens=10_000)
    assert kept(ContextFilter(NoParams()), request, rooms(small=(4_096, 64)))[0] == ["small"]


HEALTH = HealthFilter(NoParams())


def test_a_healthy_fleet_stays_whole() -> None:
    """Nothing is dropped, nothing is copied; times that have passed do not count."""
    found = candidates(backend("a"), backend("b"))
    found[0].replica.load.ejected_until = NOW
    found[1].replica.load.cooling_until = NOW
    assert kept(HEALTH, route_request(now=NOW), found) == (["a", "b"], {})


def test_what_is_down_out_draining_or_full_is_dropped_with_its_reason() -> None:
    """Each way of being unavailable is named."""
    found = candidates(*(backend(name) for name in ("down", "out", "draining", "full", "well")))
    loads = {one.replica.name: one.replica.load for one in found}
    loads["down"].ready = False
    loads["out"].ejected_until = NOW + 12.4
    loads["draining"].draining = True
    loads["full"].cooling_until, loads["full"].cooling_asked = NOW + 3, True
    stayed, reasons = kept(HEALTH, route_request(now=NOW), found)
    assert stayed == ["well"]
    assert reasons == {
        "down": "not ready: its readiness probe fails",
        "out": "ejected for another 12 s after failures in a row",
        "draining": "draining",
        "full": "full: it asked to be left alone for another 3 s",
    }


def test_a_replica_that_was_full_a_moment_ago_is_used_when_there_is_no_other() -> None:
    """Without a word from the backend the pause is a preference: a lone replica is not cut off by one refusal."""
    found = candidates(backend("a"), backend("b"))
    for one in found:
        one.replica.load.cooling_until = NOW + 1
    assert kept(HEALTH, route_request(now=NOW), found) == (["a", "b"], {})
    found[1].replica.load.cooling_until = 0
    stayed, reasons = kept(HEALTH, route_request(now=NOW), found)
    assert (stayed, reasons) == (["b"], {"a": "was full a moment ago"})
    found[1].replica.load.ready = False
    stayed, reasons = kept(HEALTH, route_request(now=NOW), found)
    assert (stayed, list(reasons)) == (["a"], ["b"])


def test_the_wait_a_backend_asked_for_binds_even_when_it_is_the_last() -> None:
    """``Retry-After`` is honoured also when nothing else is left."""
    (only,) = found = candidates(backend("a"))
    only.replica.load.cooling_until, only.replica.load.cooling_asked = NOW + 20, True
    assert kept(HEALTH, route_request(now=NOW), found)[0] == []


def test_replicas_that_do_not_list_the_model_are_used_when_no_other_does() -> None:
    """An adapter that is loaded elsewhere sends requests there; one that nobody lists is asked for anywhere."""
    found, policy = candidates(backend("a"), backend("b")), PolicyRegistry(BUILTIN).load(PRESETS)["balanced"]
    found[0].load.lacks = frozenset({found[0].upstream_model})
    plan = decide(route_request(), found, policy, Random(1))
    assert [step.replica.name for step in plan.steps] == ["b"]
    assert [(drop.filter, drop.candidate.replica.name) for drop in plan.drops] == [("adapter", "a")]
    found[1].load.lacks = found[0].load.lacks
    assert len(decide(route_request(), found, policy, Random(1)).steps) == 2


def test_replicas_that_say_they_have_not_got_the_model_come_last() -> None:
    """For this operation of it, and only while another candidate may have it."""
    found = candidates(backend("a"), backend("b"))
    part, health = AdapterFilter(NoParams()), Health()
    for _ in range(FAILURES):
        health.lacked(found[0], Operation.EMBEDDINGS, NOW)
    asked = route_request(now=NOW, needs=Need.EMBEDDINGS)
    stayed, reasons = kept(part, asked, found)
    assert (stayed, reasons["a"]) == (["b"], f"it says that it has no {found[0].upstream_model} for embeddings")
    assert kept(part, route_request(now=NOW), found)[0] == ["a", "b"]
    assert kept(part, route_request(now=NOW + BASE, needs=Need.EMBEDDINGS), found)[0] == ["a", "b"]
    found[1].load.lacks = frozenset({found[1].upstream_model})
    assert kept(part, asked, found)[0] == ["a", "b"]


LONG = LongContext(900, Rates(200_000, 600_000))
PRIORITY = ServiceTier("priority", Rates(150_000, 450_000))


@pytest.mark.parametrize(
    ("price", "asked", "most", "words"),
    [
        (Rates(100_000, 300_000), {}, MaxPrice(prompt=100_000, completion=300_000), ""),
        (Rates(100_000, 300_000, tiers=(LONG,)), {}, MaxPrice(prompt=100_000), "0.2 USD per million prompt"),
        (Rates(100_000, 300_000, tiers=(LONG,)), {"prompt_tokens": 900}, MaxPrice(prompt=100_000), ""),
        (
            Rates(100_000, 300_000, service_tiers=(PRIORITY,)),
            {"service_tier": "priority"},
            MaxPrice(completion=449_999),
            "0.45 USD per million completion",
        ),
        (Rates(100_000, 300_000, service_tiers=(PRIORITY,)), {"service_tier": "flex"}, MaxPrice(prompt=100_000), ""),
        (Rates(100_000, 300_000, markup=1), {}, MaxPrice(prompt=100_009), "0.10001 USD per million prompt"),
        (Rates(100_000, 300_000, discount=5_000, markup=200), {}, MaxPrice(completion=153_000), ""),
        (Rates(0, 0, request=1_000, markup=1_000), {}, MaxPrice(request=1_099), "0.0000011 USD per request"),
    ],
)
def test_the_dearest_price_is_that_of_the_request_itself(
    price: Rates, asked: dict[str, Any], most: MaxPrice, words: str
) -> None:
    """What the team would pay for it counts: on its terms, at the service tier, for a prompt of that length."""
    spec = backend("a")
    listed = msgspec.structs.replace(price, discount=0, markup=0)
    served = model([endpoint(spec, price=listed, team_prices={"search": price})])
    found = build(snapshot([spec], [served]), None, price_id).models[MODEL].candidates
    request = route_request(**asked, preferences=Preferences(max_price=most))
    stayed, reasons = kept(MaxPriceFilter(NoParams()), request, found)
    assert stayed == ([] if words else ["a"])
    assert words in reasons.get("a", "")


@pytest.mark.parametrize(
    ("asked", "first"), [({}, "plain"), ({"service_tier": "flex"}, "tiered"), ({"team": "b"}, "own")]
)
def test_what_is_sorted_by_price_is_sorted_by_the_price_of_the_request(asked: dict[str, Any], first: str) -> None:
    """One endpoint is the cheapest by its list price, one at a service tier, one for a team with terms of its own."""
    flex = ServiceTier("flex", Rates(10_000, 10_000))
    prices = {
        "plain": Rates(100_000, 300_000),
        "tiered": Rates(200_000, 600_000, service_tiers=(flex,)),
        "own": Rates(150_000, 450_000),
    }
    specs = {name: backend(name, provider=name) for name in prices}
    terms = {"own": {"b": msgspec.structs.replace(prices["own"], discount=5_000)}}
    served = [endpoint(specs[name], price=price, team_prices=terms.get(name, {})) for name, price in prices.items()]
    found = build(snapshot(list(specs.values()), [model(served)]), None, price_id).models[MODEL].candidates
    request = route_request(**asked, preferences=Preferences(sort=Sort.PRICE))
    ranks = SortTier(NoParams()).ranks(request, found)
    assert found[ranks.index(min(ranks))].replica.name == first


def test_who_is_refused_for_a_limit_is_told_when_there_is_room() -> None:
    """The soonest of all replicas that are at their limits counts."""
    found = candidates(*(backend(name, limits=BackendLimits(rpm=1)) for name in ("a", "b")))
    for candidate, ago in zip(found, (40.0, 15.0), strict=True):
        candidate.load.quota.sent(10, NOW - ago)
    part, drops, request = LimitsFilter(NoParams()), list[Drop](), route_request(now=NOW)
    assert not part.keep(request, found, drops)
    error = refused(request, part, drops)
    assert isinstance(error, Unavailable)
    assert error.retry_after == 20.0
