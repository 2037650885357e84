"""``openrouter_metadata``: a request's way through routing, as OpenRouter tells it to callers who ask for it.

Pure. Owners' costs, addresses and other teams' requests have no place here: only what callers may choose between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.fleet.snapshot import Candidate
from gateway.routing.explain import header
from gateway.routing.interface import Plan
from gateway.types.call import Call


def router_metadata(
    call: Call, plan: Plan | None, tried: Sequence[tuple[Candidate, int]], served: Candidate | None
) -> dict[str, Any]:
    """Return the object.

    Args:
        call: what was asked.
        plan: the decision, or None when there was none.
        tried: attempts that did not bring the answer, in their order, with the backend's status, 0 when it gave none.
        served: who answered, or None.
    """
    wishes = call.preferences
    strategy = "direct"
    if wishes is not None and wishes.models:
        strategy = "fallback"
    elif plan is not None and not f"{call.model}:".startswith(f"{plan.steps[0].endpoint.model_id}:"):
        strategy = "alias"
    attempts = [_attempt(candidate, status) for candidate, status in tried]
    if served is not None:
        attempts.append(_attempt(served, 200))
    return {
        "requested": call.model,
        "strategy": strategy,
        "region": served.endpoint.region if served is not None else None,
        "summary": header(plan, served) if plan is not None else "no endpoint was left",
        "attempt": len(attempts),
        "is_byok": served is not None and served.key is not None,
        "endpoints": {
            "total": plan.considered if plan is not None else 0,
            "available": _available(plan, served),
        },
        "attempts": attempts,
    }


def _attempt(candidate: Candidate, status: int) -> dict[str, Any]:
    return {
        "provider": candidate.endpoint.provider,
        "model": candidate.endpoint.model_id,
        "endpoint": candidate.endpoint.slug,
        "status": status or None,
    }


def _available(plan: Plan | None, served: Candidate | None) -> list[dict[str, Any]]:
    """Return the endpoints of the plan in its order, each once."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for candidate in plan.steps if plan is not None else ():
        endpoint = candidate.endpoint
        found.setdefault(
            (endpoint.model_id, endpoint.slug),
            {
                "provider": endpoint.provider,
                "model": endpoint.model_id,
                "endpoint": endpoint.slug,
                "selected": served is not None
                and (served.endpoint.model_id, served.endpoint.slug) == (endpoint.model_id, endpoint.slug),
            },
        )
    return list(found.values())
