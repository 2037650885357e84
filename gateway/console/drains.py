"""Backends that operators want no new requests on: kept by the keeper, so that every worker and every start knows.

Errors are those of the unit of work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from sqlalchemy import delete
from sqlmodel import col, select

from gateway.console.question import DRAIN, DRAINED
from gateway.db.engine import Database
from gateway.db.office import LastAnswer, Office, Premises
from gateway.db.tables.console import BackendDrain
from gateway.db.trail import note
from gateway.db.unit_of_work import reading, writing

FRESH_S: Final = 1.5
"""Seconds for which a list of a shared database holds."""


def open_office(premises: Premises) -> Office:
    """Return the office of drained backends."""
    drains = Drains(premises.database)
    drained = LastAnswer(DRAINED, drains.drained)
    return Office({DRAINED: drained, DRAIN: drains.drain}, lasting=(drained.lasting(),))


class Drains:
    """The repository of drained backends."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: tuple[float, tuple[str, ...]] | None = None

    async def drained(self) -> Sequence[str]:
        """See ``DRAINED``."""
        known = self._known
        # Every worker asks every few seconds; only a server's database has other hosts that change it.
        if known is None or (self._database.partitioned and time.monotonic() - known[0] > FRESH_S):
            async with reading(self._database) as session:
                names = tuple(await session.scalars(select(BackendDrain.backend)))
            self._known = known = (time.monotonic(), names)
        return known[1]

    async def drain(self, backend: str, drained: bool) -> None:
        """See ``DRAIN``."""
        async with writing(self._database) as session:
            known = await session.get(BackendDrain, backend) is not None
            if known == drained:
                return
            if drained:
                session.add(BackendDrain(backend=backend, since_us=time.time_ns() // 1_000))
            else:
                await session.execute(delete(BackendDrain).where(col(BackendDrain.backend) == backend))
            await note(session, "backend", backend, {"drained": known}, {"drained": drained})
        self._known = None
