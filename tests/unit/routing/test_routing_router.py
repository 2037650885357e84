"""The router over a real fleet with the presets that ship."""

from __future__ import annotations

import json
from random import Random

import pytest

from gateway.config.snapshot import Capabilities
from gateway.fleet.booking import Booking
from gateway.fleet.egress import EgressGuard
from gateway.fleet.health import Health
from gateway.fleet.registry import FleetRegistry
from gateway.routing.explain import explanation, header
from gateway.routing.registry import PolicyRegistry
from gateway.routing.router import Router
from gateway.types.call import Need
from gateway.types.errors import BadRequest, NotFound, Unavailable
from policies import BUILTIN, PRESETS
from tests.fakes.fleet import LOOPBACK, MODEL, backend, endpoint, model, price_id, route_request, snapshot

POLICIES = PolicyRegistry(BUILTIN).load(PRESETS)


def registry(**changes: object) -> FleetRegistry:
    """Return the fleet of two own replicas and a dearer external one."""
    backends = [backend("gpu-a"), backend("gpu-b"), backend("dashscope", provider="dashscope", kind="openai")]
    configuration = snapshot(backends, aliases={"house": ((MODEL, 1),)}, **changes)  # type: ignore[arg-type]
    return FleetRegistry(configuration, price_id=price_id, guard=EgressGuard(LOOPBACK), health=Health())


def test_the_plan_of_an_idle_fleet() -> None:
    """Own replicas first, the dearer endpoint as the last resort."""
    router = Router(registry(), POLICIES, Random(1))
    plan = router.plan(route_request())
    assert {step.replica.name for step in plan.steps[:2]} == {"gpu-a", "gpu-b"}
    assert plan.steps[2].replica.name == "dashscope"
    assert plan.policy == "balanced"


def test_an_alias_is_replaced_by_the_model_it_drew() -> None:
    """Who asks for an alias learns which model answers."""
    request = route_request(model_id="house")
    plan = Router(registry(), POLICIES, Random(1)).plan(request)
    assert request.model_id == MODEL
    assert all(step.endpoint.model_id == MODEL for step in plan.steps)
    assert Router(registry(), POLICIES, Random(1)).model("house").id == MODEL


def test_the_preset_is_the_requests_or_the_configurations() -> None:
    """A request may name its preset; without one the configuration's default decides, also after a reload."""
    held = registry()
    router = Router(held, POLICIES, Random(1))
    assert router.plan(route_request(preset="fastest")).policy == "fastest"
    held.apply(snapshot([backend("gpu-a")], preset="cheapest", version=2))
    plan = router.plan(route_request())
    assert (plan.policy, plan.considered) == ("cheapest", 1)


def test_an_unknown_preset_is_refused_with_near_names() -> None:
    """A slip of the pen is told, not routed by another preset."""
    router = Router(registry(), POLICIES, Random(1))
    with pytest.raises(BadRequest) as caught:
        router.plan(route_request(preset="balancd"))
    assert caught.value.metadata["near"] == ["balanced"]
    with pytest.raises(BadRequest, match="cheapest"):
        router.plan(route_request(preset="zzz"))


def test_an_unknown_model_is_refused() -> None:
    """The router's own error for a model that is not there."""
    with pytest.raises(NotFound):
        Router(registry(), POLICIES, Random(1)).plan(route_request(model_id="nope"))


def test_the_header_of_a_plan() -> None:
    """One line: preset, pick, how many there were, how many were dropped."""
    held = registry()
    held.fleet.replicas["gpu-a"].load.ready = False
    plan = Router(held, POLICIES, Random(1)).plan(route_request())
    assert header(plan) == "balanced; pick=own/gpu-b; of=3; dropped=1"


def test_the_explanation_of_a_plan() -> None:
    """Every candidate with its terms in the order of the plan, every drop with its reason; all of it JSON."""
    held = registry()
    held.fleet.replicas["gpu-a"].load.ready = False
    plan = Router(held, POLICIES, Random(1)).plan(route_request(), explain=True)
    shown = json.loads(json.dumps(explanation(plan)))
    assert (shown["policy"], shown["pick"], shown["considered"]) == ("balanced", "own/gpu-b", 3)
    assert [(row["place"], row["candidate"]) for row in shown["candidates"]] == [
        (1, "own/gpu-b"),
        (2, "dashscope/dashscope"),
    ]
    best = shown["candidates"][0]
    assert best["score"] == pytest.approx(sum(term["share"] * term["score"] for term in best["terms"].values()))
    assert set(best["terms"]) == {"time", "cost"}
    (drop,) = shown["drops"]
    assert (drop["candidate"], drop["filter"]) == ("own/gpu-a", "health")
    assert "not ready" in drop["reason"]


def test_a_plan_that_was_not_asked_to_explain_itself_can_be_shown_without_terms() -> None:
    """The scores are always there; the terms cost time and come on demand."""
    plan = Router(registry(), POLICIES, Random(1)).plan(route_request())
    assert all(row["terms"] == {} and row["score"] > 0 for row in explanation(plan)["candidates"])


def test_capability_and_health_together() -> None:
    """A capable replica that is down is a 503 to retry; no capable replica at all is a 404."""
    plain, seeing = backend("plain"), backend("seeing")
    with_eyes = endpoint(seeing, quantization="fp8", capabilities=Capabilities(vision=True))
    configuration = snapshot([plain, seeing], [model([endpoint(plain), with_eyes])])
    held = FleetRegistry(configuration, price_id=price_id, guard=EgressGuard(LOOPBACK), health=Health())
    router = Router(held, POLICIES, Random(1))
    assert [step.replica.name for step in router.plan(route_request(needs=Need.IMAGES)).steps] == ["seeing"]
    held.fleet.replicas["seeing"].load.ready = False
    with pytest.raises(Unavailable):
        router.plan(route_request(needs=Need.IMAGES))
    with pytest.raises(NotFound) as caught:
        router.plan(route_request(needs=Need.AUDIO))
    assert "audio input" in caught.value.message


def chat(*said: str, system: str = "Be brief.") -> dict[str, object]:
    """Return a body with a system message and turns of user and assistant."""
    turns = [{"role": "user" if number % 2 == 0 else "assistant", "content": text} for number, text in enumerate(said)]
    return {"messages": [{"role": "system", "content": system}, *turns]}


def test_a_chat_without_a_session_is_known_by_its_first_messages() -> None:
    """Its next turn goes where its first was served; another one has nothing to do with it."""
    preset = b"description: Sticky.\nfilters: []\nscorers: [{name: session}]\npicker: {name: best}\n"
    made = PolicyRegistry(BUILTIN).build("sticky", preset, "sticky.yaml")
    found = registry()
    router = Router(found, {"sticky": made, "balanced": made}, Random(1))
    first = route_request(prompt=chat("Hello"), preset="sticky")
    chosen = router.plan(first).steps[-1]
    Booking(chosen.load, first.work(), first.now)
    following = route_request(prompt=chat("Hello", "Hi", "And now?"), preset="sticky")
    assert router.plan(following).steps[0] is chosen
    assert following.session == first.session != ""
    for other in (chat("Hello", system="Be long."), chat("Bye"), {"messages": "x"}, {"prompt": "Hello"}):
        asked = route_request(prompt=other, preset="sticky")
        router.plan(asked)
        assert asked.session != first.session
