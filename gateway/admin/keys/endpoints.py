"""Routes of key management: ``/api/v1/keys``, for management keys only.

Errors are ``WeirError``; the application renders them. A key is named by the hash of its public id; a revoked key is as
good as gone. Answers are never to be cached, for some hold a secret.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Final, Protocol, cast

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response
from msgspec import structs

from gateway.access.management import ManagementKeys
from gateway.admin.body import documented, reader
from gateway.admin.door import management_only
from gateway.admin.keys.schemas import (
    CreateKeyBody,
    DeletedAnswer,
    IssuedKeyAnswer,
    KeyAnswer,
    KeysAnswer,
    LimitsBody,
    Reset,
    RotateKeyBody,
    UpdateKeyBody,
    key_data,
    key_hash,
    microseconds,
    nano,
)
from gateway.types.budgets import (
    BUDGETS,
    DELETE_BUDGET,
    SET_BUDGET,
    Budget,
    BudgetState,
    NewBudget,
    Scope,
    Window,
)
from gateway.types.errors import BadRequest, NotFound
from gateway.types.generation import LedgerReader
from gateway.types.keys import IssuedKey, KeyAdmin, KeyPatch, KeyRecord, NewKey
from gateway.types.method import Asking

PAGE: Final = 100
DEFAULT_TEAM: Final = "default"

_Create = Annotated[CreateKeyBody, Depends(reader(CreateKeyBody))]
_Update = Annotated[UpdateKeyBody, Depends(reader(UpdateKeyBody))]
_Rotate = Annotated[RotateKeyBody, Depends(reader(RotateKeyBody))]
_Hash = Annotated[str, Path(description="The key's `hash`.")]


class Ledger(LedgerReader, Asking, Protocol):
    """Where usage and budgets are."""


def build_router(keys: KeyAdmin, ledger: Ledger, management: ManagementKeys) -> APIRouter:
    """Return the routes of key management.

    Args:
        keys: who keeps the keys.
        ledger: where usage is read and budgets are kept.
        management: the keys that may use the routes.
    """
    endpoints = KeyEndpoints(keys, ledger)
    router = APIRouter(
        prefix="/api/v1/keys",
        tags=["keys"],
        dependencies=management_only(management),
        responses={"4XX": {"description": "Refused; `error.message` says why."}},
    )
    add = router.add_api_route
    add(
        "",
        endpoints.create,
        methods=["POST"],
        status_code=201,
        response_model=IssuedKeyAnswer,
        openapi_extra=documented(CreateKeyBody),
    )
    add("", endpoints.list_page, methods=["GET"], response_model=KeysAnswer)
    add("/{key_hash}", endpoints.get, methods=["GET"], response_model=KeyAnswer)
    add(
        "/{key_hash}",
        endpoints.update,
        methods=["PATCH"],
        response_model=KeyAnswer,
        openapi_extra=documented(UpdateKeyBody),
    )
    add("/{key_hash}", endpoints.revoke, methods=["DELETE"], response_model=DeletedAnswer)
    add(
        "/{key_hash}/rotate",
        endpoints.rotate,
        methods=["POST"],
        response_model=IssuedKeyAnswer,
        openapi_extra=documented(RotateKeyBody),
    )
    return router


class KeyEndpoints:
    """The handlers, over a ``KeyAdmin`` and a ``Ledger``."""

    def __init__(self, keys: KeyAdmin, ledger: Ledger) -> None:
        self._keys = keys
        self._ledger = ledger
        self._ids: dict[str, str] = {}

    async def create(self, body: _Create) -> Response:
        """Make a key. Its text is in `key`, now and never again."""
        team = _team(body)
        if body.limit is None and body.limit_reset is not None:
            raise BadRequest("limit_reset is of a limit: send one", param="limit")
        issued = await self._keys.create_key(
            NewKey(
                name=body.name,
                team=team,
                models=_models(body.weir.models),
                limits=body.weir.limits.value(),
                expires_at=microseconds(body.expires_at),
                creator=(body.creator_user_id or "").strip().lower(),
            )
        )
        if body.limit is not None:
            try:
                await self._set_limit(issued.record.key_id, body.limit, body.limit_reset)
            except BaseException:
                # Nobody has seen the key yet; without its limit nobody shall.
                await self._keys.revoke_key(issued.record.key_id)
                raise
        return await self._issued(issued, 201)

    async def list_page(
        self,
        offset: Annotated[str, Query(description="How many keys to skip; a page has 100.")] = "0",
        include_disabled: Annotated[str, Query(description="`true` lists switched-off keys too.")] = "false",
        include_expired: Annotated[str, Query(description="`true` lists expired keys too.")] = "false",
        workspace_id: Annotated[str | None, Query(description="Only keys of this team.")] = None,
    ) -> Response:
        """List keys that are not revoked, newest first."""
        start = _offset(offset)
        disabled = _flag("include_disabled", include_disabled)
        expired = _flag("include_expired", include_expired)
        now = time.time_ns() // 1_000
        records = [
            record
            for record in await self._keys.keys(workspace_id)
            if (disabled or not record.disabled) and (expired or record.expires_at is None or record.expires_at > now)
        ][start : start + PAGE]
        key_ids = [record.key_id for record in records]
        usage, limits = await self._ledger.key_usage(key_ids), await self._limits(key_ids)
        return _json({"data": [key_data(each, usage[each.key_id], limits.get(each.key_id)) for each in records]})

    async def get(self, key_hash: _Hash) -> Response:
        """Show a key."""
        return await self._shown(await self._found(key_hash))

    async def update(self, key_hash: _Hash, body: _Update) -> Response:
        """Change a key; what is not named stays."""
        record = await self._found(key_hash)
        if body.workspace_id not in (None, record.team):
            raise BadRequest("a key stays with its team: make a new one in the other", param="workspace_id")
        patch = _patch(body)
        known = (await self._limits([record.key_id])).get(record.key_id)
        if known is None and body.limit is None and body.limit_reset is not None:
            raise BadRequest("limit_reset is of a limit: send one", param="limit")
        named = bool(body.model_fields_set & {"limit", "limit_reset"})
        limited = named and (known is not None or body.limit is not None)
        changed = await self._keys.update_key(record.key_id, structs.replace(patch, beside=limited))
        if limited:
            await self._change_limit(record.key_id, body, known)
        return await self._shown(changed)

    async def revoke(self, key_hash: _Hash) -> Response:
        """Revoke a key for good."""
        record = await self._found(key_hash)
        await self._keys.revoke_key(record.key_id)
        return _json({"deleted": True})

    async def rotate(self, key_hash: _Hash, body: _Rotate) -> Response:
        """Give a key a new secret, shown in `key` now and never again."""
        record = await self._found(key_hash)
        return await self._issued(await self._keys.rotate_key(record.key_id, body.overlap_seconds), 200)

    async def _found(self, wanted: str) -> KeyRecord:
        """Return the key that is not revoked whose hash is ``wanted``."""
        if wanted not in self._ids:
            self._ids = {key_hash(record.key_id): record.key_id for record in await self._keys.keys()}
        key_id = self._ids.get(wanted)
        if key_id is not None:
            record = await self._keys.key(key_id)
            if record.revoked_at is None:
                return record
        raise NotFound("there is no such key", param="hash")

    async def _shown(self, record: KeyRecord) -> Response:
        return _json({"data": await self._data(record)})

    async def _issued(self, issued: IssuedKey, status: int) -> Response:
        return _json({"key": issued.key, "data": await self._data(issued.record)}, status)

    async def _data(self, record: KeyRecord) -> dict[str, Any]:
        usage = await self._ledger.key_usage([record.key_id])
        limits = await self._limits([record.key_id])
        return key_data(record, usage[record.key_id], limits.get(record.key_id))

    async def _limits(self, key_ids: Sequence[str]) -> Mapping[str, BudgetState]:
        """Return the spending limits of keys, by key id."""
        return limits_of(await self._ledger.ask(BUDGETS, (None, tuple(key_ids)))) if key_ids else {}

    async def _set_limit(self, key_id: str, limit: Decimal, reset: str | None) -> Budget:
        window = Window.TOTAL if reset is None else Window(reset)
        new = NewBudget(Scope(key_id), window, nano(limit), source="key")
        return await self._ledger.ask(SET_BUDGET, (new,))

    async def _change_limit(self, key_id: str, body: UpdateKeyBody, known: BudgetState | None) -> None:
        """Change or remove the spending limit of a key; of limit and reset, the one that is not named stays."""
        said = body.model_fields_set
        limit, reset = body.limit, body.limit_reset
        if known is not None:
            if "limit" not in said:
                limit = Decimal(known.budget.limit_nano).scaleb(-9)
            if "limit_reset" not in said and known.budget.window is not Window.TOTAL:
                reset = cast("Reset", known.budget.window.value)
        made = None if limit is None else await self._set_limit(key_id, limit, reset)
        # The new one is in force before the old one goes, so that there is no moment without a limit.
        if known is not None and (made is None or made.budget_id != known.budget.budget_id):
            await self._ledger.ask(DELETE_BUDGET, (known.budget.budget_id,))


def limits_of(states: Sequence[BudgetState]) -> Mapping[str, BudgetState]:
    """Return those of ``states`` that are spending limits of keys, by key id."""
    return {state.budget.scope.key_id: state for state in states if state.budget.source == "key"}


def _team(body: CreateKeyBody) -> str:
    named = {team for team in (body.workspace_id, body.weir.team) if team is not None}
    if len(named) > 1:
        raise BadRequest("workspace_id and weir.team name different teams: send one", param="weir.team")
    return named.pop() if named else DEFAULT_TEAM


def _models(models: list[str] | None) -> tuple[str, ...] | None:
    return None if models is None else tuple(models)


def _patch(body: UpdateKeyBody) -> KeyPatch:
    """Return the change that ``body`` asks for: what is missing stays, and null is not the same as missing."""
    changes: dict[str, Any] = {}
    for name in ("name", "disabled", "weir"):
        if name in body.model_fields_set and getattr(body, name) is None:
            raise BadRequest(f"{name} cannot be null: leave it out to keep it", param=name)
    for name in ("name", "disabled"):
        if name in body.model_fields_set:
            changes[name] = getattr(body, name)
    if "expires_at" in body.model_fields_set:
        changes["expires_at"] = microseconds(body.expires_at)
    if body.weir is not None:
        if "models" in body.weir.model_fields_set:
            changes["models"] = _models(body.weir.models)
        if "limits" in body.weir.model_fields_set:
            changes["limits"] = (body.weir.limits or LimitsBody()).value()
    return KeyPatch(**changes)


def _offset(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadRequest("offset is a whole number from 0 on", param="offset")
    return int(text)


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise BadRequest(f"{name} is true or false", param=name)
    return text.lower() == "true"


def _json(content: dict[str, Any], status: int = 200) -> Response:
    # Not FastAPI's encoder: amounts are numbers made from integers, which a float would not keep.
    return Response(
        msgspec.json.encode(content), status, media_type="application/json", headers={"cache-control": "no-store"}
    )
