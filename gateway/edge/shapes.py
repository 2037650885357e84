"""Answers of the API as JSON schemas, by hand: what clients may rely on. Used by ``gateway.edge.document``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Schema = dict[str, Any]
_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_NUMBER: Final[Schema] = {"type": "number"}
_FLAG: Final[Schema] = {"type": "boolean"}
_OBJECT: Final[Schema] = {"type": "object"}
_WORDS: Final[Schema] = {"type": "array", "items": _TEXT}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _just(value: str) -> Schema:
    return {"type": "string", "const": value}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _data(schema: Schema) -> Schema:
    return _json(_object({"data": schema}))


_PERCENTILES: Final = _or_null(_object(dict.fromkeys(("p50", "p75", "p90", "p99"), _NUMBER)))
_ARCHITECTURE: Final = _object(
    {"modality": _or_null(_TEXT), "input_modalities": _WORDS, "output_modalities": _WORDS},
    {"tokenizer": _or_null(_TEXT), "instruct_type": _or_null(_TEXT)},
)
_PRICING: Final = {
    "type": "object",
    "properties": {"prompt": _TEXT, "completion": _TEXT},
    "required": ["prompt", "completion"],
    "additionalProperties": _TEXT,
    "description": "USD per token, as decimal texts.",
}
_PAGE: Final = {"total_count": _COUNT, "links": _object({"next": _or_null(_TEXT)})}

COMPONENTS: Final[Mapping[str, Schema]] = {
    "Error": _object(
        {
            "error": _object(
                {
                    "code": {"type": "integer", "description": "The HTTP status."},
                    "message": _TEXT,
                    "type": _TEXT,
                    "param": _or_null(_TEXT),
                    "metadata": _object({"error_type": _TEXT}),
                },
                {"availability": _OBJECT},
            )
        },
        {"request_id": _TEXT, "openrouter_metadata": _OBJECT},
    ),
    "AnthropicError": _object({"type": _just("error"), "error": _object({"type": _TEXT, "message": _TEXT})}),
    "Usage": _object(
        {"prompt_tokens": _COUNT, "total_tokens": _COUNT, "cost": {"type": "number", "description": "USD charged."}},
        {
            "completion_tokens": _COUNT,
            "is_byok": _FLAG,
            "prompt_tokens_details": _OBJECT,
            "completion_tokens_details": _OBJECT,
            "cost_details": _object(
                {"upstream_inference_prompt_cost": _NUMBER, "upstream_inference_completions_cost": _NUMBER}
            ),
        },
    ),
    "ChatCompletion": _object(
        {
            "id": _TEXT,
            "object": _just("chat.completion"),
            "created": _COUNT,
            "model": _TEXT,
            "system_fingerprint": _or_null(_TEXT),
            "choices": _list(
                _object(
                    {
                        "index": _COUNT,
                        "finish_reason": _or_null(_TEXT),
                        "message": _object({"role": _just("assistant")}, {"content": _or_null(_TEXT)}),
                    }
                )
            ),
            "usage": _ref("Usage"),
        },
        {"provider": _TEXT},
    ),
    "Completion": _object(
        {
            "id": _TEXT,
            "object": _just("text_completion"),
            "created": _COUNT,
            "model": _TEXT,
            "choices": _list(_object({"index": _COUNT, "text": _TEXT, "finish_reason": _or_null(_TEXT)})),
            "usage": _ref("Usage"),
        },
        {"provider": _TEXT},
    ),
    "Embeddings": _object(
        {
            "object": _just("list"),
            "model": _TEXT,
            "data": _list(_object({"index": _COUNT, "embedding": {"anyOf": [_list(_NUMBER), _TEXT]}})),
            "usage": _ref("Usage"),
        },
        {"id": _TEXT, "provider": _TEXT},
    ),
    "Rerank": _object(
        {"model": _TEXT, "results": _list(_object({"index": _COUNT, "relevance_score": _NUMBER}))}, {"id": _TEXT}
    ),
    "Response": _object(
        {
            "id": _TEXT,
            "object": _just("response"),
            "created_at": _NUMBER,
            "status": _TEXT,
            "model": _TEXT,
            "output": _list(_OBJECT),
        }
    ),
    "Message": _object(
        {
            "id": _TEXT,
            "type": _just("message"),
            "role": _just("assistant"),
            "model": _TEXT,
            "content": _list(_object({"type": _TEXT})),
            "stop_reason": _or_null(_TEXT),
            "usage": _object({"input_tokens": _COUNT, "output_tokens": _COUNT}),
        }
    ),
    "TokenCount": _object({"input_tokens": _COUNT}),
    "Model": _object(
        {
            "id": _TEXT,
            "canonical_slug": _TEXT,
            "name": _TEXT,
            "created": _COUNT,
            "description": _TEXT,
            "context_length": _or_null(_COUNT),
            "architecture": _ARCHITECTURE,
            "pricing": _PRICING,
            "top_provider": _object({"is_moderated": _FLAG}),
            "per_request_limits": _or_null(_OBJECT),
            "supported_parameters": _WORDS,
            "default_parameters": _or_null(_OBJECT),
            "supported_voices": _or_null(_WORDS),
            "links": _object({"details": _TEXT}),
        },
        {"object": _just("model"), "owned_by": _TEXT},
    ),
    "Endpoint": _object(
        {
            "name": _TEXT,
            "model_id": _TEXT,
            "model_name": _TEXT,
            "context_length": _COUNT,
            "pricing": _PRICING,
            "provider_name": _TEXT,
            "tag": _TEXT,
            "quantization": _or_null(_TEXT),
            "max_completion_tokens": _or_null(_COUNT),
            "max_prompt_tokens": _or_null(_COUNT),
            "supported_parameters": _WORDS,
            "status": {"type": "integer"},
            **dict.fromkeys(("uptime_last_5m", "uptime_last_30m", "uptime_last_1d"), _or_null(_NUMBER)),
            "latency_last_30m": _PERCENTILES,
            "throughput_last_30m": _PERCENTILES,
            "supports_implicit_caching": _FLAG,
            "supports_tool_choice": _object(dict.fromkeys(("auto", "function", "none", "required"), _FLAG)),
            "native_tools": _OBJECT,
            "service_tier": _or_null(_TEXT),
            "supports_diarization": _FLAG,
        }
    ),
    "Generation": _object(
        {
            "id": _TEXT,
            "created_at": _TEXT,
            "model": _TEXT,
            "origin": _TEXT,
            "data_region": _TEXT,
            "is_byok": _FLAG,
            "total_cost": _NUMBER,
            "usage": _NUMBER,
            "provider_name": _or_null(_TEXT),
            "provider_responses": _or_null(_list(_OBJECT)),
            "tokens_prompt": _or_null(_COUNT),
            "tokens_completion": _or_null(_COUNT),
            "finish_reason": _or_null(_TEXT),
            "streamed": _or_null(_FLAG),
            "cancelled": _or_null(_FLAG),
            "workspace_id": _or_null(_TEXT),
        }
    ),
    "OwnKey": _object(
        {
            "label": _TEXT,
            **dict.fromkeys(("limit", "limit_remaining"), _or_null(_NUMBER)),
            "limit_reset": _or_null(_TEXT),
            **dict.fromkeys(("usage", "usage_daily", "usage_weekly", "usage_monthly"), _NUMBER),
            **dict.fromkeys(("byok_usage", "byok_usage_daily", "byok_usage_weekly", "byok_usage_monthly"), _NUMBER),
            **dict.fromkeys(("is_free_tier", "is_management_key", "is_provisioning_key"), _FLAG),
            "workspace_id": _or_null(_TEXT),
            "rate_limit": _OBJECT,
            "budgets": _list(_OBJECT),
            "effective_budget": _or_null(_OBJECT),
        }
    ),
    "Activity": _object(
        {
            **dict.fromkeys(("date", "model", "model_permaslug", "endpoint_id", "provider_name"), _TEXT),
            **dict.fromkeys(("usage", "byok_usage_inference"), _NUMBER),
            **dict.fromkeys(
                ("requests", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens"), _COUNT
            ),
        },
        {"workspace_id": _TEXT, "response_cached_requests": _COUNT},
    ),
    "Provider": _object({"name": _TEXT, "slug": _TEXT, "privacy_policy_url": _or_null(_TEXT)}),
}
"""Schemas by name."""
_LISTED: Final = _object({"data": _list(_ref("Model")), **_PAGE})
ANSWERS: Final[Mapping[str, Schema]] = {
    "/v1/models": _json(_object({"object": _just("list"), "data": _list(_ref("Model"))})),
    "/v1/models/{model_id}": _json(_ref("Model")),
    "/api/v1/models": _json(_LISTED) | {"application/rss+xml": {"schema": _TEXT}},
    "/api/v1/models/user": _json(_LISTED),
    "/api/v1/models/count": _data(_object({"count": _COUNT})),
    "/api/v1/embeddings/models": _json(_LISTED),
    "/api/v1/model/{model_id}": _data(_ref("Model")),
    "/api/v1/models/{model_id}/endpoints": _data(
        _object({"id": _TEXT, "name": _TEXT, "architecture": _ARCHITECTURE, "endpoints": _list(_ref("Endpoint"))})
    ),
    "/api/v1/endpoints/zdr": _data(_list(_ref("Endpoint"))),
    "/api/v1/providers": _data(_list(_ref("Provider"))),
    "/api/v1/generation": _data(_ref("Generation")),
    "/api/v1/key": _data(_ref("OwnKey")),
    "/api/v1/auth/key": _data(_ref("OwnKey")),
    "/api/v1/activity": _data(_list(_ref("Activity"))),
    "/api/v1/exports/{dataset}": {
        kind: {"schema": _TEXT} for kind in ("text/csv", "application/json", "application/vnd.apache.parquet")
    },
    "/api/v1/billing/periods/{period}/statements/{team}": {
        kind: {"schema": {}} for kind in ("application/json", "text/csv", "text/html")
    },
}
"""Bodies of good answers, of paths whose handlers do not say."""


def _header(name: str, text: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "schema": _TEXT, "description": text}


HEADERS: Final = [
    _header("HTTP-Referer", "The calling app."),
    _header("X-OpenRouter-Title", "What the calling app is called."),
    _header("x-session-id", "The conversation, where the body does not say one."),
]
"""Headers of inference requests that most callers may want to send; ``docs/api.md`` has all."""
ANSWER_HEADERS: Final = {
    "X-Generation-Id": {"schema": _TEXT, "description": "Id of the answer."},
    "X-Request-Id": {"schema": _TEXT, "description": "The same."},
}
PLAIN_PATHS: Final[Mapping[str, Schema]] = {
    "/health": {
        "get": {
            "tags": ["operations"],
            "summary": "Whether the process lives",
            "responses": {"200": {"description": "It does.", "content": _json(_object({"status": _TEXT}))}},
        }
    },
    "/ready": {
        "get": {
            "tags": ["operations"],
            "summary": "Whether requests should come here",
            "responses": {
                "200": {"description": "Yes.", "content": _json(_object({"ready": _FLAG, "reasons": _WORDS}))}
            },
        }
    },
    "/metrics": {
        "get": {
            "tags": ["operations"],
            "summary": "Prometheus metrics",
            "responses": {
                "200": {
                    "description": "The metrics of all processes of the host.",
                    "content": {kind: {"schema": _TEXT} for kind in ("text/plain", "application/openmetrics-text")},
                }
            },
        }
    },
}
"""Paths that are neither inference nor FastAPI's."""
