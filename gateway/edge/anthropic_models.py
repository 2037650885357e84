"""Models in Anthropic's form, for callers that say they speak it (header ``anthropic-version``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from gateway.types.errors import BadRequest

MOST: Final = 1000
USUAL: Final = 20


def speaks_anthropic(headers: Mapping[str, str]) -> bool:
    """Whether a caller wants Anthropic's form."""
    return "anthropic-version" in headers


def anthropic_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model, given as ``gateway.edge.models.model_object``."""
    created = datetime.fromtimestamp(model["created"], tz=UTC)
    top = model["top_provider"]
    return {
        "type": "model",
        "id": model["id"],
        "display_name": model["name"],
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": model["context_length"],
        "max_tokens": top["max_completion_tokens"] or model["context_length"],
    }


def anthropic_page(models: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of a list: ``limit`` after ``after_id`` or before ``before_id``. Raises ``BadRequest``."""
    given = query.get("limit", str(USUAL))
    if not given.isascii() or not given.isdigit() or not 1 <= int(given[:5]) <= MOST:
        raise BadRequest(f"limit must be a number from 1 to {MOST}", param="limit")
    limit = int(given)
    names = [model["id"] for model in models]
    first, end = 0, len(names)
    if "after_id" in query:
        first = _place(names, "after_id", query) + 1
        end = min(end, first + limit)
    elif "before_id" in query:
        end = _place(names, "before_id", query)
        first = max(0, end - limit)
    else:
        end = min(end, limit)
    data = [anthropic_model(model) for model in models[first:end]]
    return {
        "data": data,
        "has_more": first > 0 if "before_id" in query and "after_id" not in query else end < len(names),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def _place(names: Sequence[str], name: str, query: Mapping[str, str]) -> int:
    try:
        return names.index(query[name])
    except ValueError:
        raise BadRequest(f"{name} is no model of this list", param=name) from None
