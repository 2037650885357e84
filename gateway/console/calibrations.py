"""Calibrations of backends: at most one runs for each, over all hosts; the last result is kept for every worker.

The process that runs one tells when it ends. One that is not heard of for three minutes died and counts no more.
Errors are those of the unit of work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from secrets import token_hex
from typing import Any, Final

import msgspec
from sqlmodel import select

from gateway.console.question import (
    BEGIN_CALIBRATION,
    CALIBRATIONS,
    END_CALIBRATION,
    Calibration,
    Measured,
)
from gateway.db.engine import Database
from gateway.db.office import Office, Premises
from gateway.db.tables.operator import CalibrationRow
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing
from gateway.types.actor import ACTING
from gateway.types.errors import Conflict

FRESH_S: Final = 1.5
"""Seconds for which a list of a shared database holds."""


def open_office(premises: Premises) -> Office:
    """Return the office of calibrations."""
    book = Calibrations(premises.database)
    return Office({CALIBRATIONS: book.all, BEGIN_CALIBRATION: book.begin, END_CALIBRATION: book.end})


class Calibrations:
    """The repository of calibrations."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: tuple[float, tuple[Calibration, ...]] | None = None

    async def all(self) -> Sequence[Calibration]:
        """See ``CALIBRATIONS``."""
        known = self._known
        # Every worker asks every few seconds; only a server's database has other hosts that change it.
        if known is None or (self._database.partitioned and time.monotonic() - known[0] > FRESH_S):
            async with reading(self._database) as session:
                found = tuple(_told(row) for row in await session.scalars(select(CalibrationRow)))
            self._known = known = (time.monotonic(), found)
        return known[1]

    async def begin(self, backend: str) -> str:
        """See ``BEGIN_CALIBRATION``. Raises ``Conflict``."""
        now = time.time_ns() // 1_000
        async with writing(self._database) as session:
            row = await session.get(CalibrationRow, backend)
            if row is not None and _told(row).runs(now):
                raise Conflict(f"{backend} is being calibrated: wait until that has ended", retry_after=10.0)
            if row is None:
                row = CalibrationRow(backend=backend, run_id="", who="", began_us=0)
                session.add(row)
            row.run_id, row.who, row.began_us = token_hex(8), ACTING.get().name, now
            row.ended_us, row.problem, row.result = None, "", ""
            run_id = row.run_id
            await note(session, "calibration", backend, {"running": False}, {"running": True})
        self._known = None
        return run_id

    async def end(self, backend: str, run_id: str, problem: str, measured: Measured | None) -> None:
        """See ``END_CALIBRATION``; a run that another one took the place of changes nothing."""
        async with writing(self._database) as session:
            row = await session.get(CalibrationRow, backend)
            if row is None or row.run_id != run_id or row.ended_us is not None:
                return
            row.ended_us, row.problem = time.time_ns() // 1_000, problem[:300]
            row.result = "" if measured is None else msgspec.json.encode(measured).decode()
            await note(session, "calibration", backend, {"running": True}, _gist(row.problem, measured))
        self._known = None


def _told(row: CalibrationRow) -> Calibration:
    try:
        measured = msgspec.json.decode(row.result, type=Measured) if row.result else None
    except msgspec.ValidationError:  # of another version
        measured = None
    return Calibration(row.backend, row.run_id, row.who, row.began_us, row.ended_us, row.problem, measured)


def _gist(problem: str, measured: Measured | None) -> dict[str, Any]:
    """Return what the audit log keeps of a run that has ended."""
    if measured is None:
        return {"running": False, "problem": problem}
    names = ("model", "before", "after", "base", "rate", "step")
    return {"running": False} | {name: getattr(measured, name) for name in names}
