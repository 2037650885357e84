"""Teams' own keys for external APIs in the database, and what the keeper answers of them.

A key is sealed before it is written and opened by nobody here; what is shown of it is its label. A team that does not
exist, or a provider that is no external API of the configuration, is refused. A database that is away is
``Unavailable``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from gateway.access.budgets import wall_clock_us
from gateway.access.names import check_models
from gateway.access.workspaces import team_row
from gateway.config.snapshot import EXTERNAL, ConfigSnapshot
from gateway.db import changes
from gateway.db.cipher import Cipher
from gateway.db.engine import Database
from gateway.db.office import LastAnswer, Office, Premises
from gateway.db.tables.upstream_key import UpstreamKeyRow
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing
from gateway.types import upstream_keys as methods
from gateway.types.errors import BadRequest, NotFound
from gateway.types.upstream_keys import (
    LONGEST_KEY,
    KnownKeys,
    NewUpstreamKey,
    OwnKey,
    SealedKey,
    UpstreamKeyPatch,
    context_of,
)

TOPIC: Final = "upstream_keys"
MOST: Final = 100
"""Keys of one team."""
_LABELLED: Final = 16
"""Characters of the shortest key of which some are shown."""


def open_office(premises: Premises) -> Office:
    """Return the office of teams' own keys."""
    store = UpstreamKeyStore(premises.database, Cipher(premises.pepper), premises.config)
    known = LastAnswer(methods.KNOWN_UPSTREAM_KEYS, store.known)
    return Office(
        handlers={
            methods.ADD_UPSTREAM_KEY: store.add,
            methods.UPSTREAM_KEYS: store.all,
            methods.UPSTREAM_KEY: store.get,
            methods.UPDATE_UPSTREAM_KEY: store.update,
            methods.REVOKE_UPSTREAM_KEY: store.revoke,
            methods.KNOWN_UPSTREAM_KEYS: known,
        },
        lasting=(known.lasting(),),
    )


class UpstreamKeyStore:
    """The repository of teams' own keys."""

    __slots__ = ("_cipher", "_config", "_database")

    def __init__(self, database: Database, cipher: Cipher, config: Callable[[], ConfigSnapshot | None]) -> None:
        self._database = database
        self._cipher = cipher
        self._config = config

    async def add(self, new: NewUpstreamKey) -> OwnKey:
        """Keep a key. Raises ``NotFound`` for a team there is not, ``BadRequest`` for anything else that cannot be."""
        self._check(new.provider, new.models)
        _check_ways(new.fallback, new.only)
        now = wall_clock_us()
        key_id = f"upk-{secrets.token_hex(12)}"
        async with writing(self._database) as session:
            await team_row(session, new.team)
            count, last = (
                await session.execute(
                    select(func.count(), func.max(col(UpstreamKeyRow.position))).where(
                        col(UpstreamKeyRow.team) == new.team
                    )
                )
            ).one()
            if count >= MOST:
                raise BadRequest(f"a workspace has at most {MOST} keys for providers", param="key")
            row = UpstreamKeyRow(
                key_id=key_id,
                team=new.team,
                provider=new.provider,
                name=_named(new.name),
                label=_label(new.secret),
                sealed=self._sealed(new.secret, key_id, new.team, new.provider),
                models=_listed(new.models),
                keys=_listed(new.keys),
                disabled=new.disabled,
                fallback=new.fallback,
                required=new.required,
                only=new.only,
                position=0 if last is None else last + 1,
                created_at=now,
                updated_at=now,
            )
            session.add(row)
            await changes.announce(session, TOPIC)
            made = _key(row)
            await note(session, "upstream key", key_id, None, made, team=new.team)
        return made

    async def all(self, team: str | None, provider: str | None) -> Sequence[OwnKey]:
        """Return keys in the order in which they are tried, team by team."""
        query = select(UpstreamKeyRow)
        if team is not None:
            query = query.where(col(UpstreamKeyRow.team) == team)
        if provider is not None:
            query = query.where(col(UpstreamKeyRow.provider) == provider)
        order = (col(UpstreamKeyRow.team), col(UpstreamKeyRow.provider), col(UpstreamKeyRow.position))
        async with reading(self._database) as session:
            return tuple(_key(row) for row in await session.scalars(query.order_by(*order)))

    async def get(self, key_id: str) -> OwnKey:
        """Return one key. Raises ``NotFound``."""
        async with reading(self._database) as session:
            return _key(await _row(session, key_id))

    async def update(self, key_id: str, patch: UpstreamKeyPatch) -> OwnKey:
        """Change a key. Raises ``NotFound`` or ``BadRequest``."""
        said: dict[str, Any] = {
            name: value
            for name in patch.__struct_fields__
            if (value := getattr(patch, name)) is not msgspec.UNSET and name != "secret"
        }
        async with writing(self._database) as session:
            row = await _row(session, key_id)
            before = _key(row)
            if "models" in said:
                self._check(row.provider, said["models"])
            for name in ("models", "keys"):
                if name in said:
                    said[name] = _listed(said[name])
            if "name" in said:
                said["name"] = _named(said["name"])
            if "order" in said:
                said["position"] = said.pop("order")
            for name, value in said.items():
                setattr(row, name, value)
            _check_ways(row.fallback, row.only)
            if patch.secret is not msgspec.UNSET:
                row.sealed = self._sealed(patch.secret, key_id, row.team, row.provider)
                row.label = _label(patch.secret)
            row.updated_at = wall_clock_us()
            await changes.announce(session, TOPIC)
            after = _key(row)
            await note(session, "upstream key", key_id, before, after, team=row.team)
        return after

    async def revoke(self, key_id: str) -> OwnKey:
        """Forget a key for good. Raises ``NotFound``."""
        async with writing(self._database) as session:
            row = await _row(session, key_id)
            gone = _key(row)
            await session.delete(row)
            await changes.announce(session, TOPIC)
            await note(session, "upstream key", key_id, gone, None, team=gone.team)
        return gone

    async def known(self, revision: int) -> KnownKeys | None:
        """Return what serving processes go by, or None when ``revision`` is the newest."""
        now = await changes.latest(self._database, TOPIC)
        if now == revision:
            return None
        async with reading(self._database) as session:
            query = select(UpstreamKeyRow).where(~col(UpstreamKeyRow.disabled)).order_by(col(UpstreamKeyRow.position))
            return KnownKeys(now, tuple(SealedKey(_key(row), row.sealed) for row in await session.scalars(query)))

    def _check(self, provider: str, models: Sequence[str] | None) -> None:
        """Refuse a provider or models that the configuration does not know; without one everything passes."""
        snapshot = self._config()
        if snapshot is None:
            return
        providers = {spec.provider for spec in snapshot.backends.values() if spec.kind in EXTERNAL}
        if provider not in providers:
            known = ", ".join(sorted(providers)) or "none"
            raise BadRequest(f"there is no provider {provider[:64]!r} of an external API: {known}", param="provider")
        check_models(models, snapshot.models.keys() | snapshot.aliases.keys())

    def _sealed(self, secret: str, key_id: str, team: str, provider: str) -> bytes:
        if not 1 <= len(secret) <= LONGEST_KEY or not all("!" <= char <= "~" for char in secret):
            raise BadRequest("a key is printable ASCII without blanks", param="key")
        return self._cipher.seal(secret.encode("ascii"), context_of(key_id, team, provider))


async def _row(session: AsyncSession, key_id: str) -> UpstreamKeyRow:
    row = await session.get(UpstreamKeyRow, key_id)
    if row is None:
        raise NotFound("there is no such key", param="id")
    return row


def _key(row: UpstreamKeyRow) -> OwnKey:
    return OwnKey(
        key_id=row.key_id,
        team=row.team,
        provider=row.provider,
        name=row.name,
        label=row.label,
        models=None if row.models is None else tuple(row.models),
        keys=None if row.keys is None else tuple(row.keys),
        disabled=row.disabled,
        fallback=row.fallback,
        required=row.required,
        only=row.only,
        order=row.position,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _listed(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)


def _named(name: str) -> str:
    if len(name) > 128 or not (name.isprintable() or not name):
        raise BadRequest("a name is one line of at most 128 characters", param="name")
    return name


def _label(secret: str) -> str:
    """Return what may be shown of a key: nothing of a short one."""
    return f"{secret[:4]}…{secret[-4:]}" if len(secret) >= _LABELLED else "…"


def _check_ways(fallback: bool, only: bool) -> None:
    if fallback and only:
        raise BadRequest("a fallback cannot be the only key", param="is_byok_only")
