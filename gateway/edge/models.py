"""Models as callers look them up: one object that has the members both official clients need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.access.principal import Principal
from gateway.fleet.snapshot import Fleet, Model
from gateway.types.money import Rates, usd_json, usd_per_token_text


def visible(fleet: Fleet, caller: Principal) -> list[Model]:
    """Return the models that a key may use."""
    return [model for model in fleet.models.values() if caller.management or caller.may_use(model.id)]


def alias_objects(fleet: Fleet, caller: Principal) -> list[dict[str, Any]]:
    """Return the aliases that a key may use."""
    return [alias_object(alias, drawn) for alias in fleet.aliases if (drawn := drawn_by(fleet, alias, caller))]


def drawn_by(fleet: Fleet, alias: str, caller: Principal) -> list[Model]:
    """Return the models that a key may get by an alias, the likeliest first; none when there is no such alias."""
    shares = sorted(fleet.aliases.get(alias, ()), key=lambda share: -share[1])
    return [fleet.models[name] for name, _ in shares if caller.management or caller.may_use(name, alias)]


def alias_object(alias: str, drawn: Sequence[Model]) -> dict[str, Any]:
    """Return an alias as the first of the models that it may be."""
    meant = " or ".join(model.name for model in drawn)
    said = {"id": alias, "name": alias, "description": f"Stands for {meant}.", "links": _links(alias)}
    return model_object(drawn[0]) | said


def modalities(model: Model) -> tuple[list[str], list[str]]:
    """Return what goes into a model and what comes out."""
    can = model.capabilities
    inputs = ["text"] + ["image"] * can.vision + ["audio"] * can.audio
    outputs = ["text"] * (can.chat or can.completions) + ["embeddings"] * can.embeddings + ["rerank"] * can.rerank
    return inputs, outputs


def model_object(model: Model) -> dict[str, Any]:
    """Return a model as both OpenAI's and OpenRouter's clients read it."""
    inputs, outputs = modalities(model)
    supported: frozenset[str] = frozenset().union(*(endpoint.parameters for endpoint in model.endpoints))
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.id.partition("/")[0],
        "canonical_slug": model.id,
        "name": model.name,
        "description": model.description,
        "context_length": model.context_length,
        "architecture": {
            "modality": f"{'+'.join(inputs)}->{outputs[0]}",
            "input_modalities": inputs,
            "output_modalities": outputs,
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "pricing": pricing_object(model.price),
        "top_provider": {
            "context_length": model.context_length,
            "max_completion_tokens": model.max_output,
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": sorted(supported),
        "default_parameters": None,
        "supported_voices": None,
        "links": _links(model.id),
    }


def _links(name: str) -> dict[str, str]:
    return {"details": f"/api/v1/models/{name}/endpoints"}


def pricing_object(rates: Rates) -> dict[str, str]:
    """Return prices as OpenRouter writes them: decimal strings, USD per token."""
    full = rates.resolved()
    longer = {} if rates.cache_write_1h is None else {"input_cache_write_1h": usd_per_token_text(rates.cache_write_1h)}
    return {
        "prompt": usd_per_token_text(full.prompt),
        "completion": usd_per_token_text(full.completion),
        "input_cache_read": usd_per_token_text(full.cache_read or 0),
        "input_cache_write": usd_per_token_text(full.cache_write or 0),
        **longer,
        "internal_reasoning": usd_per_token_text(full.reasoning or 0),
        "request": usd_json(full.request).decode("ascii"),
        "image": "0",
        "web_search": "0",
    }
