"""Routes of workspaces, which are teams: ``/api/v1/workspaces``, for management keys only. Errors are ``WeirError``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Response

from gateway.access.management import ManagementKeys
from gateway.admin.answer import REFUSED, Changed, Limit, Offset, answered, nano
from gateway.admin.body import documented, reader
from gateway.admin.door import management_only
from gateway.admin.workspaces import schemas
from gateway.admin.workspaces.schemas import INTERVALS, WINDOWS, Interval, budget_data, member_data, workspace_data
from gateway.types.budgets import BUDGETS, DELETE_BUDGET, SET_BUDGET, Budget, NewBudget, Scope, Window
from gateway.types.errors import BadRequest, NotFound
from gateway.types.method import Asking
from gateway.types.workspaces import (
    ADD_MEMBERS,
    CREATE_WORKSPACE,
    DELETE_WORKSPACE,
    MEMBERS,
    REMOVE_MEMBERS,
    UPDATE_WORKSPACE,
    WORKSPACE,
    WORKSPACES,
    WorkspacePatch,
)

_BROADER: Final = (Window.TOTAL, Window.MONTHLY, Window.WEEKLY, Window.DAILY)
"""Intervals, the longest first."""
_Create = Annotated[schemas.CreateWorkspaceBody, Depends(reader(schemas.CreateWorkspaceBody))]
_Update = Annotated[schemas.UpdateWorkspaceBody, Depends(reader(schemas.UpdateWorkspaceBody))]
_NewUsers = Annotated[schemas.NewMembersBody, Depends(reader(schemas.NewMembersBody))]
_Users = Annotated[schemas.MembersBody, Depends(reader(schemas.MembersBody))]
_Budget = Annotated[schemas.BudgetBody, Depends(reader(schemas.BudgetBody))]
_Id = Annotated[str, Path(alias="workspace_id", description="The workspace's id, its slug.", max_length=64)]


def build_router(
    books: Asking, management: ManagementKeys, changed: Changed, knows_model: Callable[[str], bool]
) -> APIRouter:
    """Return the routes of workspaces.

    Args:
        books: the keeper.
        management: the keys that may use the routes.
        changed: called after a change.
        knows_model: tells whether requests may name a model so.
    """
    endpoints = WorkspaceEndpoints(books, changed, knows_model)
    router = APIRouter(
        prefix="/api/v1/workspaces",
        tags=["workspaces"],
        dependencies=management_only(management),
        responses=REFUSED,
    )
    one, members, budget = "/{workspace_id}", "/{workspace_id}/members", "/{workspace_id}/budgets/{interval}"
    add = router.add_api_route
    body: Mapping[str, Any] = documented(schemas.CreateWorkspaceBody)
    add("", endpoints.list_page, methods=["GET"], response_model=schemas.WorkspacesAnswer)
    add(
        "",
        endpoints.create,
        methods=["POST"],
        status_code=201,
        response_model=schemas.WorkspaceAnswer,
        openapi_extra=dict(body),
    )
    add(one, endpoints.get, methods=["GET"], response_model=schemas.WorkspaceAnswer)
    body = documented(schemas.UpdateWorkspaceBody)
    add(one, endpoints.update, methods=["PATCH"], response_model=schemas.WorkspaceAnswer, openapi_extra=dict(body))
    add(one, endpoints.delete, methods=["DELETE"], response_model=schemas.DeletedAnswer)
    add(members, endpoints.members, methods=["GET"], response_model=schemas.MembersAnswer)
    body = documented(schemas.NewMembersBody)
    add(f"{members}/add", endpoints.add, methods=["POST"], response_model=schemas.AddedAnswer, openapi_extra=dict(body))
    body = documented(schemas.MembersBody)
    add(
        f"{members}/remove",
        endpoints.remove,
        methods=["POST"],
        response_model=schemas.RemovedAnswer,
        openapi_extra=dict(body),
    )
    add("/{workspace_id}/budgets", endpoints.budgets, methods=["GET"], response_model=schemas.WorkspaceBudgetsAnswer)
    add(budget, endpoints.budget, methods=["GET"], response_model=schemas.WorkspaceBudgetAnswer)
    body = documented(schemas.BudgetBody)
    add(
        budget,
        endpoints.set_budget,
        methods=["PUT"],
        response_model=schemas.WorkspaceBudgetAnswer,
        openapi_extra=dict(body),
    )
    add(budget, endpoints.delete_budget, methods=["DELETE"], response_model=schemas.DeletedAnswer)
    return router


class WorkspaceEndpoints:
    """The handlers."""

    def __init__(self, books: Asking, changed: Changed, knows_model: Callable[[str], bool]) -> None:
        self._books = books
        self._changed = changed
        self._knows_model = knows_model

    async def list_page(self, offset: Offset = 0, limit: Limit = 50) -> Response:
        """List workspaces by slug."""
        found = await self._books.ask(WORKSPACES)
        page = found[offset : offset + limit]
        return answered({"data": [workspace_data(each) for each in page], "total_count": len(found)})

    async def create(self, body: _Create) -> Response:
        """Make a workspace."""
        self._check(body)
        made = await self._books.ask(CREATE_WORKSPACE, (body.slug, body.name, WorkspacePatch(**body.patch())))
        await self._changed()
        return answered({"data": workspace_data(made)}, 201)

    async def get(self, workspace_id: _Id) -> Response:
        """Show a workspace."""
        return answered({"data": workspace_data(await self._books.ask(WORKSPACE, (workspace_id,)))})

    async def update(self, workspace_id: _Id, body: _Update) -> Response:
        """Change a workspace; what is not named stays."""
        await self._books.ask(WORKSPACE, (workspace_id,))
        if body.slug not in (None, workspace_id):
            raise BadRequest("a slug never changes: the ledger names it", param="slug")
        if "name" in body.model_fields_set and body.name is None:
            raise BadRequest("name cannot be null: leave it out to keep it", param="name")
        self._check(body)
        found = await self._books.ask(UPDATE_WORKSPACE, (workspace_id, body.value()))
        await self._changed()
        return answered({"data": workspace_data(found)})

    async def delete(self, workspace_id: _Id) -> Response:
        """Delete a workspace that never had a key."""
        await self._books.ask(DELETE_WORKSPACE, (workspace_id,))
        await self._changed()
        return answered({"deleted": True})

    async def members(self, workspace_id: _Id, offset: Offset = 0, limit: Limit = 50) -> Response:
        """List members in the order in which they came."""
        found = await self._books.ask(MEMBERS, (workspace_id,))
        page = found[offset : offset + limit]
        return answered({"data": [member_data(each) for each in page], "total_count": len(found)})

    async def add(self, workspace_id: _Id, body: _NewUsers) -> Response:
        """Make users members; those who are stay as they are."""
        made = await self._books.ask(ADD_MEMBERS, (workspace_id, tuple(body.user_ids), body.role))
        return answered({"data": [member_data(each) for each in made], "added_count": len(made)})

    async def remove(self, workspace_id: _Id, body: _Users) -> Response:
        """Make users no more members; their guardrails hold for their keys no more."""
        count = await self._books.ask(REMOVE_MEMBERS, (workspace_id, tuple(body.user_ids)))
        await self._changed()
        return answered({"removed_count": count})

    async def budgets(self, workspace_id: _Id) -> Response:
        """List the hard budgets of a workspace, the longest interval first."""
        found = await self._budgets(workspace_id)
        data = [budget_data(found[window]) for window in _BROADER if window in found]
        return answered({"data": data, "include_byok_in_budgets": False})

    async def budget(self, workspace_id: _Id, interval: Interval) -> Response:
        """Show one hard budget of a workspace."""
        return _shown(await self._budget(workspace_id, interval))

    async def set_budget(self, workspace_id: _Id, interval: Interval, body: _Budget) -> Response:
        """Set a hard budget of a workspace; that of a longer interval has to be larger."""
        known = await self._budgets(workspace_id)
        window, limit = WINDOWS[interval], nano(body.limit_usd)
        place = _BROADER.index(window)
        for other, budget in known.items():
            longer = _BROADER.index(other) < place
            if other is not window and (budget.limit_nano <= limit if longer else budget.limit_nano >= limit):
                than = "less than" if longer else "more than"
                raise BadRequest(f"a {interval} limit has to be {than} the {INTERVALS[other]} one", param="limit_usd")
        made = await self._books.ask(SET_BUDGET, (NewBudget(Scope(team=workspace_id), window, limit),))
        return _shown(made)

    async def delete_budget(self, workspace_id: _Id, interval: Interval) -> Response:
        """Delete a hard budget of a workspace."""
        found = await self._budget(workspace_id, interval)
        await self._books.ask(DELETE_BUDGET, (found.budget_id,))
        return answered({"deleted": True})

    async def _budget(self, workspace_id: str, interval: str) -> Budget:
        found = (await self._budgets(workspace_id)).get(WINDOWS[interval])
        if found is None:
            raise NotFound("there is no such budget", param="interval")
        return found

    async def _budgets(self, workspace_id: str) -> dict[Window, Budget]:
        """Return the hard budgets of a workspace for all its models and keys together."""
        await self._books.ask(WORKSPACE, (workspace_id,))
        states = await self._books.ask(BUDGETS, (workspace_id, ("",)))
        budgets = [state.budget for state in states]
        return {each.window: each for each in budgets if each.hard and not each.scope.model}

    def _check(self, body: schemas.SettingsBody) -> None:
        model = body.default_text_model
        if model is not None and not self._knows_model(model):
            raise BadRequest(f"there is no model {model[:100]!r}", param="default_text_model")


def _shown(budget: Budget) -> Response:
    return answered({"data": budget_data(budget), "include_byok_in_budgets": False})
