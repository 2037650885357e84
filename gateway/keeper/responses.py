"""Kept responses in the database: turns of conversations, sealed, each with a lifetime.

Turns that come while others are being written are written together. A turn of another key, one that has expired and one
that cannot be opened any more, because the secret changed, are not there. Errors are those of a unit of work.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import msgspec
from sqlalchemy import delete, func, literal, select

from gateway.config.snapshot import ResponsesSpec
from gateway.db.cipher import Cipher, Unsealable
from gateway.db.office import Premises
from gateway.db.tables.response import EVENTS, RUNS, ResponseRow
from gateway.db.unit_of_work import reading, writing
from gateway.telemetry import logs
from gateway.types.errors import BadRequest
from gateway.types.responses import MOST_BYTES, MOST_TURNS, NewTurn, Turn

SLICE: Final = 200
"""Rows deleted in one transaction."""
MOST_TOGETHER: Final = 256
"""Turns written in one transaction."""

_rows: Final[Any] = ResponseRow.__table__.c  # type: ignore[attr-defined]  # SQLModel does not declare it
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Turn).decode
_log: Final = logs.logger(__name__)


class Turns:
    """Turns in the database."""

    def __init__(self, premises: Premises) -> None:
        self._premises = premises
        self._database = premises.database
        self._cipher = Cipher(premises.pepper)
        self._waiting: list[tuple[ResponseRow, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, new: NewTurn) -> bool:
        """See ``KEEP``. Keeping a turn again changes nothing."""
        row = self.row(new)
        if row is None:
            return False
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        self._waiting.append((row, written))
        if self._writing is None or self._writing.done():
            self._writing = loop.create_task(self._write())
        await written
        return True

    def row(self, new: NewTurn) -> ResponseRow | None:
        """Return what a turn is kept as, or None when it is not: nothing is, or it is too large."""
        spec = self._spec()
        if not spec.store or len(new.turn.items) + len(new.turn.response) > MOST_BYTES:
            return None
        sealed = self._cipher.seal(_encode(new.turn), place(new.key_id, new.request_id))
        return ResponseRow(
            request_id=new.request_id,
            key_id=new.key_id,
            previous=new.previous,
            expires_us=_now_us() + int(spec.lifetime_s * 1e6),
            size=len(sealed),
            content=sealed,
        )

    async def find(self, key_id: str, request_id: bytes) -> Turn | None:
        """See ``FIND``."""
        known = (_rows.request_id == request_id, _rows.key_id == key_id, _rows.expires_us > _now_us())
        async with reading(self._database) as session:
            sealed = await session.scalar(select(_rows.content).where(*known))
        return None if sealed is None else self._opened(sealed, key_id, request_id)

    async def conversation(self, key_id: str, request_id: bytes) -> list[Turn] | None:
        """See ``CONVERSATION``."""
        ours = (_rows.key_id == key_id, _rows.expires_us > _now_us())
        columns = (_rows.request_id, _rows.previous, _rows.size)
        chain = select(*columns, literal(0).label("depth")).where(_rows.request_id == request_id, *ours)
        walk = chain.cte("walk", recursive=True)
        further = select(*columns, walk.c.depth + 1).where(
            _rows.request_id == walk.c.previous, *ours, walk.c.depth < MOST_TURNS
        )
        walk = walk.union_all(further)
        async with reading(self._database) as session:
            found = (await session.execute(select(walk).order_by(walk.c.depth.desc()))).all()
            if len(found) > MOST_TURNS or sum(row.size for row in found) > MOST_BYTES:
                raise BadRequest(
                    f"the conversation has become too long to go on with: over {MOST_TURNS} turns, or over "
                    f"{MOST_BYTES >> 20} MiB; send what is needed of it as input",
                    param="previous_response_id",
                )
            if not found or found[0].previous is not None:
                return [] if found else None
            wanted = [row.request_id for row in found]
            contents = await session.execute(
                select(_rows.request_id, _rows.content).where(_rows.request_id.in_(wanted))
            )
            sealed = {row.request_id: row.content for row in contents}
        turns = [self._opened(sealed[each], key_id, each) for each in wanted]
        whole = [turn for turn in turns if turn is not None]
        return whole if len(whole) == len(turns) else []

    async def forget(self, key_id: str, request_id: bytes) -> bool:
        """See ``FORGET``. A run ends with its response."""
        async with writing(self._database) as session:
            gone = await session.execute(
                delete(ResponseRow).where(
                    _rows.request_id == request_id, _rows.key_id == key_id, _rows.expires_us > _now_us()
                )
            )
            known = bool(getattr(gone, "rowcount", 0))
            for table in (RUNS, EVENTS) if known else ():
                await session.execute(delete(table).where(table.c.request_id == request_id))
        return known

    async def expire(self) -> None:
        """Delete turns whose time is over, and the oldest of keys that have too much."""
        await self._delete(_rows.expires_us <= _now_us())
        async with writing(self._database) as session:
            await session.execute(delete(EVENTS).where(EVENTS.c.expires_us <= _now_us()))
        most = self._spec().most_bytes
        async with reading(self._database) as session:
            sums = select(_rows.key_id, func.sum(_rows.size)).group_by(_rows.key_id)
            full = {key_id: int(size) - most for key_id, size in await session.execute(sums) if size > most}
        for key_id, excess in full.items():
            await self._make_room(key_id, excess)

    async def _make_room(self, key_id: str, excess: int) -> None:
        """Delete the oldest turns of a key until ``excess`` bytes have gone."""
        async with reading(self._database) as session:
            oldest = await session.stream(
                select(_rows.request_id, _rows.size).where(_rows.key_id == key_id).order_by(_rows.request_id)
            )
            last = b""
            async for row in oldest:
                last, excess = row.request_id, excess - row.size
                if excess <= 0:
                    break
        await self._delete((_rows.key_id == key_id) & (_rows.request_id <= last))
        _log.warning("responses_made_room", key_id=key_id)

    async def _delete(self, which: Any) -> None:
        """Delete the rows that ``which`` is true of, in slices."""
        while True:
            some = select(_rows.request_id).where(which).limit(SLICE).scalar_subquery()
            async with writing(self._database) as session:
                gone = await session.execute(delete(ResponseRow).where(_rows.request_id.in_(some)))
            if getattr(gone, "rowcount", 0) < SLICE:
                return

    async def _write(self) -> None:
        """Write what waits until nothing does."""
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
            error: Exception | None = None
            try:
                await self._insert({row.request_id: row for row, _ in batch})
            except Exception as failed:  # noqa: BLE001 - every one who waits is told, whatever it was
                error = failed
            for _, written in batch:
                if not written.done():
                    written.set_result(None) if error is None else written.set_exception(error)

    async def _insert(self, rows: dict[bytes, ResponseRow]) -> None:
        """Write rows. What is known already was kept by a call whose answer got lost."""
        async with writing(self._database) as session:
            known = await session.scalars(select(_rows.request_id).where(_rows.request_id.in_(list(rows))))
            for request_id in known:
                del rows[request_id]
            session.add_all(rows.values())

    def _opened(self, sealed: bytes, key_id: str, request_id: bytes) -> Turn | None:
        try:
            return _decode(self._cipher.open(sealed, place(key_id, request_id)))
        except Unsealable:
            _log.warning("response_unsealable", request_id=request_id.hex())
            return None

    def _spec(self) -> ResponsesSpec:
        config = self._premises.config()
        return ResponsesSpec() if config is None else config.responses


def place(key_id: str, request_id: bytes) -> bytes:
    """Return what a turn is sealed for."""
    return b"response:%s:%s" % (key_id.encode(), request_id)


def _now_us() -> int:
    return time.time_ns() // 1000
