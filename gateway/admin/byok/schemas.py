"""What the management of teams' own keys takes and gives, in OpenRouter's shape.

Fields of OpenRouter's for what Weir does not have are taken only with the value that says so.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET
from pydantic import BaseModel, Field

from gateway.admin.answer import iso
from gateway.admin.body import Body
from gateway.admin.keys.schemas import key_hash
from gateway.types.upstream_keys import LONGEST_KEY, OwnKey, UpstreamKeyPatch

Names = Annotated[list[str], Field(max_length=100)]
Secret = Annotated[str, Field(min_length=1, max_length=LONGEST_KEY)]
_DECLARED: Final = "Only null: what an endpoint keeps, and where, is said by the configuration."


class KeyBody(Body):
    """What a key may be used for."""

    name: str | None = Field(None, max_length=128, description="What people call it.")
    allowed_models: Names | None = Field(None, description="Models that it may be used for, by id; null for all.")
    allowed_api_key_hashes: Names | None = Field(None, description="Keys whose requests may use it; null for all.")
    allowed_user_ids: None = Field(None, description="Only null: requests come from keys.")
    declared_region: None = Field(None, description=_DECLARED)
    declared_zdr: None = Field(None, description=_DECLARED)
    disabled: bool | None = Field(None, description="Whether it rests.")
    is_fallback: bool | None = Field(None, description="Whether it is used only after everything else.")
    is_required: bool | None = Field(
        None, description="Whether requests that it is for never use the operator's key for the same provider."
    )
    is_byok_only: bool | None = Field(
        None, description="Whether no request of the workspace uses the operator's key for the same provider."
    )


class CreateKeyBody(KeyBody):
    """A new key."""

    provider: str = Field(description="Slug of the provider, as `/api/v1/providers` has it.", max_length=64)
    key: Secret = Field(description="The key itself; it is never shown again.")
    workspace_id: str | None = Field(None, description="Whose it is; `default` unless said.", max_length=64)


class UpdateKeyBody(KeyBody):
    """A change; what is not named stays."""

    key: Secret | None = Field(None, description="Replaces the key itself.")
    sort_order: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        None, description="Keys for a provider are tried in ascending order."
    )


class KeyData(BaseModel):
    """A key as it is shown."""

    id: str
    provider: str
    name: str | None
    label: str
    workspace_id: str | None
    allowed_models: list[str] | None
    allowed_api_key_hashes: list[str] | None
    allowed_user_ids: None
    declared_region: None
    declared_zdr: None
    disabled: bool
    is_fallback: bool
    is_required: bool
    is_byok_only: bool
    sort_order: int
    created_at: str
    updated_at: str


class KeyAnswer(BaseModel):
    """One key."""

    data: KeyData


class KeysAnswer(BaseModel):
    """A page of keys."""

    data: list[KeyData]
    total_count: int


class DeletedAnswer(BaseModel):
    """The key is gone."""

    deleted: Literal[True]


def key_data(found: OwnKey) -> dict[str, Any]:
    """Return a key as it is shown; see ``KeyData``."""
    return {
        "id": found.key_id,
        "provider": found.provider,
        "name": found.name or None,
        "label": found.label,
        "workspace_id": found.team,
        "allowed_models": found.models,
        "allowed_api_key_hashes": None if found.keys is None else [key_hash(key) for key in found.keys],
        "allowed_user_ids": None,
        "declared_region": None,
        "declared_zdr": None,
        "disabled": found.disabled,
        "is_fallback": found.fallback,
        "is_required": found.required,
        "is_byok_only": found.only,
        "sort_order": found.order,
        "created_at": iso(found.created_at),
        "updated_at": iso(found.updated_at),
    }


def patch_of(body: UpdateKeyBody, keys: tuple[str, ...] | None) -> UpstreamKeyPatch:
    """Return the change that ``body`` asks for; ``keys`` are the ids of the keys that it names."""
    said = body.model_fields_set
    return UpstreamKeyPatch(
        secret=UNSET if body.key is None else body.key,
        name=(body.name or "") if "name" in said else UNSET,
        models=_names(body.allowed_models) if "allowed_models" in said else UNSET,
        keys=keys if "allowed_api_key_hashes" in said else UNSET,
        disabled=UNSET if body.disabled is None else body.disabled,
        fallback=UNSET if body.is_fallback is None else body.is_fallback,
        required=UNSET if body.is_required is None else body.is_required,
        only=UNSET if body.is_byok_only is None else body.is_byok_only,
        order=UNSET if body.sort_order is None else body.sort_order,
    )


def _names(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
