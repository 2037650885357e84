"""Teams' own keys for external APIs, as values: what a key may be used for, and what is told of it.

The key itself is sealed by the keeper (``gateway.db.cipher``) and opened only in the processes that send requests with
it; it is in no value that is shown. Nothing here raises.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from gateway.types.method import Method, method

OWN_KEY: Final = 1
"""The ``cost_id`` of what goes with a team's own key, which the team pays by itself: rates of nothing have it."""
LONGEST_KEY: Final = 8_192
"""Characters of the longest key."""


class OwnKey(msgspec.Struct, frozen=True):
    """A team's key for a provider; times are microseconds since 1970.

    Attributes:
        key_id: its public id.
        team: whose it is.
        provider: slug of the provider whose endpoints it is for.
        name: what people call it, or ``""``.
        label: the few characters by which people know the key itself.
        models: ids of models it may be used for, or None for all.
        keys: ids of inference keys whose requests may use it, or None for all of the team.
        disabled: whether it rests.
        fallback: whether it is used only after the owner's key and the team's other ones.
        required: whether requests that it is for never use the owner's key for the same provider.
        only: whether no request of the team uses the owner's key for the same provider, whatever the model.
        order: those of a team and provider are tried in ascending order.
    """

    key_id: str
    team: str
    provider: str
    name: str
    label: str
    models: tuple[str, ...] | None
    keys: tuple[str, ...] | None
    disabled: bool
    fallback: bool
    required: bool
    only: bool
    order: int
    created_at: int
    updated_at: int


class NewUpstreamKey(msgspec.Struct, frozen=True):
    """What a key is to be; see ``OwnKey``. ``secret`` is the key itself."""

    team: str
    provider: str
    secret: str
    name: str = ""
    models: tuple[str, ...] | None = None
    keys: tuple[str, ...] | None = None
    disabled: bool = False
    fallback: bool = False
    required: bool = False
    only: bool = False


class UpstreamKeyPatch(msgspec.Struct, frozen=True):
    """A change; what is not named stays. ``secret`` replaces the key itself."""

    secret: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    models: tuple[str, ...] | UnsetType | None = UNSET
    keys: tuple[str, ...] | UnsetType | None = UNSET
    disabled: bool | UnsetType = UNSET
    fallback: bool | UnsetType = UNSET
    required: bool | UnsetType = UNSET
    only: bool | UnsetType = UNSET
    order: int | UnsetType = UNSET


class SealedKey(msgspec.Struct, frozen=True):
    """A key with its sealed text, for the processes that use it."""

    key: OwnKey
    sealed: bytes


class KnownKeys(msgspec.Struct, frozen=True):
    """All keys in use at one moment."""

    revision: int
    keys: tuple[SealedKey, ...]


def context_of(key_id: str, team: str, provider: str) -> bytes:
    """Return the place for which a key is sealed: it opens nowhere else."""
    return f"upstream key {key_id} of {team} for {provider}".encode()


ADD_UPSTREAM_KEY: Final[Method[OwnKey]] = method("upstream_keys.add", tuple[NewUpstreamKey], OwnKey, repeatable=False)
UPSTREAM_KEYS: Final[Method[tuple[OwnKey, ...]]] = method(
    "upstream_keys.list", tuple[str | None, str | None], tuple[OwnKey, ...]
)
"""Keys of a team, and for a provider, or of all."""
UPSTREAM_KEY: Final[Method[OwnKey]] = method("upstream_keys.get", tuple[str], OwnKey)
UPDATE_UPSTREAM_KEY: Final[Method[OwnKey]] = method("upstream_keys.update", tuple[str, UpstreamKeyPatch], OwnKey)
REVOKE_UPSTREAM_KEY: Final[Method[OwnKey]] = method("upstream_keys.revoke", tuple[str], OwnKey, repeatable=False)
KNOWN_UPSTREAM_KEYS: Final[Method[KnownKeys | None]] = method("upstream_keys.known", tuple[int], KnownKeys | None)
"""What serving processes go by, or None when they have the newest revision."""
