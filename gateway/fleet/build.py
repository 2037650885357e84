"""From a configuration to the fleet that serves it.

Expects a checked configuration and raises nothing on one. What is known of a replica's load survives a reload as long
as its name, URL and kind stay the same, what speaks against it as long as its credentials do as well, and the track
record of an endpoint as long as it is one of the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType

from gateway.config.snapshot import BackendSpec, Capabilities, ConfigSnapshot, EndpointGroup, EndpointSpec, ModelSpec
from gateway.engines.parameters import supported
from gateway.engines.profiles import engine_of
from gateway.fleet.estimate import Estimate
from gateway.fleet.keychain import keyed
from gateway.fleet.load import ReplicaLoad
from gateway.fleet.prefix import ASSUMED_TOKENS
from gateway.fleet.priors import most_running, prior
from gateway.fleet.snapshot import Candidate, Endpoint, Fleet, Model, Replica
from gateway.fleet.track import Track
from gateway.types.money import Rates

PriceId = Callable[[Rates], int]
"""Gives rates the id under which the journal knows them."""


def build(snapshot: ConfigSnapshot, previous: Fleet | None, price_id: PriceId, *, workers: int = 1) -> Fleet:
    """Return the fleet of ``snapshot``; loads of unchanged replicas come from ``previous``.

    Limits of a backend are shared evenly by the ``workers`` processes of this host, so that together they keep them.
    """
    known = previous.replicas if previous is not None else {}
    replicas = {
        name: Replica(name, spec, engine_of(spec.kind, spec.profile), _load(spec, known.get(name), workers))
        for name, spec in snapshot.backends.items()
    }
    tracks = _tracks(previous)
    models = {id_: _model(spec, replicas, price_id, tracks) for id_, spec in snapshot.models.items()}
    return Fleet(
        version=snapshot.version,
        models=MappingProxyType(models),
        replicas=MappingProxyType(replicas),
        aliases=snapshot.aliases,
        default_preset=snapshot.routing.default,
        chats=all(model.chats for model in models.values()),
    )


def _load(spec: BackendSpec, known: Replica | None, workers: int) -> ReplicaLoad:
    """Return the load to go on with, the known one when it is still the same server, told what its owner now says."""
    if known is not None and (known.backend.url, known.backend.kind) == (spec.url, spec.kind):
        load = known.load
        if _credentials(known.backend) != _credentials(spec):
            load.acquit()
            load.quota = load.quota.succeeded()
    else:
        load = ReplicaLoad()
        if known is not None:
            load.draining = known.load.draining  # operators drain a backend by its name, wherever it is
    believed = prior(spec)
    if load.estimate.prior != believed:
        load.estimate = Estimate(believed)
    load.ceiling.limit(most_running(spec))
    limits = spec.limits
    load.quota = keyed(load.quota, spec.api_keys, workers)
    load.quota.limit(_part(limits.rpm, workers), _part(limits.tpm, workers), _part(limits.concurrent, workers))
    room = spec.capacity.kv_tokens
    # What the engine itself says stands, until its owner says something else than before.
    before = known.backend.capacity.kv_tokens if known is not None else None
    if room is not None and (load.kv_tokens is None or before != room):
        load.kv_tokens = room
        load.prefix.resize(room)
    elif room is None and before is not None and load.kv_tokens == before:
        load.kv_tokens = None
        load.prefix.resize(ASSUMED_TOKENS)
    return load


def _credentials(spec: BackendSpec) -> tuple[object, ...]:
    """Return what a backend is asked with; what it held against one key it need not hold against the next."""
    return (spec.api_key, [key.secret for key in spec.api_keys], spec.litellm)


def _tracks(previous: Fleet | None) -> dict[tuple[str, str], Track]:
    """Return the track records of all endpoints of ``previous``, by model and slug."""
    if previous is None:
        return {}
    return {
        (endpoint.model_id, endpoint.slug): endpoint.track
        for model in previous.models.values()
        for endpoint in model.endpoints
    }


def _part(limit: int | None, workers: int) -> float | None:
    """Return one worker's part of a limit, at least one."""
    return None if limit is None else max(1.0, limit / workers)


def _model(
    spec: ModelSpec, replicas: dict[str, Replica], price_id: PriceId, tracks: Mapping[tuple[str, str], Track]
) -> Model:
    groups: dict[EndpointGroup, list[EndpointSpec]] = {}
    for endpoint in spec.endpoints:
        groups.setdefault(endpoint.group, []).append(endpoint)
    endpoints = {
        group: replace(_endpoint(group, specs, replicas, price_id, tracks), pace=spec.pace)
        for group, specs in groups.items()
    }
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
        chats=all(endpoint.capabilities.chat for endpoint in endpoints.values()),
    )


def _endpoint(
    group: EndpointGroup,
    specs: Sequence[EndpointSpec],
    replicas: Mapping[str, Replica],
    price_id: PriceId,
    tracks: Mapping[tuple[str, str], Track],
) -> Endpoint:
    """Return the endpoint of ``specs``, its replicas, with what all of them can keep."""
    price = specs[0].price.resolved()
    longest = [spec.max_output for spec in specs if spec.max_output is not None]
    qualities = [spec.tool_quality for spec in specs if spec.tool_quality is not None]
    slug = group.slug
    return Endpoint(
        slug=slug,
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
        parameters=frozenset.intersection(*(_parameters(spec, replicas[spec.backend]) for spec in specs)),
        tool_quality=min(qualities, default=None),
        track=tracks.get((group.model_id, slug)) or Track(),
        team_prices={team: (full := rates.resolved(), price_id(full)) for team, rates in specs[0].team_prices.items()},
    )


def _parameters(spec: EndpointSpec, replica: Replica) -> frozenset[str]:
    """Return what one replica supports: what the configuration says, else what its engine takes."""
    if spec.supported_parameters is not None:
        return frozenset(spec.supported_parameters)
    can = spec.capabilities
    return supported(replica.engine, tools=can.tools, json_schema=can.json_schema, logprobs=can.logprobs)


def _candidate(spec: EndpointSpec, endpoint: Endpoint, replica: Replica, price_id: PriceId) -> Candidate:
    cost = spec.cost.resolved() if spec.cost is not None else None
    return Candidate(
        endpoint=endpoint,
        replica=replica,
        upstream_model=spec.upstream_model,
        cost=cost,
        cost_id=price_id(cost) if cost is not None else 0,
        slug=f"{endpoint.slug}/{replica.name}",
        names=_names(endpoint, replica),
    )


def _names(endpoint: Endpoint, replica: Replica) -> frozenset[str]:
    """Return every slug for a replica at an endpoint, the widest its provider, the narrowest its own name."""
    provider, quantization, region = endpoint.provider, endpoint.quantization, endpoint.region
    names = {provider, endpoint.slug, replica.name, f"{endpoint.slug}/{replica.name}"}
    if quantization:
        names.add(f"{provider}/{quantization}")
    if region:
        names |= {f"{provider}/{region}", f"{provider}@{region}"}
    return frozenset(name.casefold() for name in names)
