"""One answer as callers look it up afterwards: usage, cost, and who gave it."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from gateway.types import ids
from gateway.types.generation import AttemptRecord, GenerationRecord
from gateway.types.money import usd_json
from gateway.types.tokens import Usage

_UNKNOWN: Final = dict.fromkeys(
    (
        *("num_fetches", "num_input_audio_prompt", "num_media_completion", "num_media_prompt", "num_search_results"),
        "preset_id",
    )
)
"""Members that clients need and that say nothing here."""


def generation_object(record: GenerationRecord) -> dict[str, Any]:
    """Return a generation with every member the official clients need; ``tokens_*`` are the engine's own counts."""
    # An answer that broke and went on elsewhere is the sum of its parts; what failed without being part of it is not.
    last = next((each for each in reversed(record.attempts) if each.status != "failed"), record.attempts[-1])
    parts = [each for each in record.attempts if each.status == "continued"] + [last]
    usage = Usage(*(sum(counts) for counts in zip(*(astuple(each.usage) for each in parts), strict=True)))
    first = parts[0]
    created = dt.datetime.fromtimestamp(record.created_us / 1e6, tz=dt.UTC)
    cost = msgspec.Raw(usd_json(sum(each.charge_nano for each in parts)))
    cached = [each.cache_nano for each in parts if each.cache_nano is not None]
    saved = sum(cached) if cached else None
    took = sum(each.generation_us for each in parts)
    listed = usd_json(sum(each.charge_nano + each.discount_nano for each in parts)) if last.byok else b"null"
    return {
        "id": ids.text(record.request_id),
        "request_id": ids.text(record.request_id),
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "model": last.model,
        "origin": f"https://{last.app}" if last.app else "",
        "data_region": "global",
        "is_byok": last.byok,
        "total_cost": cost,
        "usage": cost,
        "api_type": last.operation if last.operation in {"embeddings", "rerank"} else "completions",
        "app_id": None,
        "cache_discount": None if saved is None else msgspec.Raw(usd_json(saved)),
        "cancelled": last.status == "client_cancel",
        "external_user": last.user or None,
        "finish_reason": last.finish_reason or None,
        "generation_time": _ms(took) if took else None,  # a whole answer says nothing of when it was begun
        "http_referer": f"https://{last.app}" if last.app else None,
        "latency": _latency(first),
        "moderation_latency": None,
        "native_finish_reason": last.finish_reason or None,
        "native_tokens_cached": usage.cache_read,
        "native_tokens_completion": usage.completion,
        "native_tokens_completion_images": usage.image_completion,
        "native_tokens_prompt": usage.prompt,
        "native_tokens_reasoning": usage.reasoning,
        "num_continuations": len(parts) - 1,
        **_UNKNOWN,
        "provider_name": last.provider,
        "provider_responses": [_attempt(attempt) for attempt in record.attempts],
        "router": None,
        "service_tier": last.tier,
        "session_id": None,  # names of conversations are not written down
        "status": last.status,
        "streamed": last.streamed,
        "tokens_completion": usage.completion,
        "tokens_prompt": usage.prompt,
        "tokens_replayed": sum(each.replayed for each in record.attempts),
        "upstream_id": last.upstream_id or None,
        "upstream_inference_cost": msgspec.Raw(listed),
        "usage_source": last.source,
        "user_agent": None,
        "web_search_engine": None,
        "workspace_id": last.team,
    }


def cached_object(source: GenerationRecord, hit: bytes) -> dict[str, Any]:
    """Return the generation ``hit`` that got the answer of ``source`` from the response cache: no tokens, no cost."""
    free = msgspec.Raw(usd_json(0))
    counts = ("tokens_prompt", "tokens_completion", "tokens_replayed")
    native = ("prompt", "completion", "completion_images", "reasoning", "cached")
    created = dt.datetime.fromtimestamp(ids.unix_ms(hit) / 1e3, tz=dt.UTC)
    return generation_object(source) | {
        "id": ids.text(hit),
        "request_id": ids.text(hit),
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "total_cost": free,
        "usage": free,
        "cache_discount": None,
        "cancelled": False,
        "generation_time": 0.0,
        "latency": 0.0,
        "provider_responses": [],
        "upstream_id": None,
        "upstream_inference_cost": None,
        "response_cache_source_id": ids.text(source.request_id),
        **dict.fromkeys((*counts, *(f"native_tokens_{name}" for name in native)), 0),
    }


def _attempt(attempt: AttemptRecord) -> dict[str, Any]:
    # OpenRouter's client for Node takes these to be there or missing, not null.
    known = {"latency": _latency(attempt), "id": attempt.upstream_id or None}
    return {
        "provider_name": attempt.provider,
        "model_permaslug": attempt.model,
        "endpoint_id": attempt.endpoint,
        "status": attempt.http_status or None,
        "is_byok": attempt.byok,
        "outcome": attempt.status,
        "error": attempt.error or None,
        **{name: value for name, value in known.items() if value is not None},
    }


def _latency(attempt: AttemptRecord) -> float | None:
    """Return the milliseconds to the first token; of a whole answer, of which nobody sees it, to its end."""
    whole = attempt.duration_us if attempt.status == "ok" else 0
    return _ms(attempt.ttft_us or whole) if attempt.ttft_us or whole else None


def _ms(microseconds: int) -> float:
    return round(microseconds / 1000, 3)
