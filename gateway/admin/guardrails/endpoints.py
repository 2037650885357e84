"""Routes of guardrails: ``/api/v1/guardrails``, for management keys only. Errors are ``WeirError``.

Names of models and providers are checked against the fleet: a mistyped one must not hold nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from gateway.access.management import ManagementKeys
from gateway.admin.answer import REFUSED, Changed, Limit, Offset, answered
from gateway.admin.body import add_route, reader
from gateway.admin.door import management_only
from gateway.admin.guardrails import schemas
from gateway.admin.guardrails.schemas import guardrail_data, key_assignment_data, member_assignment_data
from gateway.admin.workspaces.schemas import DeletedAnswer
from gateway.fleet.snapshot import Fleet
from gateway.types import guardrails as methods
from gateway.types.errors import BadRequest
from gateway.types.guardrails import NewGuardrail
from gateway.types.method import Asking

DEFAULT_TEAM = "default"
_Create = Annotated[schemas.CreateGuardrailBody, Depends(reader(schemas.CreateGuardrailBody))]
_Update = Annotated[schemas.UpdateGuardrailBody, Depends(reader(schemas.UpdateGuardrailBody))]
_Keys = Annotated[schemas.KeysBody, Depends(reader(schemas.KeysBody))]
_Members = Annotated[schemas.MembersBody, Depends(reader(schemas.MembersBody))]
_Id = Annotated[str, Path(description="The guardrail's `id`.", max_length=64)]


def build_router(books: Asking, management: ManagementKeys, changed: Changed, fleet: Callable[[], Fleet]) -> APIRouter:
    """Return the routes of guardrails.

    Args:
        books: the keeper.
        management: the keys that may use the routes.
        changed: called after a change.
        fleet: returns the fleet of now.
    """
    endpoints = GuardrailEndpoints(books, changed, fleet)
    router = APIRouter(
        prefix="/api/v1/guardrails", tags=["guardrails"], dependencies=management_only(management), responses=REFUSED
    )

    add = partial(add_route, router)
    keys, members = "/{guardrail_id}/assignments/keys", "/{guardrail_id}/assignments/members"
    add("GET", "", endpoints.list_page, schemas.GuardrailsAnswer)
    add("POST", "", endpoints.create, schemas.GuardrailAnswer, schemas.CreateGuardrailBody, 201)
    add("GET", "/assignments/keys", endpoints.all_keys, schemas.KeyAssignmentsAnswer)
    add("GET", "/assignments/members", endpoints.all_members, schemas.MemberAssignmentsAnswer)
    add("GET", "/{guardrail_id}", endpoints.get, schemas.GuardrailAnswer)
    add("PATCH", "/{guardrail_id}", endpoints.update, schemas.GuardrailAnswer, schemas.UpdateGuardrailBody)
    add("DELETE", "/{guardrail_id}", endpoints.delete, DeletedAnswer)
    add("GET", keys, endpoints.keys, schemas.KeyAssignmentsAnswer)
    add("POST", keys, endpoints.assign_keys, schemas.AssignedAnswer, schemas.KeysBody)
    add("POST", f"{keys}/remove", endpoints.unassign_keys, schemas.UnassignedAnswer, schemas.KeysBody)
    add("GET", members, endpoints.members, schemas.MemberAssignmentsAnswer)
    add("POST", members, endpoints.assign_members, schemas.AssignedAnswer, schemas.MembersBody)
    add("POST", f"{members}/remove", endpoints.unassign_members, schemas.UnassignedAnswer, schemas.MembersBody)
    return router


class GuardrailEndpoints:
    """The handlers."""

    def __init__(self, books: Asking, changed: Changed, fleet: Callable[[], Fleet]) -> None:
        self._books = books
        self._changed = changed
        self._fleet = fleet

    async def list_page(
        self,
        offset: Offset = 0,
        limit: Limit = 50,
        workspace_id: Annotated[str | None, Query(description="Only guardrails of this workspace.")] = None,
    ) -> Response:
        """List guardrails, the default one of each workspace first."""
        found = await self._books.ask(methods.GUARDRAILS, (workspace_id,))
        page = found[offset : offset + limit]
        return answered({"data": [guardrail_data(each) for each in page], "total_count": len(found)})

    async def create(self, body: _Create) -> Response:
        """Make a guardrail; it holds for nobody until it is assigned."""
        new = body.value(body.name, None)
        self._check(new)
        made = await self._books.ask(methods.CREATE_GUARDRAIL, (body.workspace_id or DEFAULT_TEAM, new))
        await self._changed()
        return answered({"data": guardrail_data(made)}, 201)

    async def get(self, guardrail_id: _Id) -> Response:
        """Show a guardrail."""
        return answered({"data": guardrail_data(await self._books.ask(methods.GUARDRAIL, (guardrail_id,)))})

    async def update(self, guardrail_id: _Id, body: _Update) -> Response:
        """Change a guardrail; what is not named stays."""
        known = await self._books.ask(methods.GUARDRAIL, (guardrail_id,))
        if "name" in body.model_fields_set and body.name is None:
            raise BadRequest("name cannot be null: leave it out to keep it", param="name")
        new = body.value(known.name if body.name is None else body.name, known)
        self._check(new)
        found = await self._books.ask(methods.UPDATE_GUARDRAIL, (guardrail_id, new))
        await self._changed()
        return answered({"data": guardrail_data(found)})

    async def delete(self, guardrail_id: _Id) -> Response:
        """Delete a guardrail."""
        await self._books.ask(methods.DELETE_GUARDRAIL, (guardrail_id,))
        await self._changed()
        return answered({"deleted": True})

    async def all_keys(self, offset: Offset = 0, limit: Limit = 50) -> Response:
        """List which guardrails are for which keys."""
        return await self._key_page(None, offset, limit)

    async def all_members(self, offset: Offset = 0, limit: Limit = 50) -> Response:
        """List which guardrails are for which members."""
        return await self._member_page(None, offset, limit)

    async def keys(self, guardrail_id: _Id, offset: Offset = 0, limit: Limit = 50) -> Response:
        """List the keys that a guardrail is for."""
        return await self._key_page(guardrail_id, offset, limit)

    async def members(self, guardrail_id: _Id, offset: Offset = 0, limit: Limit = 50) -> Response:
        """List the members that a guardrail is for."""
        return await self._member_page(guardrail_id, offset, limit)

    async def assign_keys(self, guardrail_id: _Id, body: _Keys) -> Response:
        """Assign a guardrail to keys of its workspace."""
        count = await self._books.ask(methods.ASSIGN_KEYS, (guardrail_id, tuple(body.key_hashes), True))
        await self._changed()
        return answered({"assigned_count": count})

    async def unassign_keys(self, guardrail_id: _Id, body: _Keys) -> Response:
        """Take a guardrail back from keys."""
        count = await self._books.ask(methods.ASSIGN_KEYS, (guardrail_id, tuple(body.key_hashes), False))
        await self._changed()
        return answered({"unassigned_count": count})

    async def assign_members(self, guardrail_id: _Id, body: _Members) -> Response:
        """Assign a guardrail to the keys of members of its workspace."""
        count = await self._books.ask(methods.ASSIGN_MEMBERS, (guardrail_id, tuple(body.member_user_ids), True))
        await self._changed()
        return answered({"assigned_count": count})

    async def unassign_members(self, guardrail_id: _Id, body: _Members) -> Response:
        """Take a guardrail back from members."""
        count = await self._books.ask(methods.ASSIGN_MEMBERS, (guardrail_id, tuple(body.member_user_ids), False))
        await self._changed()
        return answered({"unassigned_count": count})

    async def _key_page(self, guardrail_id: str | None, offset: int, limit: int) -> Response:
        found = await self._books.ask(methods.KEY_ASSIGNMENTS, (guardrail_id,))
        page = found[offset : offset + limit]
        return answered({"data": [key_assignment_data(each) for each in page], "total_count": len(found)})

    async def _member_page(self, guardrail_id: str | None, offset: int, limit: int) -> Response:
        found = await self._books.ask(methods.MEMBER_ASSIGNMENTS, (guardrail_id,))
        page = found[offset : offset + limit]
        return answered({"data": [member_assignment_data(each) for each in page], "total_count": len(found)})

    def _check(self, new: NewGuardrail) -> None:
        """Refuse names that nothing has. Raises ``BadRequest``."""
        fleet = self._fleet()
        for field in ("allowed_models", "ignored_models"):
            for name in getattr(new.terms, field) or ():
                if name not in fleet.models:
                    raise BadRequest(f"{field}: there is no model {name[:100]!r}", param=field)
        known = {name for model in fleet.models.values() for each in model.candidates for name in each.names}
        for field in ("allowed_providers", "ignored_providers"):
            for name in getattr(new.terms, field) or ():
                if name not in known:
                    raise BadRequest(f"{field}: there is no provider {name[:100]!r}", param=field)
