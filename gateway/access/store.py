"""Teams and keys in the database, under the rules of ``KeyAdmin``.

Every change is one transaction, done when the call returns. A bad value is ``BadRequest``, an unknown id
``NotFound``, a database that is away ``Unavailable``. Secrets pass through once, on their way to the
caller; only digests are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import func, or_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from gateway.access import guardrails
from gateway.access.keys import digest, key_id_of, new_key_id, new_key_text
from gateway.access.rules import (
    checked_expiry,
    checked_limits,
    checked_models,
    checked_name,
    checked_overlap,
    checked_secret,
    checked_slug,
)
from gateway.db import changes
from gateway.db.engine import Database
from gateway.db.tables.access import KeyRow, TeamRow
from gateway.db.tables.workspace import MemberRow
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing
from gateway.types.errors import BadRequest, NotFound
from gateway.types.keys import IssuedKey, KeyLimits, KeyPatch, KeyRecord, NewKey, TeamRecord

DEFAULT_TEAM: Final = "default"
TOPIC: Final = "keys"
"""What changes of keys are announced as."""
_ID_TRIES: Final = 16


def wall_clock_us() -> int:
    """Return microseconds since 1970."""
    return time.time_ns() // 1_000


class AccessStore:
    """The repository of teams and keys; a ``KeyAdmin``.

    Args:
        database: where they are kept; migrated already.
        pepper: the gateway's secret.
        now_us: wall clock, microseconds since 1970.
        make_id: source of random public ids.
    """

    __slots__ = ("_database", "_make_id", "_now_us", "_pepper")

    def __init__(
        self,
        database: Database,
        pepper: bytes,
        *,
        now_us: Callable[[], int] = wall_clock_us,
        make_id: Callable[[], str] = new_key_id,
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._now_us = now_us
        self._make_id = make_id

    async def create_team(self, slug: str, name: str) -> TeamRecord:
        """Make a team; BadRequest when there is one of that slug."""
        row = TeamRow(slug=checked_slug(slug), name=checked_name(name), created_at=self._now_us())
        async with writing(self._database) as session:
            if await session.get(TeamRow, row.slug) is not None:
                raise BadRequest(f"there is a team {row.slug!r} already", param="slug")
            session.add(row)
            await note(session, "team", row.slug, None, _team(row), team=row.slug)
        return _team(row)

    async def teams(self) -> Sequence[TeamRecord]:
        """Return all teams by slug."""
        async with reading(self._database) as session:
            rows = await session.scalars(select(TeamRow).order_by(col(TeamRow.slug)))
            return tuple(_team(row) for row in rows)

    async def create_key(self, new: NewKey) -> IssuedKey:
        """Make a key; BadRequest when its team is unknown or its chosen text is in use."""
        now = self._now_us()
        limits = checked_limits(new.limits)
        models = checked_models(new.models)
        row = KeyRow(
            key_id="",
            name=checked_name(new.name),
            digest=b"",
            team=new.team,
            models=None if models is None else list(models),
            rpm=limits.rpm,
            tpm=limits.tpm,
            concurrent=limits.concurrent,
            created_at=now,
            expires_at=checked_expiry(new.expires_at, now),
            creator=new.creator,
        )
        secret = None if new.secret is None else checked_secret(new.secret)
        async with writing(self._database) as session:
            if not new.team.isprintable() or await session.get(TeamRow, new.team) is None:
                raise BadRequest(f"there is no team {new.team!r}: make it first", param="team")
            row.key_id = await self._free_id(session, secret)
            text = secret or new_key_text(row.key_id)
            row.digest = digest(self._pepper, text.encode())
            row.revision = await changes.announce(session, TOPIC)
            if row.creator and await session.get(MemberRow, (row.team, row.creator)) is None:
                raise BadRequest("the creator of a key is a member of its workspace", param="creator_user_id")
            session.add(row)
            await guardrails.cover(session, row)
            await _note(session, None, row)
        return IssuedKey(record_of(row), text)

    async def keys(self, team: str | None = None) -> Sequence[KeyRecord]:
        """Return keys that are not revoked, newest first; NotFound for an unknown team."""
        # Columns, not rows of the toolkit: those would take three times as long.
        columns = KeyRow.__table__.columns  # type: ignore[attr-defined]  # SQLModel does not declare it
        query = select(*columns).where(col(KeyRow.revoked_at).is_(None))
        async with reading(self._database) as session:
            if team is not None:
                if not team.isprintable() or await session.get(TeamRow, team) is None:
                    raise NotFound(f"there is no team {team!r}", param="team")
                query = query.where(col(KeyRow.team) == team)
            rows = await session.execute(query.order_by(col(KeyRow.created_at).desc(), col(KeyRow.key_id)))
            return tuple(record_of(row) for row in rows)

    async def all_keys(self) -> Sequence[KeyRecord]:
        """Return every key there ever was."""
        async with reading(self._database) as session:
            return tuple(record_of(row) for row in await session.scalars(select(KeyRow)))

    async def changed_since(self, revision: int) -> tuple[Sequence[KeyRecord], int]:
        """Return the keys that changed after ``revision``, and the revision of now."""
        now = await changes.latest(self._database, TOPIC)
        if now == revision:
            return (), now
        async with reading(self._database) as session:
            query = select(KeyRow).where(col(KeyRow.revision) > revision).order_by(col(KeyRow.revision))
            return tuple(record_of(row) for row in await session.scalars(query)), now

    @property
    def links(self) -> int:
        """How many connections for reading were made to a server so far; see ``Database``."""
        return self._database.reading_links

    async def count(self) -> int:
        """Return how many keys there are, revoked ones too."""
        async with reading(self._database) as session:
            return int(await session.scalar(select(func.count()).select_from(KeyRow)) or 0)

    async def key(self, key_id: str) -> KeyRecord:
        """Return one key, revoked or not."""
        async with reading(self._database) as session:
            return record_of(await _row(session, key_id))

    async def update_key(self, key_id: str, patch: KeyPatch) -> KeyRecord:
        """Change a key that is not revoked."""
        now = self._now_us()
        async with writing(self._database) as session:
            row = await _live_row(session, key_id)
            before = record_of(row)
            if isinstance(patch.name, str):
                row.name = checked_name(patch.name)
            if patch.models is None or isinstance(patch.models, tuple):
                models = checked_models(patch.models)
                row.models = None if models is None else list(models)
            if isinstance(patch.limits, KeyLimits):
                limits = checked_limits(patch.limits)
                row.rpm, row.tpm, row.concurrent = limits.rpm, limits.tpm, limits.concurrent
            if patch.expires_at is None or isinstance(patch.expires_at, int):
                row.expires_at = checked_expiry(patch.expires_at, now)
            if isinstance(patch.disabled, bool):
                row.disabled = patch.disabled
            if patch != KeyPatch():
                row.updated_at = now
                row.revision = await changes.announce(session, TOPIC)
                await _note(session, before, row)
        return record_of(row)

    async def rotate_key(self, key_id: str, overlap_s: float) -> IssuedKey:
        """Give a key that is not revoked a new secret; the old one works for ``overlap_s`` seconds more."""
        overlap_us = round(checked_overlap(overlap_s) * 1_000_000)
        text = new_key_text(key_id)
        async with writing(self._database) as session:
            row = await _live_row(session, key_id)
            before = record_of(row)
            now = row.updated_at = self._now_us()
            row.previous_digest = row.digest if overlap_us else None
            row.previous_until = now + overlap_us if overlap_us else None
            row.digest = digest(self._pepper, text.encode())
            row.revision = await changes.announce(session, TOPIC)
            await _note(session, before, row)
        return IssuedKey(record_of(row), text)

    async def revoke_key(self, key_id: str) -> KeyRecord:
        """Revoke a key for good; revoking it again changes nothing."""
        async with writing(self._database) as session:
            row = await _row(session, key_id)
            if row.revoked_at is None:
                before = record_of(row)
                row.revoked_at = row.updated_at = self._now_us()
                row.revision = await changes.announce(session, TOPIC)
                await _note(session, before, row)
        return record_of(row)

    async def mark_used(self, last_used: Mapping[str, int]) -> None:
        """Move the last use of keys forward.

        Args:
            last_used: microseconds since 1970 by key id; ids that are no keys are ignored.
        """
        async with writing(self._database) as session:
            for key_id, moment in sorted(last_used.items()):
                used = col(KeyRow.last_used_at)
                await session.execute(
                    update(KeyRow)
                    .where(col(KeyRow.key_id) == key_id, or_(used.is_(None), used < moment))
                    .values(last_used_at=moment)
                )

    async def _free_id(self, session: AsyncSession, secret: str | None) -> str:
        if secret is not None:
            key_id = key_id_of(secret)
            if await session.get(KeyRow, key_id) is not None:
                raise BadRequest("this key, or one with its public id, exists already", param="secret")
            return key_id
        for _ in range(_ID_TRIES):
            key_id = self._make_id()
            if await session.get(KeyRow, key_id) is None:
                return key_id
        raise RuntimeError("the source of key ids repeats itself")


async def _row(session: AsyncSession, key_id: str) -> KeyRow:
    row = await session.get(KeyRow, key_id)
    if row is None:
        raise NotFound("there is no such key", param="key_id")
    return row


async def _live_row(session: AsyncSession, key_id: str) -> KeyRow:
    row = await _row(session, key_id)
    if row.revoked_at is not None:
        raise BadRequest("the key is revoked for good: make a new one", param="key_id")
    return row


async def _note(session: AsyncSession, before: KeyRecord | None, row: KeyRow) -> None:
    await note(session, "key", row.key_id, before, record_of(row), team=row.team)


def _team(row: TeamRow) -> TeamRecord:
    return TeamRecord(slug=row.slug, name=row.name, created_at=row.created_at)


def record_of(row: Any) -> KeyRecord:
    """Return ``row``, a ``KeyRow`` or its columns, as the value the rest of the gateway sees."""
    return KeyRecord(
        key_id=row.key_id,
        name=row.name,
        digest=row.digest,
        team=row.team,
        created_at=row.created_at,
        previous_digest=row.previous_digest,
        previous_until=row.previous_until,
        models=None if row.models is None else tuple(row.models),
        limits=KeyLimits(rpm=row.rpm, tpm=row.tpm, concurrent=row.concurrent),
        expires_at=row.expires_at,
        disabled=row.disabled,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        updated_at=row.updated_at,
        creator=row.creator,
    )
