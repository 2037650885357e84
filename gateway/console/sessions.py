"""Sessions in the database: a random token in the browser, its SHA-256 here.

A session ends when it is idle for too long, when its time is over, when somebody signs out, and when its user is
switched off or gets another password. Its last use is written once a minute at most.
Errors are those of the unit of work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from secrets import token_urlsafe
from typing import Final

from sqlalchemy import delete, or_, update
from sqlmodel import col, select

from gateway.config.snapshot import ConsoleSpec
from gateway.console.question import Session, SessionInfo, SignedIn, User
from gateway.console.users import grants_of, user_of
from gateway.db.engine import Database
from gateway.db.tables.console import ConsoleGrant, ConsoleSession, ConsoleUser
from gateway.db.unit_of_work import reading, writing

SEEN_EVERY_US: Final = 60_000_000
_AGENT: Final = 200
_HANDLE: Final = 16


def digest_of(token: str) -> bytes:
    """Return what is kept of a token."""
    return sha256(token.encode()).digest()


class Sessions:
    """The repository of sessions.

    Args:
        database: where they are kept.
        spec: returns how long they live.
    """

    def __init__(self, database: Database, spec: Callable[[], ConsoleSpec]) -> None:
        self._database = database
        self._spec = spec

    async def begin(self, user: User, address: str, agent: str) -> SignedIn:
        """Sign ``user`` in."""
        token, now = token_urlsafe(32), _now_us()
        until = now + int(self._spec().session_s * 1_000_000)
        row = ConsoleSession(
            session_id=digest_of(token),
            user_id=user.user_id,
            created_at=now,
            seen_at=now,
            expires_at=until,
            address=address[:64],
            agent=agent[:_AGENT],
        )
        async with writing(self._database) as session:
            session.add(row)
            seen = update(ConsoleUser).where(col(ConsoleUser.user_id) == user.user_id)
            await session.execute(seen.values(seen_at=now))
        return SignedIn(token, Session(row.session_id, user, now, until))

    async def find(self, token: str) -> Session | None:
        """Return the session of ``token`` if it may still be used."""
        now = _now_us()
        async with reading(self._database) as session:
            query = (
                select(ConsoleSession, ConsoleUser, ConsoleGrant)
                .join(ConsoleUser, col(ConsoleUser.user_id) == col(ConsoleSession.user_id))
                .outerjoin(ConsoleGrant, col(ConsoleGrant.user_id) == col(ConsoleUser.user_id))
            )
            found = (await session.execute(query.where(col(ConsoleSession.session_id) == digest_of(token)))).all()
            if not found:
                return None
            row, person, _ = found[0]
            idle = row.seen_at + int(self._spec().idle_s * 1_000_000)
            if person.disabled or row.expires_at <= now or idle <= now:
                return None
            user = user_of(person, grants_of(grant for _, _, grant in found if grant is not None))
        if now - row.seen_at > SEEN_EVERY_US:
            await self._saw(row.session_id, user.user_id, now)
        return Session(row.session_id, user, row.created_at, row.expires_at)

    async def _saw(self, session_id: bytes, user_id: str, now: int) -> None:
        async with writing(self._database) as session:
            for seen in (
                update(ConsoleSession).where(col(ConsoleSession.session_id) == session_id),
                update(ConsoleUser).where(col(ConsoleUser.user_id) == user_id),
            ):
                await session.execute(seen.values(seen_at=now))

    async def end(self, token: str) -> None:
        """Sign out."""
        async with writing(self._database) as session:
            await session.execute(delete(ConsoleSession).where(col(ConsoleSession.session_id) == digest_of(token)))

    async def end_all(self, user_id: str) -> int:
        """Sign a user out everywhere; return how many sessions that were."""
        async with writing(self._database) as session:
            gone = await session.execute(
                delete(ConsoleSession)
                .where(col(ConsoleSession.user_id) == user_id)
                .returning(col(ConsoleSession.session_id))
            )
            return len(gone.all())

    async def of_user(self, user_id: str) -> Sequence[SessionInfo]:
        """Return a user's sessions, newest first."""
        query = select(ConsoleSession).where(col(ConsoleSession.user_id) == user_id)
        async with reading(self._database) as session:
            rows = await session.scalars(query.order_by(col(ConsoleSession.created_at).desc()))
            return tuple(
                SessionInfo(handle_of(row.session_id), row.created_at, row.seen_at, row.address, row.agent)
                for row in rows
            )

    async def end_one(self, user_id: str, handle: str) -> None:
        """End the session of a user with ``handle``; harmless when there is none."""
        async with writing(self._database) as session:
            rows = await session.scalars(select(ConsoleSession).where(col(ConsoleSession.user_id) == user_id))
            for row in rows:
                if handle_of(row.session_id) == handle:
                    await session.delete(row)

    async def sweep(self) -> None:
        """Forget sessions that are over."""
        now = _now_us()
        idle = now - int(self._spec().idle_s * 1_000_000)
        over = or_(col(ConsoleSession.expires_at) <= now, col(ConsoleSession.seen_at) <= idle)
        async with writing(self._database) as session:
            await session.execute(delete(ConsoleSession).where(over))


def handle_of(session_id: bytes) -> str:
    """Return what names a session in lists."""
    return session_id.hex()[:_HANDLE]


def _now_us() -> int:
    return time.time_ns() // 1_000
