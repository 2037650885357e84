"""A plan in words: the whole decision as JSON-able members, and one header line for every answer.

Pure; any plan can be shown. Scores are rounded for people, never used to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Plan
from gateway.routing.outlook import Prediction
from gateway.routing.refusal import shown_drop
from gateway.types.money import usd_text

_DIGITS: Final = 4


def header(plan: Plan, served: Candidate | None = None) -> str:
    """Return the value of ``x-weir-route``: ``balanced; pick=own/gpu-a; of=8; dropped=1``.

    Args:
        plan: the decision.
        served: who answered, where that is known; else the first of the plan is named.
    """
    pick = plan.steps[0] if served is None else served
    return f"{plan.policy}; pick={pick.slug}; of={plan.considered}; dropped={len(plan.drops)}"


def explanation(plan: Plan) -> dict[str, Any]:
    """Return the decision: every candidate with its score and terms in the order of the plan, every drop, the pick.

    ``terms`` and ``predicted`` are there when the plan was asked to explain itself: for each scorer its share of the
    total and the candidate's score on it, and what the request would meet there. ``tiers`` has what each tier that
    applied gave the candidate; the lowest is tried first.
    """
    position = {id(candidate): index for index, candidate in enumerate(plan.scored)}
    # A picker may leave candidates out; they are shown behind those that it took.
    taken = [position[id(candidate)] for candidate in plan.steps]
    left_out = sorted(set(range(len(plan.scored))) - set(taken))
    candidates = []
    for place, index in enumerate((*taken, *left_out), start=1):
        candidate = plan.scored[index]
        candidates.append(
            {
                "candidate": candidate.slug,
                "endpoint": candidate.endpoint.slug,
                "backend": candidate.replica.name,
                "model": candidate.endpoint.model_id,
                "place": place if place <= len(taken) else None,
                "score": round(plan.scores[index], _DIGITS),
                "terms": {
                    name: {"share": round(share, _DIGITS), "score": round(scores[index], _DIGITS)}
                    for name, share, scores in plan.terms
                },
                "predicted": _predicted(plan.predictions[index]) if plan.predictions else {},
                "tiers": {name: round(ranks[index], _DIGITS) for name, ranks in plan.ranks},
            }
        )
    return {
        "policy": plan.policy,
        "pick": plan.steps[0].slug,
        "considered": plan.considered,
        "candidates": candidates,
        "drops": [shown_drop(drop) for drop in plan.drops],
    }


def without_costs(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return an explanation without what the owner would pay; scores stay: they only compare candidates."""
    kept = [each | {"predicted": _free(each["predicted"])} for each in document.get("candidates", ())]
    return {**document, "candidates": kept}


def _free(predicted: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in predicted.items() if name != "cost_usd"}


def _predicted(found: Prediction) -> dict[str, Any]:
    return {
        "ttft_s": round(found.ttft, _DIGITS),
        "itl_s": round(found.itl, _DIGITS + 2),
        "cached_tokens": found.cached,
        "saturation": round(found.saturation, _DIGITS),
        "cost_usd": usd_text(found.cost),
        "ttft_error": None if found.ttft_error is None else round(found.ttft_error, _DIGITS),
    }
