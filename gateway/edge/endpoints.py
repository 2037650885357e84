"""The catalogue of endpoints: who serves a model, at what price, how reliably and how fast.

Uptime and speeds are what callers of this process met lately (``gateway.fleet.track``); a number that nobody measured
is null. Costs of the owner are never shown. A model that a key may not use is as unknown as one that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Final

from gateway.access.principal import Principal
from gateway.edge.models import alias_object, drawn_by, model_object, pricing_object, visible
from gateway.fleet.snapshot import Endpoint, Fleet, Model
from gateway.fleet.track import KEPT_MINUTES
from gateway.types.errors import NotFound

FIVE_MINUTES: Final = 300.0
_ROUTING_SUFFIXES: Final = frozenset({"nitro", "floor", "exacto"})
_UP: Final = 0
_DOWN: Final = -1


def base_id(fleet: Fleet, model_id: str) -> str:
    """Return ``model_id`` without the suffixes that only steer routing."""
    while model_id not in fleet.models and model_id not in fleet.aliases:
        base, _, suffix = model_id.rpartition(":")
        if suffix not in _ROUTING_SUFFIXES:
            break
        model_id = base
    return model_id


def listed(fleet: Fleet, model_id: str, caller: Principal) -> tuple[dict[str, Any], list[Model]]:
    """Return what is listed under that id or a routing variant of it, and the models that it means.

    An alias may mean several. Raises ``NotFound`` when ``caller`` may not see one.
    """
    name = base_id(fleet, model_id)
    model = fleet.models.get(name)
    if model is not None and (caller.management or caller.may_use(name)):
        return model_object(model), [model]
    drawn = drawn_by(fleet, name, caller)
    if not drawn:
        raise NotFound(f"no model {model_id[:128]!r}", param="model")
    return alias_object(name, drawn), drawn


def endpoints_of(about: Mapping[str, Any], models: Sequence[Model]) -> dict[str, Any]:
    """Return what is listed and the endpoints of the models that it means."""
    return {name: about[name] for name in ("id", "name", "created", "description", "architecture")} | {
        "endpoints": [endpoint_object(model, endpoint) for model in models for endpoint in model.endpoints]
    }


def zero_retention(fleet: Fleet, caller: Principal) -> list[dict[str, Any]]:
    """Return the endpoints of which every replica keeps nothing of a request."""
    return [
        endpoint_object(model, endpoint)
        for model in visible(fleet, caller)
        for endpoint in model.endpoints
        if all(each.replica.backend.zdr for each in model.candidates if each.endpoint is endpoint)
    ]


def providers(fleet: Fleet, caller: Principal) -> list[dict[str, Any]]:
    """Return who serves the models that ``caller`` may use."""
    slugs = {endpoint.provider for model in visible(fleet, caller) for endpoint in model.endpoints}
    unknown = {"privacy_policy_url": None, "terms_of_service_url": None, "status_page_url": None}
    return [{"name": slug, "slug": slug, **unknown} for slug in sorted(slugs)]


def endpoint_object(model: Model, endpoint: Endpoint) -> dict[str, Any]:
    """Return one endpoint as OpenRouter's clients read it; latencies in milliseconds, throughput in tokens a second."""
    now, track = monotonic(), endpoint.track
    speeds = track.speeds_over(now, KEPT_MINUTES)
    loads = [each.replica.load for each in model.candidates if each.endpoint is endpoint]
    able = any(load.ready and not load.draining and load.ejected_until <= now for load in loads)
    tools = endpoint.capabilities.tools
    return {
        "name": f"{endpoint.provider} | {model.id}",
        "model_id": model.id,
        "model_name": model.name,
        "context_length": endpoint.context_length,
        "pricing": pricing_object(endpoint.price),
        "provider_name": endpoint.provider,
        "tag": endpoint.slug,
        "quantization": endpoint.quantization,
        "region": endpoint.region,
        "max_completion_tokens": endpoint.max_output,
        "max_prompt_tokens": None,
        "supported_parameters": sorted(endpoint.parameters),
        "status": _UP if able else _DOWN,
        "uptime_last_5m": _share(track.recent(now, FIVE_MINUTES)),
        "uptime_last_30m": _share(track.uptime(now)),
        "uptime_last_1d": None,
        "latency_last_30m": _milliseconds(speeds.latency),
        "throughput_last_30m": speeds.throughput,
        "supports_implicit_caching": endpoint.price.cache_read is not None,
        "supports_tool_choice": dict.fromkeys(("auto", "function", "none", "required"), tools),
        "native_tools": {},
        "service_tier": None,
        "supports_diarization": False,
    }


def _share(outcomes: tuple[int, int]) -> float | None:
    """Return the good ones of good and bad outcomes in percent, or None when there was none."""
    good, bad = outcomes
    return round(100 * good / (good + bad), 3) if good + bad else None


def _milliseconds(percentiles: Mapping[str, float] | None) -> dict[str, float] | None:
    return {name: round(seconds * 1000, 3) for name, seconds in percentiles.items()} if percentiles else None
