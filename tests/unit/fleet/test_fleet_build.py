"""From a configuration to a fleet."""

from __future__ import annotations

from dataclasses import replace

from gateway.config.fleet import Capacity
from gateway.config.snapshot import Capabilities
from gateway.fleet.build import build
from gateway.types.money import Rates
from tests.fakes.fleet import (
    MODEL,
    OUTSIDE_PRICE,
    OWN_PRICE,
    backend,
    endpoint,
    model,
    price_id,
    snapshot,
)


def test_replicas_of_one_endpoint_are_grouped() -> None:
    """Backends that share provider, quantization and region are replicas of one endpoint; the others are not."""
    one, two = backend("gpu-a", region="eu"), backend("gpu-b", region="eu")
    far = backend("gpu-c", region="us")
    outside = backend("dashscope", provider="dashscope", kind="openai")
    endpoints = [
        endpoint(one, quantization="fp8"),
        endpoint(two, quantization="fp8"),
        endpoint(far, quantization="fp8"),
        endpoint(outside),
    ]
    made = build(snapshot([one, two, far, outside], [model(endpoints)]), None, price_id).models[MODEL]
    assert [found.slug for found in made.endpoints] == ["own/fp8@eu", "own/fp8@us", "dashscope"]
    assert [candidate.slug for candidate in made.candidates] == [
        "own/fp8@eu/gpu-a",
        "own/fp8@eu/gpu-b",
        "own/fp8@us/gpu-c",
        "dashscope/dashscope",
    ]
    assert made.candidates[0].endpoint is made.candidates[1].endpoint
    assert [candidate.replica.engine.kind for candidate in made.candidates] == ["vllm", "vllm", "vllm", "openai"]


def test_an_endpoint_promises_what_all_its_replicas_keep() -> None:
    """The shortest context, the shortest answer, and only what every replica can do."""
    one, two = backend("gpu-a"), backend("gpu-b")
    endpoints = [
        endpoint(one, context_length=40_960, max_output=8_192, capabilities=Capabilities(vision=True, audio=True)),
        endpoint(two, context_length=32_768, capabilities=Capabilities(vision=True, tools=False)),
    ]
    (made,) = build(snapshot([one, two], [model(endpoints)]), None, price_id).models[MODEL].endpoints
    assert (made.context_length, made.max_output) == (32_768, 8_192)
    assert made.capabilities == Capabilities(vision=True, audio=False, tools=False)


def test_prices_and_costs_have_ids() -> None:
    """The sell price is the endpoint's, every class filled in; cost is there only where the owner pays by token."""
    own, outside = backend("gpu-a"), backend("dashscope", provider="dashscope", kind="openai")
    cost = Rates(160_000, 640_000)
    made = build(
        snapshot([own, outside], [model([endpoint(own), endpoint(outside, cost=cost)])]), None, price_id
    ).models[MODEL]
    first, second = made.candidates
    assert first.endpoint.price == OWN_PRICE.resolved()
    assert first.endpoint.price_id == price_id(OWN_PRICE.resolved())
    assert (first.cost, first.cost_id) == (None, 0)
    assert second.endpoint.price == OUTSIDE_PRICE.resolved()
    assert (second.cost, second.cost_id) == (cost.resolved(), price_id(cost.resolved()))


def test_one_backend_may_serve_several_models() -> None:
    """A replica is one per backend, whatever it serves, so its load is one."""
    spec = backend("gpu-a")
    made = build(snapshot([spec], [model([endpoint(spec)]), model([endpoint(spec, "other")], "other")]), None, price_id)
    assert made.models[MODEL].candidates[0].replica is made.models["other"].candidates[0].replica
    assert made.models["other"].candidates[0].replica is made.replicas["gpu-a"]


def test_what_is_known_of_a_server_survives_a_reload() -> None:
    """Load stays with a replica whose name, URL and kind stay; a new server under an old name starts afresh."""
    old = build(snapshot([backend("gpu-a"), backend("gpu-b"), backend("gpu-c")]), None, price_id)
    changed = [
        backend("gpu-a", gpu="2xH100", region="eu"),
        backend("gpu-b", url="http://10.9.9.9"),
        backend("gpu-c", kind="sglang"),
        backend("gpu-d"),
    ]
    new = build(snapshot(changed, version=2), old, price_id)
    kept = {name: new.replicas[name].load is old.replicas[name].load for name in ("gpu-a", "gpu-b", "gpu-c")}
    assert kept == {"gpu-a": True, "gpu-b": False, "gpu-c": False}
    assert new.replicas["gpu-a"].backend.gpu == "2xH100"
    assert (old.version, new.version) == (1, 2)


def test_a_drained_backend_that_moves_stays_drained() -> None:
    """What operators said of its name holds at its new URL from the first decision on."""
    old = build(snapshot([backend("gpu-a"), backend("gpu-b")]), None, price_id)
    old.replicas["gpu-a"].load.draining = True
    moved = [backend("gpu-a", url="http://10.9.9.9"), backend("gpu-b", url="http://10.9.9.8")]
    new = build(snapshot(moved, version=2), old, price_id)
    assert [new.replicas[name].load.draining for name in ("gpu-a", "gpu-b")] == [True, False]


def test_the_room_of_a_cache_is_what_was_said_last() -> None:
    """The owner first, then the engine itself, until the owner says something else, or takes it back."""
    fleet = None
    for said, heard, then in (
        (1_000, None, 1_000),
        (1_000, 900, 900),
        (1_000, None, 900),
        (2_000, None, 2_000),
        (None, None, None),
        (1_000, 900, 900),
        (None, None, 900),
    ):
        spec = replace(backend("gpu-a"), capacity=Capacity(kv_tokens=said))
        fleet = build(snapshot([spec], [model([endpoint(spec)])]), fleet, price_id)
        load = fleet.replicas["gpu-a"].load
        load.kv_tokens = heard or load.kv_tokens
        assert load.kv_tokens == then


def test_aliases_and_the_default_preset_come_along() -> None:
    """Everything routing asks of a configuration is in the fleet, so that it changes in one step."""
    made = build(snapshot([backend("gpu-a")], aliases={"house": ((MODEL, 1),)}, preset="fastest"), None, price_id)
    assert made.aliases == {"house": ((MODEL, 1),)}
    assert made.default_preset == "fastest"
