"""From a configuration to the fleet that serves it.

Expects a checked configuration and raises nothing on one. What is known of a replica's load survives a reload as long
as its name, URL and kind stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from types import MappingProxyType

from gateway.config.snapshot import BackendSpec, Capabilities, ConfigSnapshot, EndpointGroup, EndpointSpec, ModelSpec
from gateway.engines.catalogue import ENGINES
from gateway.fleet.load import ReplicaLoad
from gateway.fleet.snapshot import Candidate, Endpoint, Fleet, Model, Replica
from gateway.types.money import Rates

PriceId = Callable[[Rates], int]
"""Gives rates the id under which the journal knows them."""


def build(snapshot: ConfigSnapshot, previous: Fleet | None, price_id: PriceId) -> Fleet:
    """Return the fleet of ``snapshot``; loads of unchanged replicas come from ``previous``."""
    known = previous.replicas if previous is not None else {}
    replicas = {
        name: Replica(name, spec, ENGINES[spec.kind], _load(spec, known.get(name)))
        for name, spec in snapshot.backends.items()
    }
    return Fleet(
        version=snapshot.version,
        models=MappingProxyType({id_: _model(spec, replicas, price_id) for id_, spec in snapshot.models.items()}),
        replicas=MappingProxyType(replicas),
        aliases=snapshot.aliases,
        default_preset=snapshot.routing.default,
    )


def _load(spec: BackendSpec, known: Replica | None) -> ReplicaLoad:
    """Return the load to go on with: the known one when it is still the same server."""
    if known is not None and (known.backend.url, known.backend.kind) == (spec.url, spec.kind):
        return known.load
    return ReplicaLoad()


def _model(spec: ModelSpec, replicas: dict[str, Replica], price_id: PriceId) -> Model:
    groups: dict[EndpointGroup, list[EndpointSpec]] = {}
    for endpoint in spec.endpoints:
        groups.setdefault(endpoint.group, []).append(endpoint)
    endpoints = {group: _endpoint(group, specs, price_id) for group, specs in groups.items()}
    return Model(
        id=spec.id,
        name=spec.name,
        description=spec.description,
        created=spec.created,
        context_length=spec.context_length,
        max_output=spec.max_output,
        capabilities=spec.capabilities,
        price=spec.price,
        endpoints=tuple(endpoints.values()),
        candidates=tuple(
            _candidate(endpoint, endpoints[endpoint.group], replicas[endpoint.backend], price_id)
            for endpoint in spec.endpoints
        ),
    )


def _endpoint(group: EndpointGroup, specs: Sequence[EndpointSpec], price_id: PriceId) -> Endpoint:
    """Return the endpoint of ``specs``, its replicas, with what all of them can keep."""
    price = specs[0].price.resolved()
    longest = [spec.max_output for spec in specs if spec.max_output is not None]
    return Endpoint(
        slug=_slug(group),
        model_id=group.model_id,
        provider=group.provider,
        quantization=group.quantization,
        region=group.region,
        price=price,
        price_id=price_id(price),
        context_length=min(spec.context_length for spec in specs),
        max_output=min(longest, default=None),
        capabilities=Capabilities(
            **{flag.name: all(getattr(spec.capabilities, flag.name) for spec in specs) for flag in fields(Capabilities)}
        ),
    )


def _slug(group: EndpointGroup) -> str:
    quantization = f"/{group.quantization}" if group.quantization else ""
    region = f"@{group.region}" if group.region else ""
    return f"{group.provider}{quantization}{region}"


def _candidate(spec: EndpointSpec, endpoint: Endpoint, replica: Replica, price_id: PriceId) -> Candidate:
    cost = spec.cost.resolved() if spec.cost is not None else None
    return Candidate(
        endpoint=endpoint,
        replica=replica,
        upstream_model=spec.upstream_model,
        cost=cost,
        cost_id=price_id(cost) if cost is not None else 0,
        slug=f"{endpoint.slug}/{replica.name}",
    )
