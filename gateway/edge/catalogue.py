"""What callers can look up: models, one model, one generation.

OpenAI's list (``/v1/models``) and OpenRouter's (``/api/v1/models``) share one model object that has the members both
official clients need. Every path wants an inference key; a generation is shown to the team that made it and to nobody
else, and one of another team answers exactly as an unknown one does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Annotated, Any, Final, Protocol

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec.structs import astuple

from gateway.access.principal import Principal
from gateway.fleet.snapshot import Fleet, Model
from gateway.types import ids
from gateway.types.errors import BadRequest, NotFound
from gateway.types.generation import AttemptRecord, GenerationRecord, LedgerReader
from gateway.types.money import Rates, usd_json, usd_per_token_text
from gateway.types.tokens import Usage

Authenticate = Callable[[Request], Principal]
_encode: Final = msgspec.json.Encoder().encode


class Fleets(Protocol):
    """Where the current fleet is."""

    @property
    def fleet(self) -> Fleet:
        """The fleet now."""


def build_router(fleets: Fleets, ledger: LedgerReader, authenticate: Authenticate) -> APIRouter:
    """Return the catalogue's paths."""
    router = APIRouter(tags=["catalogue"])
    known = Depends(authenticate)

    @router.get("/v1/models", summary="List models, OpenAI's form")
    def models(caller: Principal = known) -> Response:
        return _json({"object": "list", "data": _visible(fleets.fleet, caller)})

    @router.get("/api/v1/models", summary="List models, OpenRouter's form")
    def openrouter_models(
        caller: Principal = known,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    ) -> Response:
        found = _visible(fleets.fleet, caller)
        page = found[offset : offset + limit]
        return _json({"data": page, "total_count": len(found), "links": {"next": None}})

    @router.get("/v1/models/{model_id:path}", summary="One model, OpenAI's form")
    def model(model_id: str, caller: Principal = known) -> Response:
        found = next((each for each in _visible(fleets.fleet, caller) if each["id"] == model_id), None)
        if found is None:
            raise NotFound(f"no model {model_id[:128]!r}", param="model")
        return _json(found)

    @router.get("/api/v1/generation", summary="Usage and cost of one answer")
    async def generation(id: Annotated[str, Query(max_length=64)], caller: Principal = known) -> Response:  # noqa: A002
        request_id = ids.parse(id)
        if request_id is None:
            raise BadRequest("a generation id is `gen-` and 32 hexadecimal digits", param="id")
        record = await ledger.generation(request_id)
        if record is None or not (caller.management or record.attempts[-1].team == caller.team):
            raise NotFound("no such generation", param="id")
        return _json({"data": generation_object(record)})

    return router


def _json(document: Any) -> Response:
    return Response(_encode(document), media_type="application/json")


def _visible(fleet: Fleet, caller: Principal) -> list[dict[str, Any]]:
    """Return the models and then the aliases that a key may use; a picker shows what it is shown."""
    found = [model_object(model) for model in fleet.models.values() if caller.management or caller.may_use(model.id)]
    for alias, shares in fleet.aliases.items():
        drawn = [fleet.models[name] for name, _ in shares if caller.management or caller.may_use(name, alias)]
        if drawn:
            meant = " or ".join(model.name for model in drawn)
            found.append(model_object(drawn[0]) | {"id": alias, "name": alias, "description": f"Stands for {meant}."})
    return found


def model_object(model: Model) -> dict[str, Any]:
    """Return a model as both OpenAI's and OpenRouter's clients read it."""
    can = model.capabilities
    inputs = ["text"] + ["image"] * can.vision + ["audio"] * can.audio
    output = "embeddings" if can.embeddings else "text"
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
            "modality": f"{'+'.join(inputs)}->{output}",
            "input_modalities": inputs,
            "output_modalities": [output],
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
        "links": {"details": f"/api/v1/models/{model.id}/endpoints"},
    }


def pricing_object(rates: Rates) -> dict[str, str]:
    """Return prices as OpenRouter writes them: decimal strings, USD per token."""
    full = rates.resolved()
    return {
        "prompt": usd_per_token_text(full.prompt),
        "completion": usd_per_token_text(full.completion),
        "input_cache_read": usd_per_token_text(full.cache_read or 0),
        "input_cache_write": usd_per_token_text(full.cache_write or 0),
        "internal_reasoning": usd_per_token_text(full.reasoning or 0),
        "request": usd_json(full.request).decode("ascii"),
        "image": "0",
        "web_search": "0",
    }


def generation_object(record: GenerationRecord) -> dict[str, Any]:
    """Return a generation with every member the official clients need; ``tokens_*`` are the engine's own counts."""
    # An answer that broke and went on elsewhere is the sum of its parts; what failed without being part of it is not.
    last = next((each for each in reversed(record.attempts) if each.status != "failed"), record.attempts[-1])
    parts = [each for each in record.attempts if each.status == "continued"] + [last]
    usage = Usage(*(sum(counts) for counts in zip(*(astuple(each.usage) for each in parts), strict=True)))
    first = parts[0]
    created = dt.datetime.fromtimestamp(record.created_us / 1e6, tz=dt.UTC)
    cost = msgspec.Raw(usd_json(sum(each.charge_nano for each in parts)))
    return {
        "id": ids.text(record.request_id),
        "request_id": ids.text(record.request_id),
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "model": last.model,
        "origin": f"https://{last.app}" if last.app else "",
        "data_region": "global",
        "is_byok": False,
        "total_cost": cost,
        "usage": cost,
        "api_type": "embeddings" if last.operation == "embeddings" else "completions",
        "app_id": None,
        "cache_discount": None,
        "cancelled": last.status == "client_cancel",
        "external_user": last.user or None,
        "finish_reason": last.finish_reason or None,
        "generation_time": _ms(sum(each.generation_us for each in parts)),
        "http_referer": f"https://{last.app}" if last.app else None,
        "latency": _ms(first.ttft_us) if first.ttft_us else None,
        "moderation_latency": None,
        "native_finish_reason": last.finish_reason or None,
        "native_tokens_cached": usage.cache_read,
        "native_tokens_completion": usage.completion,
        "native_tokens_completion_images": usage.image_completion,
        "native_tokens_prompt": usage.prompt,
        "native_tokens_reasoning": usage.reasoning,
        "num_continuations": len(parts) - 1,
        "num_fetches": None,
        "num_input_audio_prompt": None,
        "num_media_completion": None,
        "num_media_prompt": None,
        "num_search_results": None,
        "preset_id": None,
        "provider_name": last.provider,
        "provider_responses": [_attempt(attempt) for attempt in record.attempts],
        "router": None,
        "service_tier": last.tier,
        "session_id": None,
        "status": last.status,
        "streamed": last.streamed,
        "tokens_completion": usage.completion,
        "tokens_prompt": usage.prompt,
        "tokens_replayed": sum(each.replayed for each in record.attempts),
        "upstream_id": last.upstream_id or None,
        "upstream_inference_cost": None,
        "usage_source": last.source,
        "user_agent": None,
        "web_search_engine": None,
        "workspace_id": last.team,
    }


def _attempt(attempt: AttemptRecord) -> dict[str, Any]:
    return {
        "provider_name": attempt.provider,
        "model_permaslug": attempt.model,
        "endpoint_id": attempt.endpoint,
        "status": attempt.http_status or None,
        "latency": _ms(attempt.ttft_us) if attempt.ttft_us else None,
        "id": attempt.upstream_id or None,
        "is_byok": False,
        "outcome": attempt.status,
        "error": attempt.error or None,
    }


def _ms(microseconds: int) -> float:
    return round(microseconds / 1000, 3)
