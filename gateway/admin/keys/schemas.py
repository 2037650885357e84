"""What key management takes and gives, in OpenRouter's shape with our own fields under ``weir``.

OpenRouter's ``workspace_id`` is our team. Fields of OpenRouter's that name something Weir does not have are taken only
with the value that says so. Money is USD as JSON numbers printed exactly from integers; times are ISO 8601 in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import AwareDatetime, BaseModel, Field

from gateway.access.keys import label
from gateway.admin.body import Body
from gateway.types.budgets import BudgetState, Window
from gateway.types.generation import KeyUsage
from gateway.types.keys import KeyLimits, KeyRecord
from gateway.types.money import usd_json

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LIMIT: Final = "Spending limit in USD per `limit_reset`, a hard budget of the key; null for none."
_RESET: Final = "When the limit begins anew, at midnight UTC, weeks on Monday; null for never."
Limit = Annotated[Decimal, Field(ge=0, le=2_000_000_000, decimal_places=9)]
Reset = Literal["daily", "weekly", "monthly"]


class LimitsBody(Body):
    """Limits of a key; null or missing is no limit."""

    rpm: int | None = Field(None, description="Requests in any 60 seconds.")
    tpm: int | None = Field(None, description="Prompt and completion tokens in any 60 seconds.")
    concurrent: int | None = Field(None, description="Requests in flight.")

    def value(self) -> KeyLimits:
        """Return the limits as a value."""
        return KeyLimits(rpm=self.rpm, tpm=self.tpm, concurrent=self.concurrent)


class NewWeirBody(Body):
    """What OpenRouter has no field for, of a new key."""

    team: str | None = Field(None, description="Slug of the team that pays; `default` unless said.")
    models: list[str] | None = Field(None, description="Model ids and aliases the key may use; null for all.")
    limits: LimitsBody = Field(LimitsBody(), description="Limits of the key.")


class CreateKeyBody(Body):
    """A new key."""

    name: str = Field(description="What people call it.")
    expires_at: AwareDatetime | None = Field(None, description="When it stops working, ISO 8601 with an offset.")
    workspace_id: str | None = Field(None, description="The team, as `weir.team`.")
    limit: Limit | None = Field(None, description=_LIMIT)
    limit_reset: Reset | None = Field(None, description=_RESET)
    include_byok_in_limit: Literal[False] | None = Field(None, description="Only false: limits count charges alone.")
    creator_user_id: str | None = Field(None, description="User id of the workspace's member it belongs to.")
    weir: NewWeirBody = Field(NewWeirBody(), description="Weir's own fields.")


class WeirPatchBody(Body):
    """Changes of what OpenRouter has no field for; what is missing stays."""

    models: list[str] | None = Field(None, description="Model ids and aliases the key may use; null for all.")
    limits: LimitsBody | None = Field(None, description="All limits anew; null for none.")


class UpdateKeyBody(Body):
    """Changes of a key; what is missing stays."""

    name: str | None = Field(None, description="What people call it; not null.")
    disabled: bool | None = Field(None, description="Whether it is switched off; not null.")
    expires_at: AwareDatetime | None = Field(None, description="When it stops working; null for never.")
    limit: Limit | None = Field(None, description=_LIMIT)
    limit_reset: Reset | None = Field(None, description=_RESET)
    include_byok_in_limit: Literal[False] | None = Field(None, description="Only false: limits count charges alone.")
    workspace_id: str | None = Field(None, description="Only the key's team: a key stays with it.")
    weir: WeirPatchBody | None = Field(None, description="Weir's own fields; not null.")


class RotateKeyBody(Body):
    """A new secret for a key."""

    overlap_seconds: Annotated[float, Field(allow_inf_nan=False)] = Field(
        0.0, description="How long the old secret still works, in seconds."
    )


class KeyLimitsAnswer(BaseModel):
    """Limits of a key; null is no limit."""

    rpm: int | None
    tpm: int | None
    concurrent: int | None


class WeirAnswer(BaseModel):
    """What OpenRouter has no field for."""

    key_id: str
    team: str
    models: list[str] | None
    limits: KeyLimitsAnswer
    previous_secret_until: str | None


class KeyData(BaseModel):
    """A key; its secret is never in it."""

    hash: str
    name: str
    label: str
    disabled: bool
    limit: float | None
    limit_remaining: float | None
    limit_reset: str | None
    include_byok_in_limit: bool
    usage: float
    usage_daily: float
    usage_weekly: float
    usage_monthly: float
    byok_usage: float
    byok_usage_daily: float
    byok_usage_weekly: float
    byok_usage_monthly: float
    created_at: str
    updated_at: str | None
    creator_user_id: str | None
    external_user: str | None
    workspace_id: str
    last_used_at: str | None
    expires_at: str | None
    weir: WeirAnswer


class KeyAnswer(BaseModel):
    """One key."""

    data: KeyData


class KeysAnswer(BaseModel):
    """A page of keys, newest first."""

    data: list[KeyData]


class IssuedKeyAnswer(BaseModel):
    """A key just made or rotated; ``key`` is shown only now."""

    key: str
    data: KeyData


class DeletedAnswer(BaseModel):
    """A key was revoked."""

    deleted: Literal[True]


def key_hash(key_id: str) -> str:
    """Return the 64 hex digits by which the API names a key: SHA-256 of its public id."""
    return sha256(key_id.encode("ascii")).hexdigest()


def microseconds(moment: datetime | None) -> int | None:
    """Return ``moment`` in microseconds since 1970."""
    return None if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)


def nano(limit: Decimal) -> int:
    """Return a limit in nano-USD; it has no more than nine decimals."""
    return int(limit.scaleb(9))


def key_data(record: KeyRecord, usage: KeyUsage, limit: BudgetState | None) -> dict[str, Any]:
    """Return ``record`` as the API shows it; see ``KeyData``."""
    reset = None if limit is None or limit.budget.window is Window.TOTAL else limit.budget.window.value
    return {
        "hash": key_hash(record.key_id),
        "name": record.name,
        "label": label(record.key_id),
        "disabled": record.disabled,
        "limit": None if limit is None else _usd(limit.budget.limit_nano),
        "limit_remaining": None if limit is None else _usd(limit.remaining),
        "limit_reset": reset,
        "include_byok_in_limit": False,
        **usage_data(usage),
        "created_at": _iso(record.created_at),
        "updated_at": _iso(record.updated_at),
        "creator_user_id": record.creator or None,
        "external_user": None,
        "workspace_id": record.team,
        "last_used_at": _iso(record.last_used_at),
        "expires_at": _iso(record.expires_at),
        "weir": {
            "key_id": record.key_id,
            "team": record.team,
            "models": record.models,
            "limits": {"rpm": record.limits.rpm, "tpm": record.limits.tpm, "concurrent": record.limits.concurrent},
            "previous_secret_until": _iso(record.previous_until),
        },
    }


def usage_data(usage: KeyUsage) -> dict[str, Any]:
    """Return what a key was charged, and what went with its team's own keys at the list price."""
    return {
        "usage": _usd(usage.total),
        "usage_daily": _usd(usage.day),
        "usage_weekly": _usd(usage.week),
        "usage_monthly": _usd(usage.month),
        "byok_usage": _usd(usage.byok_total),
        "byok_usage_daily": _usd(usage.byok_day),
        "byok_usage_weekly": _usd(usage.byok_week),
        "byok_usage_monthly": _usd(usage.byok_month),
    }


def _usd(nano: int) -> msgspec.Raw:
    return msgspec.Raw(usd_json(nano))


def _iso(moment_us: int | None) -> str | None:
    """Return microseconds since 1970 as ISO 8601 in UTC."""
    if moment_us is None:
        return None
    moment = _EPOCH + timedelta(microseconds=moment_us)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06}Z"
