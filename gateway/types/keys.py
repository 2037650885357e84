"""Teams and inference keys as values, and the Protocols by which the edge, the admin API and the keeper meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from gateway.types.budgets import Paid, Scope, Shortfall, Spend


class KeyLimits(msgspec.Struct, frozen=True, gc=False):
    """Limits of one key; None means no limit.

    Attributes:
        rpm: requests in any 60 seconds.
        tpm: prompt and completion tokens in any 60 seconds.
        concurrent: requests in flight.
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrent: int | None = None

    @property
    def unlimited(self) -> bool:
        """Whether no limit is set."""
        return self.rpm is None and self.tpm is None and self.concurrent is None


class TeamRecord(msgspec.Struct, frozen=True):
    """A team: who pays.

    Attributes:
        slug: unique name, ``[a-z0-9][a-z0-9-]*``.
        created_at: microseconds since 1970.
    """

    slug: str
    name: str
    created_at: int


class KeyRecord(msgspec.Struct, frozen=True):
    """An inference key without its secret.

    Attributes:
        key_id: public id, the 8 characters after ``sk-weir-``.
        digest: HMAC-SHA-256 of the secret under the pepper.
        previous_digest: digest of the secret before the last rotation, or None.
        previous_until: microseconds since 1970 until which the previous secret still works, or None.
        team: slug of the team that pays.
        models: ids this key may use (aliases allowed), or None for all.
        expires_at: microseconds since 1970, or None.
        disabled: switched off, can be switched on again.
        revoked_at: microseconds since 1970 when it was revoked for good, or None.
        created_at: microseconds since 1970.
        updated_at: microseconds since 1970 of the last change, also of its spending limit, or rotation; or None.
        last_used_at: microseconds since 1970 of the last metered request, or None.
        creator: user id of the member it belongs to, or ``""``.
    """

    key_id: str
    name: str
    digest: bytes
    team: str
    created_at: int
    previous_digest: bytes | None = None
    previous_until: int | None = None
    models: tuple[str, ...] | None = None
    limits: KeyLimits = KeyLimits()
    expires_at: int | None = None
    disabled: bool = False
    revoked_at: int | None = None
    last_used_at: int | None = None
    updated_at: int | None = None
    creator: str = ""


class NewKey(msgspec.Struct, frozen=True):
    """What a new key is made of.

    ``secret`` is the whole key text when it is given by the operator, else random. ``creator`` is a member of the team.
    """

    name: str
    team: str
    models: tuple[str, ...] | None = None
    limits: KeyLimits = KeyLimits()
    expires_at: int | None = None
    secret: str | None = None
    creator: str = ""


class KeyPatch(msgspec.Struct, frozen=True):
    """A change of a key; a field left ``UNSET`` stays as it is.

    ``beside`` says that something of the key changes that is kept elsewhere, such as its spending limit: a budget.
    """

    name: str | msgspec.UnsetType = msgspec.UNSET
    models: tuple[str, ...] | msgspec.UnsetType | None = msgspec.UNSET
    limits: KeyLimits | msgspec.UnsetType = msgspec.UNSET
    expires_at: int | msgspec.UnsetType | None = msgspec.UNSET
    disabled: bool | msgspec.UnsetType = msgspec.UNSET
    beside: bool = False


class IssuedKey(msgspec.Struct, frozen=True):
    """A key just made or rotated: the only moment its secret is known."""

    record: KeyRecord
    key: str


class KeyAdmin(Protocol):
    """Managing teams and keys. Errors are ``WeirError``: NotFound for an unknown id, BadRequest for a bad value."""

    async def create_team(self, slug: str, name: str) -> TeamRecord:
        """Make a team."""

    async def teams(self) -> Sequence[TeamRecord]:
        """Return all teams by slug."""

    async def create_key(self, new: NewKey) -> IssuedKey:
        """Make a key."""

    async def keys(self, team: str | None = None) -> Sequence[KeyRecord]:
        """Return keys that are not revoked, newest first."""

    async def key(self, key_id: str) -> KeyRecord:
        """Return one key, revoked or not."""

    async def update_key(self, key_id: str, patch: KeyPatch) -> KeyRecord:
        """Change a key."""

    async def rotate_key(self, key_id: str, overlap_s: float) -> IssuedKey:
        """Give a key a new secret; the old one works for ``overlap_s`` seconds more."""

    async def revoke_key(self, key_id: str) -> KeyRecord:
        """Revoke a key for good; within a second no process accepts it."""


class KeyFeed(Protocol):
    """Where a process learns of keys: all at start, then each change as it happens."""

    async def subscribe(self, on_change: Callable[[Sequence[KeyRecord]], None]) -> Sequence[KeyRecord]:
        """Return all keys, revoked ones too, and call ``on_change`` with each key that changes later."""


class Grant(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Leave to run one request under a key's limits and the budgets it concerns.

    Attributes:
        hold: id to settle with, or 0 when nothing is to be settled.
        refused: None when granted, else what was hit: ``rpm``, ``tpm``, ``concurrent`` or ``budget``.
        retry_after: seconds until there is room, when a limit was hit.
        exact: whether ``retry_after`` is when there is room, and no guess.
        left: what is left of the limit that was hit, too little for this request; None when nobody knows.
        reserved: the most that may be charged for the request, nano-USD; None when no budget bounds it.
        shortfall: what the budget lacks, when one was hit.
    """

    hold: int
    refused: str | None = None
    retry_after: float = 0.0
    reserved: int | None = None
    shortfall: Shortfall | None = None
    exact: bool = False
    left: int | None = None


class LimitBook(Protocol):
    """Counts requests, tokens, concurrency and money of limited keys over all workers of a host."""

    async def admit(self, key_id: str, limits: KeyLimits, tokens: int, spend: Spend | None = None) -> Grant:
        """Ask to run a request of about ``tokens`` tokens that costs no more than ``spend`` says."""

    def settle(self, hold: int, tokens: int, paid: Paid = ()) -> None:
        """End the request of ``hold``, which took ``tokens`` tokens and was charged ``paid``.

        Never blocks; unknown holds are ignored. The end of the request must be in the journal before.
        """

    async def follow_scopes(self, on_change: Callable[[Sequence[Scope]], None]) -> Sequence[Scope]:
        """Return the scopes of all hard budgets, and call ``on_change`` with all of them whenever they change."""

    def present(self, writer: str) -> None:
        """Tell that this process writes the journal ``writer``."""
