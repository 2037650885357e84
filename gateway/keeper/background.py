"""The office of responses that are made in the background: see ``gateway.types.background``.

A run has a row for as long as it runs; the response itself is kept with the others (``gateway.keeper.responses``) and
changes with it. A run whose process has died is failed by whoever looks at it, and by the keeper in its rounds. Errors
are those of a unit of work.
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db.cipher import Cipher, Unsealable
from gateway.db.office import Duty, Office, Premises
from gateway.db.tables.background import BackgroundRow, ResponseEventRow
from gateway.db.tables.response import ResponseRow
from gateway.db.unit_of_work import reading, writing
from gateway.keeper.living import RENEW_S, Living
from gateway.keeper.responses import Turns, place
from gateway.keeper.together import Together
from gateway.telemetry import logs
from gateway.types.background import (
    BEGIN,
    CANCEL,
    EVENTS_S,
    FINISH,
    MOST_READ,
    PROGRESS,
    READ,
    RUNNING,
    Piece,
    Progress,
    Reading,
)
from gateway.types.responses import NewTurn, Turn

MOST_ROWS: Final = 64
"""Rows of events that are read at once."""
_LOST: Final = {"code": "server_error", "message": "the process that made this response ended before it was finished"}

_runs: Final[Any] = BackgroundRow.__table__.c  # type: ignore[attr-defined]  # SQLModel does not declare it
_rows: Final[Any] = ResponseRow.__table__.c  # type: ignore[attr-defined]  # as above
_events: Final[Any] = ResponseEventRow.__table__.c  # type: ignore[attr-defined]  # as above
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[Piece, ...]).decode
_log: Final = logs.logger(__name__)


def open_office(premises: Premises) -> Office:
    """Return the office of runs."""
    runs = Runs(premises, Turns(premises))
    return Office(
        {
            BEGIN: runs.begin,
            PROGRESS: runs.progress,
            FINISH: runs.finish,
            CANCEL: runs.cancel,
            READ: runs.read,
        },
        (Duty("background runs", RENEW_S, runs.tend),),
    )


class Runs:
    """Runs in the database; ``turns`` keeps their responses."""

    def __init__(self, premises: Premises, turns: Turns) -> None:
        self._database = premises.database
        self._cipher = Cipher(premises.pepper)
        self._living = Living(premises.home)
        self._turns = turns
        self._together = Together(premises.database)

    async def begin(self, new: NewTurn, writer: str, streamed: bool, begun: bool) -> bool:
        """See ``BEGIN``. Beginning a run again changes nothing."""
        row = self._turns.row(new)
        if row is None:
            return False
        run = BackgroundRow(
            request_id=new.request_id,
            key_id=new.key_id,
            owner=self._living.owner(writer),
            renewed_us=_now_us(),
            begun=begun,
            streamed=streamed,
        )

        async def work(session: AsyncSession) -> bool:
            if await session.get(ResponseRow, new.request_id) is None:
                session.add_all((row, run))
            return True

        return await self._together.write(work)

    async def progress(self, said: list[Progress]) -> list[bytes]:
        """See ``PROGRESS``. What was said before may be said again, with more behind it."""
        if any(each.pieces or each.begun for each in said):
            await self._together.write(lambda session: self._note(session, said))
        wanted = [each.request_id for each in said]
        async with reading(self._database) as session:
            found = await session.scalars(
                select(_runs.request_id).where(_runs.request_id.in_(wanted), _runs.cancelled.is_(False))
            )
            going = set(found)
        return [request_id for request_id in wanted if request_id not in going]

    async def finish(self, new: NewTurn, pieces: list[Piece]) -> bool:
        """See ``FINISH``. A run that was given up meanwhile is finished all the same."""
        row = self._turns.row(new)

        async def work(session: AsyncSession) -> bool:
            mine = (_runs.request_id == new.request_id, _runs.key_id == new.key_id)
            await session.execute(delete(BackgroundRow).where(*mine))
            known = await session.get(ResponseRow, new.request_id)
            if known is None or known.key_id != new.key_id:
                return False
            if row is None:  # too large, or nothing is kept any more
                await session.delete(known)
                return False
            known.content, known.size, known.expires_us = row.content, row.size, row.expires_us
            if pieces:
                await session.merge(self._sealed(new.request_id, new.key_id, tuple(pieces)))
            return True

        return await self._together.write(work)

    async def cancel(self, key_id: str, request_id: bytes) -> bool:
        """See ``CANCEL``."""
        mine = (_runs.request_id == request_id, _runs.key_id == key_id)
        async with writing(self._database) as session:
            found = await session.execute(update(BackgroundRow).where(*mine).values(cancelled=True))
        return bool(getattr(found, "rowcount", 0))

    async def now(self, turn: Turn, key_id: str, request_id: bytes) -> Turn | None:
        """Return a turn that was found, as it is now."""
        run = await self._run(request_id)
        if run is not None and not self._lives(run):
            await self._bury(run)
            run = None
        if run is None:
            return await self._turns.find(key_id, request_id)
        response = msgspec.json.decode(turn.response)
        if run.begun and response["status"] in RUNNING:
            response["status"] = "in_progress"
        return Turn(turn.items, msgspec.json.encode(response))

    async def read(self, key_id: str, request_id: bytes, after: int) -> Reading | None:
        """See ``READ``."""
        run = await self._run(request_id)
        if run is not None and not self._lives(run):
            await self._bury(run)
            run = None
        mine = (_rows.request_id == request_id, _rows.key_id == key_id, _rows.expires_us > _now_us())
        kept = (_events.request_id == request_id, _events.key_id == key_id, _events.expires_us > _now_us())
        async with reading(self._database) as session:
            if await session.scalar(select(_rows.request_id).where(*mine)) is None:
                return None
            further = select(ResponseEventRow).where(*kept, _events.last > after)
            rows = list(await session.scalars(further.order_by(_events.number).limit(MOST_ROWS)))
            streamed = bool(rows) or await session.scalar(select(_events.number).where(*kept).limit(1)) is not None
        pieces: list[Piece] = []
        size = 0
        for row in rows:
            if size > MOST_READ:
                break
            opened = [piece for piece in self._opened(row) if piece[0] > after]
            pieces += opened
            size += row.size
        running = run is not None
        return Reading(tuple(pieces), running, streamed or (run is not None and run.streamed))

    async def tend(self) -> None:
        """Say of the living processes of this host that they live, and fail the runs of those that do not."""
        async with reading(self._database) as session:
            runs = list(await session.scalars(select(BackgroundRow)))
        living = [run.request_id for run in runs if self._living.ours(run.owner) and self._lives(run)]
        if living and self._database.partitioned:
            async with writing(self._database) as session:
                await session.execute(
                    update(BackgroundRow).where(_runs.request_id.in_(living)).values(renewed_us=_now_us())
                )
        for run in runs:
            if not self._lives(run):
                await self._bury(run)

    async def _run(self, request_id: bytes) -> BackgroundRow | None:
        async with reading(self._database) as session:
            return await session.get(BackgroundRow, request_id)

    def _lives(self, run: BackgroundRow) -> bool:
        return self._living.lives(run.owner, run.renewed_us, _now_us())

    async def _note(self, session: AsyncSession, said: list[Progress]) -> None:
        begun = [each.request_id for each in said if each.begun]
        if begun:
            await session.execute(update(BackgroundRow).where(_runs.request_id.in_(begun)).values(begun=True))
        for each in said:
            if each.pieces:
                await session.merge(self._sealed(each.request_id, each.key_id, each.pieces))

    async def _bury(self, run: BackgroundRow) -> None:
        """Fail a run whose process has died, unless it was finished meanwhile."""
        turn = await self._turns.find(run.key_id, run.request_id)

        async def work(session: AsyncSession) -> None:
            gone = await session.execute(delete(BackgroundRow).where(_runs.request_id == run.request_id))
            known = await session.get(ResponseRow, run.request_id)
            if turn is None or known is None or not getattr(gone, "rowcount", 0):
                return
            response = msgspec.json.decode(turn.response) | {"status": "failed", "error": _LOST}
            new = NewTurn(run.request_id, run.key_id, None, Turn(turn.items, msgspec.json.encode(response)))
            row = self._turns.row(new)
            if row is not None:
                known.content, known.size = row.content, row.size

        await self._together.write(work)
        _log.warning("background_run_lost", request_id=run.request_id.hex())

    def _sealed(self, request_id: bytes, key_id: str, pieces: tuple[Piece, ...]) -> ResponseEventRow:
        number = pieces[0][0]
        sealed = self._cipher.seal(_encode(pieces), _stream(key_id, request_id, number))
        return ResponseEventRow(
            request_id=request_id,
            number=number,
            last=pieces[-1][0],
            key_id=key_id,
            expires_us=_now_us() + int(EVENTS_S * 1e6),
            size=len(sealed),
            content=sealed,
        )

    def _opened(self, row: ResponseEventRow) -> tuple[Piece, ...]:
        try:
            return _decode(self._cipher.open(row.content, _stream(row.key_id, row.request_id, row.number)))
        except Unsealable:
            _log.warning("response_unsealable", request_id=row.request_id.hex())
            return ()


def _stream(key_id: str, request_id: bytes, number: int) -> bytes:
    """Return what events are sealed for."""
    return place(key_id, request_id) + b":%d" % number


def _now_us() -> int:
    return time.time_ns() // 1000
