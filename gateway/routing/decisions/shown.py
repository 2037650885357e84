"""Kept decisions as JSON-able members: for the owner whole, for callers without what is the owner's alone."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from gateway.routing.decisions.record import Amounts, Decision, Details, unpacked
from gateway.routing.explain import without_costs
from gateway.types import ids
from gateway.types.money import usd_text

_DIGITS: Final = 4


def summary(decision: Decision) -> dict[str, Any]:
    """Return what is known of a decision without its content."""
    at = dt.datetime.fromtimestamp(decision.at_us / 1e6, tz=dt.UTC)
    return {
        "id": ids.text(decision.request_id),
        "at": at.isoformat().replace("+00:00", "Z"),
        "model": decision.model,
        "policy": decision.policy,
        "pick": decision.pick,
        "served": decision.served or None,
        "failed_tries": decision.tries,
    }


def for_caller(decision: Decision, *, owner: bool) -> dict[str, Any]:
    """Return a decision as ``GET /api/v1/generation`` has it; costs only for the ``owner``."""
    try:
        details = unpacked(decision.content)
    except ValueError:  # one of another version: what stands beside it can still be read
        return summary(decision)
    explained = details.explanation
    return summary(decision) | {
        "considered": explained["considered"],
        "dropped": len(explained["drops"]),
        "predicted": _amounts(details.predicted, owner=owner),
        "real": _amounts(details.real, owner=owner),
    }


def whole(decision: Decision, details: Details, *, owner: bool = True) -> dict[str, Any]:
    """Return all that was kept, but the image; costs only for the ``owner``."""
    explained = details.explanation if owner else without_costs(details.explanation)
    return for_caller(decision, owner=owner) | {
        "requested": details.requested,
        "version": details.version,
        "inputs": "whole" if details.whole else "as of the failover",
        "tries": [{"candidate": each.candidate, "cause": each.cause, "status": each.status} for each in details.tries],
        "candidates": explained["candidates"],
        "drops": explained["drops"],
    }


def _amounts(amounts: Amounts, *, owner: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "tokens_prompt": amounts.prompt,
        "tokens_cached": amounts.cached,
        "tokens_completion": amounts.completion,
        "ttft_s": None if amounts.ttft is None else round(amounts.ttft, _DIGITS),
        "charge_usd": None if amounts.charge is None else usd_text(amounts.charge),
    }
    if owner:
        shown["cost_usd"] = None if amounts.cost is None else usd_text(amounts.cost)
    return shown
