"""From a valid file to the snapshot: defaults filled in, prices and providers resolved, content digested.

Expects a file that passed every check; a file that did not makes it raise whatever comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from gateway.config.backends import BackendSection
from gateway.config.document import Key
from gateway.config.egress import Egress, networks
from gateway.config.external import based
from gateway.config.models import EndpointSection, ModelSection
from gateway.config.schema import FileSection
from gateway.config.snapshot import (
    BackendSpec,
    ConfigSnapshot,
    EndpointSpec,
    KeySpec,
    LitellmSpec,
    ModelSpec,
    RoutingSpec,
    Secret,
    TeamSpec,
)
from gateway.config.source import SourceFile
from gateway.types.money import Rates


def assemble(
    file: FileSection, secrets: Mapping[Key, Secret], version: int, sources: tuple[SourceFile, ...]
) -> ConfigSnapshot:
    """Return the snapshot of ``file``; ``secrets`` are what its keys refer to."""
    specs = (_backend(section, index, secrets) for index, section in enumerate(file.backends))
    backends = {spec.name: spec for spec in specs}
    models = {section.id: _model(section, backends) for section in file.models}
    aliases = {alias: tuple(targets.items()) for alias, targets in file.aliases.items()}
    routing = RoutingSpec(file.routing.default, file.routing.decisions.values())
    admission = file.admission.values()
    boards = file.boards.values()
    billing = file.billing.values(_sink_secrets(secrets))
    console = file.console.values(secrets.get(("console", "oidc", "client_secret")))
    egress = Egress(networks(file.egress.allow))
    teams = tuple(TeamSpec(team.slug, team.name) for team in file.teams)
    budgets = tuple(section.values() for section in file.budgets)
    content = msgspec.json.encode(
        [
            backends,
            models,
            aliases,
            routing,
            egress,
            teams,
            admission,
            boards,
            billing,
            budgets,
            *(file.retention.values(), file.repetition.values(), file.content.values(), file.byok.values()),
            file.responses.values(),
            console,
            file.cors.values(),
        ],
        enc_hook=_encodable,
        order="deterministic",
    )
    return ConfigSnapshot(
        version=version,
        digest=hashlib.sha256(content).hexdigest(),
        backends=MappingProxyType(backends),
        models=MappingProxyType(models),
        aliases=MappingProxyType(aliases),
        routing=routing,
        egress=egress,
        teams=teams,
        sources=sources,
        admission=admission,
        boards=boards,
        budgets=budgets,
        billing=billing,
        retention=file.retention.values(),
        byok=file.byok.values(),
        repetition=file.repetition.values(),
        content=file.content.values(),
        responses=file.responses.values(),
        console=console,
        cors=file.cors.values(),
    )


def _sink_secrets(secrets: Mapping[Key, Secret]) -> dict[int, dict[str, Secret]]:
    """Return the secrets of sinks by position and name."""
    found: dict[int, dict[str, Secret]] = {}
    for key, secret in secrets.items():
        if key[:2] == ("billing", "sinks") and isinstance(key[2], int):
            found.setdefault(key[2], {})[str(key[3])] = secret
    return found


def _keys(section: BackendSection, index: int, secrets: Mapping[Key, Secret]) -> tuple[KeySpec, ...]:
    return tuple(
        KeySpec(
            each.name or str(place + 1),
            secrets["backends", index, "api_keys", place, "key"],
            each.weight,
            each.limits.values(),
        )
        for place, each in enumerate(section.api_keys)
    )


def _litellm(section: BackendSection, index: int, secrets: Mapping[Key, Secret]) -> LitellmSpec | None:
    if section.litellm is None:
        return None
    at: Key = ("backends", index, "litellm", "credentials")
    return section.litellm.values({name: secrets[*at, name] for name in section.litellm.credentials})


def _backend(section: BackendSection, index: int, secrets: Mapping[Key, Secret]) -> BackendSpec:
    api_key, api_keys = secrets.get(("backends", index, "api_key")), _keys(section, index, secrets)
    return BackendSpec(
        name=section.name,
        kind=section.kind,
        url=based(section.url, section.api),
        provider=section.group,
        region=section.region,
        api_key=api_keys[0].secret if api_keys else api_key,
        api_keys=api_keys,
        litellm=_litellm(section, index, secrets),
        usd_per_hour=section.usd_per_hour,
        gpu=section.gpu,
        capacity=section.capacity.values(),
        limits=section.limits.values(),
        on_disconnect=section.when_left,
        timeouts=section.timeouts.values(),
        tags=section.tags,
        collects=section.collects,
        zdr=section.retains_nothing,
        dialects=frozenset(section.dialects),
        profile=section.api,
    )


def _model(section: ModelSection, backends: Mapping[str, BackendSpec]) -> ModelSpec:
    endpoints = tuple(_endpoint(section, endpoint, backends) for endpoint in section.endpoints)
    prices = (endpoint.price for endpoint in endpoints)
    return ModelSpec(
        id=section.id,
        name=section.name or section.id,
        description=section.description,
        created=section.created,
        context_length=section.context_length,
        max_output=section.max_output,
        capabilities=section.can,
        price=section.price.rates() if section.price else min(prices, key=_rank),
        endpoints=endpoints,
        pace=section.pace,
        own_price=section.price is not None,
    )


def _endpoint(model: ModelSection, section: EndpointSection, backends: Mapping[str, BackendSpec]) -> EndpointSpec:
    backend = backends[section.backend]
    price = section.price or model.price
    assert price is not None
    context = section.context_length or model.context_length
    longest = section.max_output or model.max_output
    return EndpointSpec(
        model_id=model.id,
        backend=backend.name,
        upstream_model=section.model or model.id,
        provider=backend.provider,
        region=backend.region,
        quantization=section.quantization,
        price=price.rates(),
        cost=section.cost.rates() if section.cost else None,
        context_length=context,
        max_output=None if longest is None else min(longest, context),
        capabilities=section.capabilities.over(model.can),
        supported_parameters=section.supported_parameters,
        tool_quality=section.tool_quality,
        own_price=section.price is not None,
    )


def _rank(price: Rates) -> int:
    return price.prompt + price.completion


def _encodable(value: object) -> str:
    """Return what stands for ``value`` in the digest: a network as text, a secret as a word."""
    return "secret" if isinstance(value, Secret) else str(value)
