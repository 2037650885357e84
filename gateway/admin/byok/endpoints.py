"""Routes of teams' own keys for external APIs: ``/api/v1/byok``, for management keys only. Errors are ``WeirError``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from gateway.access.management import ManagementKeys
from gateway.admin.answer import REFUSED, Changed, Limit, Offset, answered
from gateway.admin.body import add_route, reader
from gateway.admin.byok import schemas
from gateway.admin.byok.schemas import key_data, patch_of
from gateway.admin.door import management_only
from gateway.admin.keys.schemas import key_hash
from gateway.types import upstream_keys as methods
from gateway.types.errors import BadRequest
from gateway.types.keys import KeyAdmin
from gateway.types.method import Asking
from gateway.types.upstream_keys import NewUpstreamKey

DEFAULT_TEAM = "default"
_Create = Annotated[schemas.CreateKeyBody, Depends(reader(schemas.CreateKeyBody))]
_Update = Annotated[schemas.UpdateKeyBody, Depends(reader(schemas.UpdateKeyBody))]
_Id = Annotated[str, Path(description="The key's `id`.", max_length=64)]


def build_router(books: Asking, keys: KeyAdmin, management: ManagementKeys, changed: Changed) -> APIRouter:
    """Return the routes of teams' own keys.

    Args:
        books: the keeper.
        keys: knows the inference keys.
        management: the keys that may use the routes.
        changed: called after a change.
    """
    endpoints = ByokEndpoints(books, keys, changed)
    router = APIRouter(
        prefix="/api/v1/byok", tags=["byok"], dependencies=management_only(management), responses=REFUSED
    )

    add = partial(add_route, router)
    add("GET", "", endpoints.list_page, schemas.KeysAnswer)
    add("POST", "", endpoints.create, schemas.KeyAnswer, schemas.CreateKeyBody, 201)
    add("GET", "/{key_id}", endpoints.get, schemas.KeyAnswer)
    add("PATCH", "/{key_id}", endpoints.update, schemas.KeyAnswer, schemas.UpdateKeyBody)
    add("DELETE", "/{key_id}", endpoints.delete, schemas.DeletedAnswer)
    return router


class ByokEndpoints:
    """The handlers."""

    def __init__(self, books: Asking, keys: KeyAdmin, changed: Changed) -> None:
        self._books = books
        self._keys = keys
        self._changed = changed

    async def list_page(
        self,
        offset: Offset = 0,
        limit: Limit = 50,
        workspace_id: Annotated[str | None, Query(description="Only keys of this workspace.")] = None,
        provider: Annotated[str | None, Query(description="Only keys for this provider.")] = None,
    ) -> Response:
        """List keys in the order in which they are tried."""
        found = await self._books.ask(methods.UPSTREAM_KEYS, (workspace_id, provider))
        page = found[offset : offset + limit]
        return answered({"data": [key_data(each) for each in page], "total_count": len(found)})

    async def create(self, body: _Create) -> Response:
        """Keep a key; it is sealed, and never shown again."""
        team = body.workspace_id or DEFAULT_TEAM
        new = NewUpstreamKey(
            team=team,
            provider=body.provider,
            secret=body.key,
            name=body.name or "",
            models=None if body.allowed_models is None else tuple(body.allowed_models),
            keys=await self._named(team, body.allowed_api_key_hashes),
            disabled=bool(body.disabled),
            fallback=bool(body.is_fallback),
            required=bool(body.is_required),
            only=bool(body.is_byok_only),
        )
        made = await self._books.ask(methods.ADD_UPSTREAM_KEY, (new,))
        await self._changed()
        return answered({"data": key_data(made)}, 201)

    async def get(self, key_id: _Id) -> Response:
        """Show a key, without the key itself."""
        return answered({"data": key_data(await self._books.ask(methods.UPSTREAM_KEY, (key_id,)))})

    async def update(self, key_id: _Id, body: _Update) -> Response:
        """Change a key; what is not named stays."""
        known = await self._books.ask(methods.UPSTREAM_KEY, (key_id,))
        patch = patch_of(body, await self._named(known.team, body.allowed_api_key_hashes))
        found = await self._books.ask(methods.UPDATE_UPSTREAM_KEY, (key_id, patch))
        await self._changed()
        return answered({"data": key_data(found)})

    async def delete(self, key_id: _Id) -> Response:
        """Forget a key for good; within a second no process uses it."""
        await self._books.ask(methods.REVOKE_UPSTREAM_KEY, (key_id,))
        await self._changed()
        return answered({"deleted": True})

    async def _named(self, team: str, hashes: Sequence[str] | None) -> tuple[str, ...] | None:
        """Return the ids of the team's inference keys with these hashes. Raises ``BadRequest`` for an unknown one."""
        if hashes is None:
            return None
        known = {key_hash(key.key_id): key.key_id for key in await self._keys.keys(team)}
        for number, each in enumerate(hashes):
            if each not in known:
                raise BadRequest("the workspace has no key with this hash", param=f"allowed_api_key_hashes[{number}]")
        return tuple(known[each] for each in hashes)
