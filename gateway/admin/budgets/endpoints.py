"""Routes of budget management: ``/api/v1/budgets``, for management keys only. Errors are ``WeirError``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from gateway.access.management import ManagementKeys
from gateway.admin.body import documented, reader
from gateway.admin.budgets.schemas import (
    BudgetAnswer,
    BudgetsAnswer,
    DeletedAnswer,
    LeaseData,
    LeasesAnswer,
    SetBudgetBody,
    budget_data,
    moment,
    window_start,
)
from gateway.admin.door import management_only
from gateway.types.budgets import BUDGETS, DELETE_BUDGET, ENDED_BUDGETS, LEASES, SET_BUDGET
from gateway.types.method import Asking
from gateway.types.money import usd_text

_Set = Annotated[SetBudgetBody, Depends(reader(SetBudgetBody))]
_Id = Annotated[str, Path(description="The budget's `id`.", max_length=64)]


def build_router(books: Asking, management: ManagementKeys) -> APIRouter:
    """Return the routes of budget management.

    Args:
        books: the keeper.
        management: the keys that may use the routes.
    """
    router = APIRouter(
        prefix="/api/v1/budgets",
        tags=["budgets"],
        dependencies=management_only(management),
        responses={"4XX": {"description": "Refused; `error.message` says why."}},
    )

    @router.post("", openapi_extra=documented(SetBudgetBody))
    async def put(body: _Set) -> BudgetAnswer:
        """Set a budget; it binds every request that is admitted from now on."""
        budget = await books.ask(SET_BUDGET, (body.value(),))
        states = await books.ask(BUDGETS, (budget.scope.team, (budget.scope.key_id,)))
        return BudgetAnswer(
            data=next(budget_data(state) for state in states if state.budget.budget_id == budget.budget_id)
        )

    @router.get("")
    async def list_all(
        team: Annotated[str | None, Query(description="Only budgets of this team.")] = None,
        key: Annotated[str | None, Query(description="Only budgets of the key with this `weir.key_id`.")] = None,
        revoked: Annotated[bool, Query(description="Only budgets of keys that are revoked.")] = False,
    ) -> BudgetsAnswer:
        """List budgets and where they stand now; those of a revoked key only where the key or `revoked` is named."""
        if revoked:
            ended = await books.ask(ENDED_BUDGETS, (team,))
            return BudgetsAnswer(data=[budget_data(each) for each in ended if key in (None, each.budget.scope.key_id)])
        states = await books.ask(BUDGETS, (team, None if key is None else (key,)))
        return BudgetsAnswer(data=[budget_data(state) for state in states])

    @router.get("/leases")
    async def leases() -> LeasesAnswer:
        """List what hosts hold of budgets and have not spent yet, as far as the ledger tells."""
        return LeasesAnswer(
            data=[
                LeaseData(
                    host=lease.host,
                    budget=lease.budget_id,
                    window_start=window_start(lease.window_day),
                    amount_usd=usd_text(lease.amount),
                    updated_at=moment(lease.updated_at),
                )
                for lease in await books.ask(LEASES)
            ]
        )

    @router.delete("/{budget_id}")
    async def delete(budget_id: _Id) -> DeletedAnswer:
        """Delete a budget."""
        await books.ask(DELETE_BUDGET, (budget_id,))
        return DeletedAnswer()

    return router
