"""The office of prompts and answers that teams want stored: sealed, for as long as was chosen, deleted on request.

Whether a request is stored is decided here, by what is chosen at that moment; a worker may be a moment behind. Errors
are those of a unit of work.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.config.snapshot import ContentSpec
from gateway.db.cipher import Cipher, Unsealable
from gateway.db.office import Duty, LastAnswer, Office, Premises
from gateway.db.tables.access import KeyRow, TeamRow
from gateway.db.tables.repetition import CachedAnswerRow, ContentChoiceRow, ContentRow, RepetitionRow
from gateway.db.tables.response import EVENTS, RUNS, ResponseRow
from gateway.db.unit_of_work import reading, writing
from gateway.keeper.expiry import expire, whole
from gateway.keeper.together import Together
from gateway.types.content import (
    CHOICES,
    CHOOSE,
    CONTENT,
    FORGET,
    FORGET_ONE,
    STORE,
    UNCHOOSE,
    ContentChoice,
    StoredContent,
    chosen,
)
from gateway.types.errors import BadRequest, NotFound

EXPIRE_S: Final = 60.0
SHARED_EVERY_S: Final = 2.0
LONGEST_DAYS: Final = 3650
_DAY_US: Final = 86_400_000_000

_content: Final[Any] = ContentRow.__table__.c  # type: ignore[attr-defined]  # SQLModel does not declare it
_claims: Final[Any] = RepetitionRow.__table__.c  # type: ignore[attr-defined]  # as above
_cached: Final[Any] = CachedAnswerRow.__table__.c  # type: ignore[attr-defined]  # as above
_RESPONSES: Final[tuple[Any, ...]] = (ResponseRow.__table__, EVENTS, RUNS)  # type: ignore[attr-defined]  # as above
"""What the Responses API keeps; a run without its row ends."""
_key: Final[Any] = KeyRow.__table__.c  # type: ignore[attr-defined]  # as above
_team: Final[Any] = TeamRow.__table__.c  # type: ignore[attr-defined]  # as above
_choice: Final[Any] = ContentChoiceRow.__table__.c  # type: ignore[attr-defined]  # as above


def open_office(premises: Premises) -> Office:
    """Return the office of stored prompts and answers."""
    archive = Archive(premises)
    choices = LastAnswer(CHOICES, archive.choices)
    duties = [Duty("stored prompts and answers expire", EXPIRE_S, archive.expire)]
    if premises.database.partitioned:
        duties.append(Duty("look for choices of other hosts", SHARED_EVERY_S, archive.look))
    return Office(
        handlers={
            STORE: archive.store,
            CONTENT: archive.find,
            FORGET_ONE: archive.forget_one,
            FORGET: archive.forget,
            CHOICES: choices,
            CHOOSE: archive.choose,
            UNCHOOSE: archive.unchoose,
        },
        duties=tuple(duties),
        lasting=(choices.lasting(),),
    )


class Archive:
    """What is stored, and what was chosen."""

    def __init__(self, premises: Premises) -> None:
        self._premises = premises
        self._database = premises.database
        self._cipher = Cipher(premises.pepper)
        self._together = Together(premises.database)
        self._looking = asyncio.Lock()
        self._choices: tuple[ContentChoice, ...] | None = None

    async def store(self, request_id: bytes, key_id: str, team: str, content: bytes) -> bool:
        """See ``STORE``."""
        spec = self._spec()
        choice = chosen(await self.choices(), team, key_id)
        if not (spec.store if choice is None else choice.store):
            return False
        days = spec.days if choice is None or choice.days is None else choice.days
        sealed = self._cipher.seal(content, _place(request_id))
        row = ContentRow(
            request_id=request_id,
            key_id=key_id,
            team=team,
            expires_us=time.time_ns() // 1_000 + days * _DAY_US,
            size=len(sealed),
            content=sealed,
        )

        async def add(session: AsyncSession) -> bool:
            if await session.get(ContentRow, request_id) is None:
                session.add(row)
            return True

        return await self._together.write(add)

    async def find(self, request_id: bytes) -> StoredContent | None:
        """See ``CONTENT``."""
        async with reading(self._database) as session:
            row = await session.get(ContentRow, request_id)
        if row is None or row.expires_us <= time.time_ns() // 1_000:
            return None
        try:
            content = self._cipher.open(row.content, _place(request_id))
        except Unsealable:
            return None
        return StoredContent(row.key_id, row.team, content)

    async def forget_one(self, request_id: bytes) -> bool:
        """See ``FORGET_ONE``."""

        async def forget() -> bool:
            async with writing(self._database) as session:
                gone: Any = await session.execute(delete(ContentRow).where(_content.request_id == request_id))
                await session.execute(delete(RepetitionRow).where(_claims.request_id == request_id, _claims.state != 0))
                await session.execute(delete(CachedAnswerRow).where(_cached.request_id == request_id))
                for table in _RESPONSES:
                    await session.execute(delete(table).where(table.c.request_id == request_id))
                return int(gone.rowcount) > 0

        return await whole(forget())

    async def forget(self, team: str, key_id: str) -> int:
        """See ``FORGET``."""

        async def forget() -> int:
            async with writing(self._database) as session:
                keys = [key_id] if key_id else select(_key.key_id).where(_key.team == team)
                mine = [_content.team == team, *([_content.key_id == key_id] if key_id else [])]
                count = await session.scalar(select(func.count()).select_from(ContentRow).where(*mine)) or 0
                await session.execute(delete(ContentRow).where(*mine))
                await session.execute(delete(RepetitionRow).where(_claims.key_id.in_(keys), _claims.state != 0))
                await session.execute(delete(CachedAnswerRow).where(_cached.key_id.in_(keys)))
                for table in _RESPONSES:
                    await session.execute(delete(table).where(table.c.key_id.in_(keys)))
                return count

        await self._check(team, key_id)
        return await whole(forget())

    async def choices(self) -> tuple[ContentChoice, ...]:
        """See ``CHOICES``."""
        if self._choices is None:
            await self.look()
        return self._choices or ()

    async def look(self) -> None:
        """Learn what was chosen; one look at a time, so that an earlier one does not undo a later one."""
        async with self._looking, reading(self._database) as session:
            rows = await session.scalars(select(ContentChoiceRow).order_by(_choice.team, _choice.key_id))
            self._choices = tuple(ContentChoice(row.team, row.key_id, row.store, row.days) for row in rows)

    async def choose(self, choice: ContentChoice) -> tuple[ContentChoice, ...]:
        """See ``CHOOSE``. Raises ``BadRequest`` or ``NotFound``."""
        if choice.days is not None and not 1 <= choice.days <= LONGEST_DAYS:
            raise BadRequest(f"days is 1 to {LONGEST_DAYS}", param="days")
        await self._check(choice.team, choice.key_id)

        async def choose() -> None:
            async with writing(self._database) as session:
                row = ContentChoiceRow(team=choice.team, key_id=choice.key_id, store=choice.store, days=choice.days)
                await session.merge(row)
            await self.look()

        await whole(choose())
        return await self.choices()

    async def unchoose(self, team: str, key_id: str) -> tuple[ContentChoice, ...]:
        """See ``UNCHOOSE``."""

        async def unchoose() -> None:
            async with writing(self._database) as session:
                mine = (_choice.team == team, _choice.key_id == key_id)
                await session.execute(delete(ContentChoiceRow).where(*mine))
            await self.look()

        await whole(unchoose())
        return await self.choices()

    async def expire(self) -> None:
        """Delete what is too old."""
        await expire(self._database, ContentRow, _content.expires_us)

    async def _check(self, team: str, key_id: str) -> None:
        """Raise ``NotFound`` unless there is the team, and the key in it."""
        async with reading(self._database) as session:
            if await session.scalar(select(_team.slug).where(_team.slug == team)) is None:
                raise NotFound("no such team", param="team")
            if not key_id:
                return
            owner = await session.scalar(select(_key.team).where(_key.key_id == key_id))
            if owner != team:
                raise NotFound("no such key in this team", param="key_id")

    def _spec(self) -> ContentSpec:
        config = self._premises.config()
        return config.content if config is not None else ContentSpec()


def _place(request_id: bytes) -> bytes:
    """Return what a sealed record is bound to."""
    return b"content:" + request_id
