"""The key book: teams and inference keys of one host as its processes know them.

Every change is told to all subscribers after its commit and before whoever made it learns of it, in the order of the
commits, whole or not at all. While the database is away changes are ``Unavailable`` and keys stay as last known. Errors
of values are those of ``AccessStore``.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from gateway.access.keys import digest, key_id_of
from gateway.access.names import check_models
from gateway.access.store import AccessStore
from gateway.config.snapshot import ConfigSnapshot
from gateway.types.errors import BadRequest, NotFound
from gateway.types.keys import IssuedKey, KeyPatch, KeyRecord, NewKey, TeamRecord

R = TypeVar("R")


class KeyBook(ABC):
    """``KeyAdmin`` and ``KeyFeed`` of one host.

    Args:
        pepper: the gateway's secret.
        config: returns the configuration of now, whose models keys may name, or None.
    """

    def __init__(self, pepper: bytes, config: Callable[[], ConfigSnapshot | None]) -> None:
        self._pepper = pepper
        self._config = config
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()
        self._known: dict[str, KeyRecord] = {}
        self._told = 0
        self._watchers: list[Callable[[Sequence[KeyRecord]], None]] = []
        self._last_used: dict[str, int] = {}

    @property
    @abstractmethod
    def _keys_store(self) -> AccessStore:
        """Where they are kept. Raises ``Unavailable`` while the database is away."""

    @abstractmethod
    async def _key_made(self) -> None:
        """Do what a new key brings with it."""

    @property
    def watched(self) -> bool:
        """Whether a process still follows the keys: a worker that has not ended."""
        return bool(self._watchers)

    async def create_team(self, slug: str, name: str) -> TeamRecord:
        """Make a team."""
        return await self._keys_store.create_team(slug, name)

    async def ensure_team(self, slug: str, name: str) -> TeamRecord:
        """Return the team of that slug, made when it is missing."""
        for team in await self.teams():
            if team.slug == slug:
                return team
        try:
            return await self.create_team(slug, name)
        except BadRequest:
            # Another host that starts with the same configuration may have been first.
            for team in await self.teams():
                if team.slug == slug:
                    return team
            raise

    async def teams(self) -> Sequence[TeamRecord]:
        """Return all teams by slug."""
        return await self._keys_store.teams()

    async def create_key(self, new: NewKey) -> IssuedKey:
        """Make a key."""
        self._check_models(new.models)
        issued = await self._change(self._keys_store.create_key(new), _record)
        await self._key_made()
        return issued

    def _check_models(self, names: Sequence[str] | None) -> None:
        """Refuse models that the configuration does not know; without one everything passes."""
        snapshot = self._config()
        if snapshot is not None:
            check_models(names, snapshot.models.keys() | snapshot.aliases.keys())

    async def ensure_key(self, new: NewKey, secret: str) -> KeyRecord:
        """Return the key whose text is ``secret``, made as ``new`` says when it is missing; it may be revoked.

        Raises:
            BadRequest: another text has its public id, or the gateway's secret changed since it was made.
        """
        try:
            record = await self.key(key_id_of(secret))
        except NotFound:
            chosen = NewKey(new.name, new.team, new.models, new.limits, new.expires_at, secret)
            return (await self.create_key(chosen)).record
        if record.digest != digest(self._pepper, secret.encode()):
            raise BadRequest("the key is known under another secret of the gateway: revoke it and choose another text")
        return record

    async def keys(self, team: str | None = None) -> Sequence[KeyRecord]:
        """Return keys that are not revoked, newest first."""
        return await self._keys_store.keys(team)

    async def key(self, key_id: str) -> KeyRecord:
        """Return one key, revoked or not."""
        return await self._keys_store.key(key_id)

    async def update_key(self, key_id: str, patch: KeyPatch) -> KeyRecord:
        """Change a key."""
        if patch.models is not msgspec.UNSET:
            self._check_models(patch.models)
        return await self._change(self._keys_store.update_key(key_id, patch), _itself)

    async def rotate_key(self, key_id: str, overlap_s: float) -> IssuedKey:
        """Give a key a new secret; the old one works for ``overlap_s`` seconds more."""
        return await self._change(self._keys_store.rotate_key(key_id, overlap_s), _record)

    async def revoke_key(self, key_id: str) -> KeyRecord:
        """Revoke a key for good; every subscriber is told before this returns."""
        return await self._change(self._keys_store.revoke_key(key_id), _itself)

    async def subscribe(self, on_change: Callable[[Sequence[KeyRecord]], None]) -> Sequence[KeyRecord]:
        """Return all keys, revoked ones too, and call ``on_change`` with each key that changes later."""
        return self.watch(on_change)

    def watch(self, on_change: Callable[[Sequence[KeyRecord]], None]) -> Sequence[KeyRecord]:
        """As ``subscribe``, in one step of the event loop."""
        self._watchers.append(on_change)
        return tuple(self._known.values())

    def unwatch(self, on_change: Callable[[Sequence[KeyRecord]], None]) -> None:
        """End a subscription; harmless when there is none."""
        with suppress(ValueError):
            self._watchers.remove(on_change)

    async def _change(self, operation: Coroutine[Any, Any, R], changed: Callable[[R], KeyRecord]) -> R:
        """Carry out a change and tell it, whole or not at all, whoever stops waiting for it."""

        async def carry_out() -> R:
            async with self._changing:
                result = await operation
                record = changed(result)
                self._tell_keys((record,))
                return result

        task = asyncio.get_running_loop().create_task(carry_out())
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    def _tell_keys(self, changed: Sequence[KeyRecord]) -> None:
        if not changed:
            return
        self._told += 1
        self._known.update((record.key_id, record) for record in changed)
        for on_change in tuple(self._watchers):
            on_change(changed)

    def _tell_all_keys(self, keys: Sequence[KeyRecord]) -> None:
        """Tell what differs from what was known; a database that was restored may lack keys: these work no more."""
        gone = self._known.keys() - {record.key_id for record in keys}
        lost = [msgspec.structs.replace(self._known[key_id], disabled=True) for key_id in gone]
        self._tell_keys([*(record for record in keys if self._known.get(record.key_id) != record), *lost])
        for key_id in gone:
            del self._known[key_id]

    def _remember_use(self, last_used: Mapping[str, int]) -> None:
        for key_id, moment in last_used.items():
            self._last_used[key_id] = max(moment, self._last_used.get(key_id, 0))

    async def _mark_used(self) -> None:
        used, self._last_used = self._last_used, {}
        if not used:
            return
        try:
            await self._keys_store.mark_used(used)
        except BaseException:
            self._remember_use(used)
            raise


def _record(issued: IssuedKey) -> KeyRecord:
    return issued.record


def _itself(record: KeyRecord) -> KeyRecord:
    return record
