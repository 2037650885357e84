"""``GET /api/v1/key``: what the holder of a key may know of it, in OpenRouter's shape. Errors are ``WeirError``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from gateway.access.keys import label
from gateway.access.principal import Principal
from gateway.admin.keys.schemas import usage_data
from gateway.types.budgets import BUDGETS, GUARDRAIL, MEMBER, BudgetState, Window
from gateway.types.generation import KeyUsage, LedgerReader
from gateway.types.guardrails import default_id
from gateway.types.method import Asking
from gateway.types.money import usd_json

_NOTE: Final = "This field is of an older form of the API; see weir.limits for what holds."


class Books(LedgerReader, Asking, Protocol):
    """Where usage and budgets are."""


def build_router(books: Books, authenticate: Callable[[Request], Principal]) -> APIRouter:
    """Return the route; ``authenticate`` lets any key in."""
    router = APIRouter(tags=["keys"])
    known = Depends(authenticate)

    @router.get("/api/v1/auth/key", summary="As `/api/v1/key`, its older name")
    @router.get("/api/v1/key", summary="The key that asks: its usage, its limit, its budgets")
    async def key(caller: Principal = known) -> Response:
        usage = KeyUsage()
        states: list[BudgetState] = []
        if not caller.management:
            own = await books.ask(BUDGETS, (None, (caller.key_id,)))
            states = [*own, *(await books.ask(BUDGETS, (caller.team, ("",))))]
            # After the budgets, for which the journal was shipped: so both say the same.
            usage = (await books.key_usage([caller.key_id]))[caller.key_id]
        return Response(
            msgspec.json.encode({"data": own_data(caller, usage, [each for each in states if each.budget.hard])}),
            media_type="application/json",
            headers={"cache-control": "no-store"},
        )

    return router


def own_data(caller: Principal, usage: KeyUsage, states: Sequence[BudgetState]) -> dict[str, Any]:
    """Return what the API shows the holder of a key: its own hard budgets and those of its team, the key's first."""
    limit = next((state for state in states if state.budget.source == "key"), None)
    budgets = [_budget(state, caller.team) for state in states]
    general = [(state, shown) for state, shown in zip(states, budgets, strict=True) if not state.budget.scope.model]
    tightest = min(general, key=lambda pair: pair[0].remaining, default=(None, None))
    return {
        "label": label(caller.key_id) if caller.key_id else "management",
        "limit": None if limit is None else _usd(limit.budget.limit_nano),
        "limit_remaining": None if limit is None else _usd(limit.remaining),
        "limit_reset": None if limit is None else _reset(limit),
        **usage_data(usage),
        "include_byok_in_limit": False,
        "is_free_tier": False,
        "is_management_key": caller.management,
        "is_provisioning_key": caller.management,
        "creator_user_id": None,
        "organization_id": None,
        "workspace_id": caller.team or None,  # management keys belong to none
        "allowed_data_regions": [],
        "free_model_daily_requests": {"used": 0, "limit": 0, "remaining": 0},
        "rate_limit": {"requests": -1, "interval": "1m", "note": _NOTE},
        "budgets": budgets,
        "effective_budget": tightest[1],
        "weir": {
            "key_id": caller.key_id,
            "team": caller.team,
            "models": None if caller.models is None else sorted(caller.models),
            "limits": msgspec.to_builtins(caller.limits),
        },
    }


def _budget(state: BudgetState, team: str) -> dict[str, Any]:
    budget = state.budget
    guardrail = budget.source.removeprefix(GUARDRAIL) if budget.of_guardrail else None
    scope = "workspace"
    if budget.scope.key_id:
        scope = "key_limit" if budget.source == "key" else "api_key"
        if guardrail == default_id(team):
            scope = "workspace_default_key"
        elif budget.scope.key_id.startswith(MEMBER):
            scope = "member"
    return {
        "scope": scope,
        "limit_usd": _usd(budget.limit_nano),
        "spend_usd": _usd(state.spent),
        "remaining_usd": _usd(state.remaining),
        "reset_interval": _reset(state),
        "resets_at": state.resets,
        "include_byok": False,
        "budget_id": budget.budget_id,
        "guardrail_id": guardrail,
        "model": budget.scope.model or None,
    }


def _reset(state: BudgetState) -> str | None:
    return None if state.budget.window is Window.TOTAL else state.budget.window.value


def _usd(nano: int) -> msgspec.Raw:
    return msgspec.Raw(usd_json(nano))
