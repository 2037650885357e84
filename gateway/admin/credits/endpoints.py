"""``GET /api/v1/credits``: what a team was charged and what it may spend in all, in OpenRouter's shape.

Weir sells nothing beforehand, so credits are budgets: ``total_credits`` less ``total_usage`` is what may still be spent
now. Of a team with hard budgets that is what its tightest one has left; a team without one may spend without limit,
which is shown as the largest budget there is, with ``weir.limited: false``. Errors are ``WeirError``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from gateway.access.principal import Principal
from gateway.admin.answer import REFUSED, answered, usd
from gateway.types.budgets import BUDGETS, BudgetState
from gateway.types.errors import NotFound
from gateway.types.method import Asking
from gateway.types.workspaces import TEAM_USAGE

UNLIMITED: Final = 2_000_000_000 * 10**9
"""Nano-USD; the largest budget that can be set."""


class WeirCredits(BaseModel):
    """What OpenRouter has no field for: whose credits, and whether a hard budget limits them."""

    team: str | None
    limited: bool


class CreditsData(BaseModel):
    """Credits, USD."""

    total_credits: float
    total_usage: float
    weir: WeirCredits


class CreditsAnswer(BaseModel):
    """Credits of a team, or of all together."""

    data: CreditsData


def build_router(books: Asking, authenticate: Callable[[Request], Principal]) -> APIRouter:
    """Return the route; an inference key sees its own team's, a management key those of one team or of all."""
    router = APIRouter(tags=["credits"], responses=REFUSED)
    known = Depends(authenticate)

    @router.get("/api/v1/credits", response_model=CreditsAnswer, summary="What was spent and what may be spent")
    async def credits_(
        caller: Principal = known,
        workspace_id: Annotated[str | None, Query(description="The team; all unless said.", max_length=64)] = None,
    ) -> Response:
        team = workspace_id if caller.management else caller.team
        if workspace_id not in (None, team):
            raise NotFound("there is no such workspace", param="workspace_id")
        # Budgets first: for them the journal is shipped, so that both say the same.
        states = await books.ask(BUDGETS, (team, ("",)))
        usage = await books.ask(TEAM_USAGE, (team,))
        return answered({"data": credits_data(team, usage, states)})

    return router


def credits_data(team: str | None, usage: Mapping[str, int], states: Sequence[BudgetState]) -> dict[str, Any]:
    """Return the credits of the teams in ``usage``; ``team`` is the one they are of, or None for all.

    All together are limited only when each of them is.
    """
    left: dict[str, int] = {}
    for state in states:
        scope = state.budget.scope
        if state.budget.hard and scope.team in usage and not scope.model:
            left[scope.team] = min(left.get(scope.team, UNLIMITED), state.remaining)
    spent = sum(usage.values())
    limited = all(slug in left for slug in usage)
    free = sum(left.values()) if limited else UNLIMITED
    return {
        "total_credits": usd(spent + free),
        "total_usage": usd(spent),
        "weir": {"team": team, "limited": limited},
    }
