"""The errors of routing: which one a request gets when no candidate is left, and why.

The last filter that dropped something speaks for the whole decision: whatever else was there had been dropped before,
and what it dropped is all that could have served the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Final

from gateway.routing.interface import Drop, Filter, Refusal, RouteRequest
from gateway.types.errors import ContextTooLong, NotFound, Unavailable, WeirError

SOONEST: Final = 1.0
"""Seconds after which a retry is suggested when nothing says when a replica comes back."""
NEAR_NAMES: Final = 3
EXCLUDED_BY: Final = {
    "only": "allowed_providers",
    "ignore": "allowed_providers",
    "quantization": "quantization",
    "data_collection": "data_policy:training",
    "zdr": "data_policy:zdr",
    "max_price": "max_price",
    "supported_parameters": "require_parameters",
    "context": "context_length",
}
"""Filters of callers' wishes, and OpenRouter's word for each in ``error.availability``."""


def unknown_model(name: str, known: Sequence[str]) -> NotFound:
    """Return the error for a model that does not exist, with the names that were perhaps meant."""
    near = near_names(name, known)
    shown = name if len(name) <= 100 else name[:100] + "…"
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    return NotFound(f"there is no model {shown!r}{hint}", param="model", metadata={"near": near})


def near_names(name: str, known: Sequence[str]) -> list[str]:
    """Return up to ``NEAR_NAMES`` of ``known`` that ``name`` may have meant, best first.

    A name without its author (``qwen3-32b``) is compared with the part behind the slash, too.
    """
    # Comparing is quadratic in the length of the name, and callers choose it.
    wanted = name[:100].casefold()
    forms: dict[str, list[str]] = {}
    for candidate in known:
        folded = candidate.casefold()
        for form in {folded, folded.rpartition("/")[2]}:
            forms.setdefault(form, []).append(candidate)
    matches = get_close_matches(wanted, forms, n=NEAR_NAMES, cutoff=0.6)
    return list(dict.fromkeys(name for form in matches for name in forms[form]))[:NEAR_NAMES]


def refused(request: RouteRequest, last: Filter, drops: Sequence[Drop]) -> WeirError:
    """Return the error for a request of which ``last`` dropped the last candidate."""
    decisive = [drop for drop in drops if drop.filter == last.name]
    metadata: dict[str, Any] = {"drops": [shown_drop(drop) for drop in drops]}
    reasons = "; ".join(dict.fromkeys(drop.reason for drop in decisive))
    field = getattr(last, "field", None)
    if field is not None:
        return _unwanted(request, field, reasons, drops, metadata)
    if last.refusal is Refusal.UNSUPPORTED:
        message = f"no endpoints found that support this request to {request.model_id}: {reasons}"
        return NotFound(message, metadata=metadata)
    if last.refusal is Refusal.TOO_LONG:
        message = f"the request is too long for every endpoint of {request.model_id}: {reasons}"
        metadata["prompt_tokens"] = request.prompt_tokens
        metadata["context_length"] = max(drop.candidate.endpoint.context_length for drop in decisive)
        return ContextTooLong(message, metadata=metadata)
    return Unavailable(
        f"no backend of {request.model_id} can take the request now: {reasons}",
        metadata=metadata,
        retry_after=_soonest(decisive, request),
    )


def _unwanted(
    request: RouteRequest, field: str, reasons: str, drops: Sequence[Drop], metadata: dict[str, Any]
) -> NotFound:
    """Return the error for a request whose own wish, in ``field``, left nothing, with what there is."""
    endpoints = list(dict.fromkeys(drop.candidate.endpoint.slug for drop in drops))
    metadata |= {
        "available_providers": list(dict.fromkeys(drop.candidate.endpoint.provider for drop in drops)),
        "available_endpoints": endpoints,
        "availability": {
            "code": "constraint_filtered",
            "retryable": False,
            "constraint": field,
            "excluded_by": list(
                dict.fromkeys(EXCLUDED_BY[drop.filter] for drop in drops if drop.filter in EXCLUDED_BY)
            ),
        },
    }
    message = f"no endpoint of {request.model_id} is left by {field}: {reasons}; there are {', '.join(endpoints)}"
    return NotFound(message, param=field, metadata=metadata)


def shown_drop(drop: Drop) -> dict[str, str]:
    """Return a drop as JSON-able members."""
    return {"candidate": drop.candidate.slug, "filter": drop.filter, "reason": drop.reason}


def _soonest(drops: Sequence[Drop], request: RouteRequest) -> float:
    """Return the seconds until the first of the dropped replicas is back, or has room, as far as that is known."""
    waits, now, tokens = [], request.now, request.prompt_tokens + request.expected_tokens
    for drop in drops:
        load = drop.candidate.replica.load
        free_in = load.quota.free_in(tokens, now)
        waits.append(max(load.ejected_until - now, load.cooling_until - now, free_in) if load.ready else SOONEST)
    return max(SOONEST, min(waits, default=SOONEST))
