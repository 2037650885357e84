"""Small fleets for tests: the real configuration values and the real fleet, without a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network

from gateway.config.egress import Egress
from gateway.config.snapshot import (
    BackendSpec,
    Capabilities,
    ConfigSnapshot,
    EndpointSpec,
    ModelSpec,
    RoutingSpec,
)
from gateway.fleet.build import build
from gateway.fleet.snapshot import Candidate, Fleet
from gateway.routing.interface import RouteRequest
from gateway.types.call import Need
from gateway.types.money import Rates

MODEL = "qwen/qwen3-32b"
OWN_PRICE = Rates(100_000, 300_000)
"""0.10 and 0.30 USD per million tokens."""
OUTSIDE_PRICE = Rates(200_000, 800_000)
LOOPBACK = Egress((ip_network("127.0.0.0/8"), ip_network("::1/128")))


def backend(name: str, **changes: object) -> BackendSpec:
    """Return a vLLM backend of provider ``own``."""
    spec = BackendSpec(name=name, kind="vllm", url=f"http://10.0.0.1/{name}", provider="own")
    return replace(spec, **changes)  # type: ignore[arg-type]  # the names are the caller's


def endpoint(spec: BackendSpec, model_id: str = MODEL, **changes: object) -> EndpointSpec:
    """Return what makes ``spec`` serve a model."""
    made = EndpointSpec(
        model_id=model_id,
        backend=spec.name,
        upstream_model="Qwen/Qwen3-32B",
        provider=spec.provider,
        region=spec.region,
        quantization=None,
        price=OWN_PRICE if spec.provider == "own" else OUTSIDE_PRICE,
        cost=None,
        context_length=40_960,
        max_output=None,
        capabilities=Capabilities(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the names are the caller's


def model(endpoints: Sequence[EndpointSpec], model_id: str = MODEL) -> ModelSpec:
    """Return a model that ``endpoints`` serve."""
    return ModelSpec(
        id=model_id,
        name=model_id,
        description="",
        created=0,
        context_length=40_960,
        max_output=None,
        capabilities=Capabilities(),
        price=OWN_PRICE,
        endpoints=tuple(endpoints),
    )


def snapshot(
    backends: Sequence[BackendSpec],
    models: Sequence[ModelSpec] | None = None,
    *,
    aliases: Mapping[str, tuple[tuple[str, int], ...]] | None = None,
    preset: str = "balanced",
    egress: Egress = LOOPBACK,
    version: int = 1,
) -> ConfigSnapshot:
    """Return a configuration; without ``models`` every backend serves ``MODEL``."""
    served = models if models is not None else [model([endpoint(spec) for spec in backends])]
    return ConfigSnapshot(
        version=version,
        digest=str(version),
        backends={spec.name: spec for spec in backends},
        models={spec.id: spec for spec in served},
        aliases=aliases or {},
        routing=RoutingSpec(preset),
        egress=egress,
        teams=(),
        sources=(),
    )


def price_id(rates: Rates) -> int:
    """Return an id that equal rates share."""
    return rates.prompt * 1_000_003 + rates.completion + 1


def fleet(*backends: BackendSpec) -> Fleet:
    """Return a fleet of ``backends`` that all serve ``MODEL``."""
    return build(snapshot(backends), None, price_id)


def candidates(*backends: BackendSpec) -> tuple[Candidate, ...]:
    """Return the candidates of ``MODEL`` on ``backends``."""
    return fleet(*backends).models[MODEL].candidates


def route_request(**changes: object) -> RouteRequest:
    """Return a plain chat request of 1,000 prompt tokens at time 1,000."""
    fields: dict[str, object] = {
        "model_id": MODEL,
        "needs": Need.NONE,
        "prompt_tokens": 1_000,
        "prompt_tokens_exact": False,
        "max_tokens": 256,
        "choices": 1,
        "expected_tokens": 256,
        "stream": True,
        "team": "search",
        "preset": None,
        "now": 1_000.0,
    }
    return RouteRequest(**(fields | changes))  # type: ignore[arg-type]  # the names are the caller's
