"""The office of answers that are given again: claims of idempotency keys, and the response cache.

A claim belongs to a process. On this host the lock on its journal tells whether it lives; other hosts, which share the
database, renew the claims of their living processes, and one that was not renewed for ``LEASE_S`` is free. So a claim
whose process died is free at once on its own host. Everything that is kept is sealed; what cannot be opened any more,
because the secret changed, counts as not kept. Errors are those of a unit of work.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.config.snapshot import RepetitionSpec, RetentionSpec
from gateway.db.cipher import Cipher, Unsealable
from gateway.db.office import Duty, Office, Premises
from gateway.db.tables.repetition import CachedAnswerRow, CacheHitHour, CacheHitRow, RepetitionRow
from gateway.db.unit_of_work import reading, writing
from gateway.keeper.expiry import SLICE, expire, whole
from gateway.keeper.living import RENEW_S, Living
from gateway.keeper.together import Together
from gateway.types import ids
from gateway.types.repetition import (
    CACHE,
    CACHED,
    CLAIM,
    CLEAR,
    HIT,
    HITS,
    KEEP,
    RELEASE,
    CachedAnswer,
    CacheHit,
    Claim,
    Standing,
)

EXPIRE_S: Final = 60.0
_RUNNING, _KEPT, _UNKEPT = range(3)
_HOUR_US: Final = 3_600_000_000
_DAY_US: Final = 24 * _HOUR_US

_claims: Final[Any] = RepetitionRow.__table__.c  # type: ignore[attr-defined]  # SQLModel does not declare it
_cached: Final[Any] = CachedAnswerRow.__table__.c  # type: ignore[attr-defined]  # as above
_hits: Final[Any] = CacheHitRow.__table__.c  # type: ignore[attr-defined]  # as above
_hit_hours: Final[Any] = CacheHitHour.__table__.c  # type: ignore[attr-defined]  # as above


def open_office(premises: Premises) -> Office:
    """Return the office of answers that are given again."""
    together = Together(premises.database)
    claims, cache = Claims(premises, together), Cache(premises, together)
    duties = [Duty("claims and cached answers expire", EXPIRE_S, claims.expire), Duty("cache", EXPIRE_S, cache.expire)]
    if premises.database.partitioned:
        duties.append(Duty("claims of living processes are renewed", RENEW_S, claims.renew))
    return Office(
        handlers={
            CLAIM: claims.claim,
            KEEP: claims.keep,
            RELEASE: claims.release,
            CACHED: cache.find,
            CACHE: cache.keep,
            CLEAR: cache.clear,
            HITS: cache.hits,
            HIT: cache.hit,
        },
        duties=tuple(duties),
    )


class Claims:
    """Claims of idempotency keys and the answers to them."""

    def __init__(self, premises: Premises, together: Together) -> None:
        self._premises = premises
        self._together = together
        self._database = premises.database
        self._cipher = Cipher(premises.pepper)
        self._living = Living(premises.home)
        self._totals: dict[str, int] | None = None

    async def claim(self, key_id: str, name: bytes, fingerprint: bytes, request_id: bytes, writer: str) -> Claim:
        """See ``CLAIM``. Giving an answer again only reads."""
        return await whole(self._claim(key_id, name, fingerprint, request_id, writer))

    async def keep(self, key_id: str, name: bytes, request_id: bytes, content: bytes | None) -> bool:
        """See ``KEEP``."""
        sealed = None if content is None else self._cipher.seal(content, _place(key_id, name))
        now, size = _now_us(), len(sealed or b"")
        values = {
            "state": _UNKEPT if sealed is None else _KEPT,
            "owner": "",
            "renewed_us": now,
            "expires_us": now + int(self._spec().lifetime_s * 1e6),
            "size": size,
            "content": sealed,
        }
        mine = _mine(key_id, name, request_id)
        kept = await self._together.write(
            lambda session: _run(session, update(RepetitionRow).where(*mine).values(values))
        )
        if self._totals is not None:
            self._totals[key_id] = self._totals.get(key_id, 0) + size
        return kept == 1

    async def release(self, key_id: str, name: bytes, request_id: bytes) -> bool:
        """See ``RELEASE``."""
        mine = (*_mine(key_id, name, request_id), _claims.state == _RUNNING)
        return await self._together.write(lambda session: _run(session, delete(RepetitionRow).where(*mine))) == 1

    async def renew(self) -> None:
        """Tell other hosts which processes of this one live, and let go the claims of those that do not."""
        now = _now_us()
        async with reading(self._database) as session:
            found = await session.scalars(select(_claims.owner).where(_claims.state == _RUNNING).distinct())
            ours = [owner for owner in found if self._living.ours(owner)]
        if not ours:
            return
        living = [owner for owner in ours if self._living.lives(owner, 0, now)]
        dead = [owner for owner in ours if owner not in living]
        async with writing(self._database) as session:
            running = _claims.state == _RUNNING
            await session.execute(
                update(RepetitionRow).where(running, _claims.owner.in_(living)).values(renewed_us=now)
            )
            await session.execute(delete(RepetitionRow).where(running, _claims.owner.in_(dead)))

    async def expire(self) -> None:
        """Delete answers whose time is over, and learn anew how much is kept."""
        await expire(self._database, RepetitionRow, _claims.expires_us, _claims.state != _RUNNING)
        self._totals = await self._summed()

    async def _claim(self, key_id: str, name: bytes, fingerprint: bytes, request_id: bytes, writer: str) -> Claim:
        async with reading(self._database) as session:
            row = await session.get(RepetitionRow, (key_id, name))
        known = self._standing(row, fingerprint, request_id)
        if known is None:
            known = await self._take(key_id, name, fingerprint, request_id, writer)
        return known

    async def _take(self, key_id: str, name: bytes, fingerprint: bytes, request_id: bytes, writer: str) -> Claim:
        """Take a claim that seemed to be free."""
        if self._totals is None:
            self._totals = await self._summed()
        row = RepetitionRow(
            key_id=key_id,
            name=name,
            fingerprint=fingerprint,
            request_id=request_id,
            state=_RUNNING,
            owner=self._living.owner(writer),
            renewed_us=_now_us(),
            expires_us=_now_us() + int(self._spec().lifetime_s * 1e6),
            size=0,
        )
        return await self._together.write(lambda session: self._insert(session, row))

    async def _insert(self, session: AsyncSession, row: RepetitionRow) -> Claim:
        """Take the claim ``row`` unless somebody else has it, or too much is kept for its key."""
        there = await session.get(RepetitionRow, (row.key_id, row.name))
        known = self._standing(there, row.fingerprint, row.request_id)
        if known is not None:
            return known
        if self._totals is not None and self._totals.get(row.key_id, 0) >= self._spec().most_bytes:
            kept = (_claims.key_id == row.key_id, _claims.state != _RUNNING)
            soonest = await session.scalar(select(func.min(_claims.expires_us)).where(*kept)) or 0
            return Claim(Standing.FULL, wait_s=max(1.0, (soonest - _now_us()) / 1e6))
        if there is not None:
            await session.delete(there)
            await session.flush()
        session.add(row)
        return Claim(Standing.TAKEN)

    def _standing(self, row: RepetitionRow | None, fingerprint: bytes, request_id: bytes) -> Claim | None:
        """Return what a request is to be told, or None when the claim can be taken."""
        now = _now_us()
        if row is None:
            return None
        if row.state == _RUNNING:
            if row.request_id == request_id:
                return Claim(Standing.TAKEN)
            if not self._living.lives(row.owner, row.renewed_us, now):
                return None
        elif row.expires_us <= now:
            return None
        if row.fingerprint != fingerprint:
            return Claim(Standing.OTHER)
        if row.state == _RUNNING:
            return Claim(Standing.RUNNING, row.request_id)
        try:
            content = self._cipher.open(row.content or b"", _place(row.key_id, row.name))
        except Unsealable:
            return Claim(Standing.UNKEPT, row.request_id)
        return Claim(Standing.ANSWERED, row.request_id, content)

    async def _summed(self) -> dict[str, int]:
        async with reading(self._database) as session:
            found = await session.execute(select(_claims.key_id, func.sum(_claims.size)).group_by(_claims.key_id))
            return {key_id: int(size or 0) for key_id, size in found}

    def _spec(self) -> RepetitionSpec:
        return _spec(self._premises)


class Cache:
    """The response cache and its hits."""

    def __init__(self, premises: Premises, together: Together) -> None:
        self._premises = premises
        self._together = together
        self._database = premises.database
        self._cipher = Cipher(premises.pepper)

    async def find(self, key_id: str, digest: bytes) -> CachedAnswer | None:
        """See ``CACHED``."""
        now, row = _now_us(), await whole(self._row(key_id, digest))
        if row is None or row.expires_us <= now:
            return None
        try:
            content = self._cipher.open(row.content, _place(key_id, digest, "cache"))
        except Unsealable:
            return None
        ttl = round((row.expires_us - row.kept_us) / 1e6)
        return CachedAnswer(row.request_id, max(0.0, (now - row.kept_us) / 1e6), ttl, content)

    async def keep(self, key_id: str, digest: bytes, request_id: bytes, ttl_s: int, content: bytes) -> bool:
        """See ``CACHE``. The oldest answers of the key make room."""
        sealed = self._cipher.seal(content, _place(key_id, digest, "cache"))
        most = _spec(self._premises).cache_bytes
        if len(sealed) > most:
            return False
        now = _now_us()
        row = CachedAnswerRow(
            key_id=key_id,
            digest=digest,
            request_id=request_id,
            kept_us=now,
            expires_us=now + ttl_s * 1_000_000,
            size=len(sealed),
            content=sealed,
        )
        return await self._together.write(lambda session: self._keep(session, row, most))

    async def clear(self, key_id: str, digest: bytes) -> bool:
        """See ``CLEAR``."""
        mine = (_cached.key_id == key_id, _cached.digest == digest)
        return await self._together.write(lambda session: _run(session, delete(CachedAnswerRow).where(*mine))) == 1

    async def hits(self, hits: Sequence[CacheHit]) -> int:
        """See ``HITS``."""
        return await self._together.write(lambda session: self._hits(session, hits))

    async def hit(self, request_id: bytes) -> CacheHit | None:
        """See ``HIT``."""
        async with reading(self._database) as session:
            row = await session.get(CacheHitRow, request_id)
        return None if row is None else CacheHit(row.request_id, row.source_id, row.key_id, row.team)

    async def expire(self) -> None:
        """Delete answers whose time is over, and hits as old as the ledger may be."""
        await expire(self._database, CachedAnswerRow, _cached.expires_us)
        config = self._premises.config()
        days = config.retention.ledger_days if config is not None else 400
        await expire(self._database, CacheHitRow, _hits.at_us, until=_now_us() - days * _DAY_US)
        hours = (config.retention if config is not None else RetentionSpec()).hour_days * 24
        await expire(self._database, CacheHitHour, _hit_hours.hour, until=_now_us() // _HOUR_US - hours)

    async def _keep(self, session: AsyncSession, row: CachedAnswerRow, most: int) -> bool:
        """Put ``row`` in its place and make room for it in ``most`` bytes."""
        mine = _cached.key_id == row.key_id
        await session.execute(delete(CachedAnswerRow).where(mine, _cached.digest == row.digest))
        sizes = select(_cached.digest, _cached.size).where(mine).order_by(_cached.kept_us.desc())
        left, gone = most - row.size, []
        for other, size in await session.execute(sizes):
            left -= size
            if left < 0:
                gone.append(other)
        for start in range(0, len(gone), SLICE):
            some = gone[start : start + SLICE]
            await session.execute(delete(CachedAnswerRow).where(mine, _cached.digest.in_(some)))
        session.add(row)
        return True

    async def _row(self, key_id: str, digest: bytes) -> CachedAnswerRow | None:
        async with reading(self._database) as session:
            return await session.get(CachedAnswerRow, (key_id, digest))

    async def _hits(self, session: AsyncSession, hits: Sequence[CacheHit]) -> int:
        rows = {each.request_id: each for each in hits}
        for known in await session.scalars(select(_hits.request_id).where(_hits.request_id.in_(list(rows)))):
            del rows[known]
        now = _now_us()
        session.add_all(
            CacheHitRow(
                request_id=each.request_id, source_id=each.source, key_id=each.key_id, team=each.team, at_us=now
            )
            for each in rows.values()
        )
        await _count(session, rows.values())
        return len(rows)


async def _count(session: AsyncSession, hits: Iterable[CacheHit]) -> None:
    """Add hits to those of their hours; this runs in a writing unit, so nobody else adds meanwhile."""
    added = Counter((ids.hour(each.request_id), each.team, each.key_id, each.model, each.provider) for each in hits)
    for key, count in sorted(added.items()):
        row = await session.get(CacheHitHour, key)
        if row is None:
            hour, team, key_id, model, provider = key
            row = CacheHitHour(hour=hour, team=team, key_id=key_id, model=model, provider=provider, hits=0)
            session.add(row)
        row.hits += count


async def _run(session: AsyncSession, statement: Any) -> int:
    """Execute ``statement`` and return how many rows it concerned."""
    result: Any = await session.execute(statement)
    return int(result.rowcount)


def _mine(key_id: str, name: bytes, request_id: bytes) -> tuple[Any, ...]:
    """Return what is true of the claim of a request."""
    return _claims.key_id == key_id, _claims.name == name, _claims.request_id == request_id


def _spec(premises: Premises) -> RepetitionSpec:
    config = premises.config()
    return config.repetition if config is not None else RepetitionSpec()


def _place(key_id: str, name: bytes, kind: str = "repetition") -> bytes:
    """Return what a sealed record is bound to."""
    return f"{kind}:{key_id}:".encode() + name


def _now_us() -> int:
    return time.time_ns() // 1_000
