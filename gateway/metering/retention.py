"""Lifetimes: the ledger, the hourly rollup and segments in quarantine go when they are old enough.

Rows of a ledger day are in the rollups since the transaction that inserted them, so dropping the day loses no sum:
days, totals and bills stay for ever. From which day on the ledger is whole is written down (``first_day``) before
anything is deleted. Older rows are refused from then on, because nobody could tell any more whether they were counted:
the shipper puts their segment into quarantine, and nothing is dropped unseen.

What went does not come back, so the day of now is believed only as far as it is likely. The last one that was believed
is written down; a clock that is more than ``LEAP`` days from it is believed after it has said so for ``DOUBT_S``
seconds of work, in which no other host over the same database has said anything else. Until then nothing goes.

On PostgreSQL a day goes by dropping its partition, which waits at most ``_LOCK_WAIT`` for readers, else until the next
turn; the partitions of the next days are made ahead. On SQLite rows go in slices of ``SLICE``, each a transaction of
its own. A turn that was broken off is gone on with by the next one. Errors are those of a unit of work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import select

from gateway.config.snapshot import RetentionSpec
from gateway.db.bulk import Answer, Bulk, bulk
from gateway.db.engine import Database
from gateway.db.office import Duty, Office, Premises
from gateway.db.tables.lifetime import CLOCK, Lifetime
from gateway.db.unit_of_work import writing
from gateway.metering.segments import QUARANTINE, SUFFIX
from gateway.telemetry import logs
from gateway.types.errors import BadRequest

EVERY_S: Final = 600.0
SLICE: Final = 2_000
"""Rows deleted in one transaction."""
LEAP: Final = 8
"""Days that a clock may have moved since the last turn without being doubted."""
DOUBT_S: Final = 90_000.0
"""Seconds for which a clock is doubted: somebody is to hear of it, and any other host's look ends the doubt."""
AHEAD: Final = 3
"""Days, today among them, whose partitions are there before their first row."""
LEDGER: Final = "ledger"
HOURS: Final = "usage_hour"
DOUBT: Final = "clock_doubt"
"""Subject of the seconds for which the clock has been doubted."""
JOURNAL: Final = "journal"
_LOCK_WAIT: Final = "2s"
_DAY_S: Final = 86_400
_KEEP: Final = text(
    "INSERT INTO lifetime (subject, first_day) VALUES (:subject, :value)"
    " ON CONFLICT (subject) DO UPDATE SET first_day = excluded.first_day"
)

log: Final = logs.logger(__name__)


class Expired(BadRequest):
    """Rows are older than the ledger.

    Attributes:
        first_day: the first UTC day that the ledger still has.
    """

    def __init__(self, first_day: int) -> None:
        begin = _date(first_day)
        super().__init__(f"the ledger begins with {begin}: what is older is no longer kept (retention.ledger_days)")
        self.first_day = first_day


def ask_first_day(connection: Bulk, subject: str = LEDGER) -> Answer:
    """Ask for the first day of which all rows of ``subject`` are there: one row, or none where there is no limit.

    Once answered it stays so until the transaction ends.
    """
    query = f"SELECT first_day FROM lifetime WHERE subject = ?{connection.FOR_SHARE}"  # noqa: S608 - a constant
    return connection.ask(query, (subject,))


async def lifetimes(session: AsyncSession) -> dict[str, int]:
    """Return the first day that is whole, by subject."""
    return {row.subject: row.first_day for row in await session.scalars(select(Lifetime))}


def _date(day: int) -> str:
    return str(datetime.fromtimestamp(day * _DAY_S, UTC).date())


class Retention:
    """Lets go what is old.

    Args:
        database: with ledger and rollups.
        journal: folder of the journal's segments.
        spec: returns the lifetimes of now.
        today: returns the UTC day of now, counted from 1970.
        elapsed: returns seconds that no clock of the wall moves.
    """

    def __init__(
        self,
        database: Database,
        journal: Path,
        spec: Callable[[], RetentionSpec],
        today: Callable[[], int] = lambda: int(time.time()) // _DAY_S,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._journal = journal
        self._spec = spec
        self._today = today
        self._elapsed = elapsed
        self._looked: float | None = None

    async def turn(self) -> None:
        """Make room ahead and let go what is too old by now. Raises ``Unavailable``."""
        spec, today = self._spec(), self._today()
        if not await self._believes(today):
            return
        if self._database.partitioned:
            async with bulk(self._database) as connection:
                await connection.make_room(LEDGER, range(today, today + AHEAD))
        await self._expire(LEDGER, today - spec.ledger_days, today)
        await self._expire(HOURS, today - spec.hour_days, today)
        if spec.quarantine_days is not None:
            await asyncio.to_thread(self._empty_quarantine, spec.quarantine_days)

    async def _believes(self, today: int) -> bool:
        """Whether this is the day. What is known of it is written down, so that a restart forgets no doubt."""
        now = self._elapsed()
        passed, self._looked = now - (now if self._looked is None else self._looked), now
        async with writing(self._database) as session:
            found = await lifetimes(session)
            known = found.get(CLOCK)
            if known is None:  # a database from before days were written down: its newest row tells
                known = await session.scalar(text("SELECT MAX(day) FROM ledger"))
            strange = known is not None and abs(today - known) > LEAP
            doubted = found.get(DOUBT, 0) + round(passed) if strange else 0
            believed = not strange or doubted >= DOUBT_S
            await session.execute(_KEEP, {"subject": DOUBT, "value": 0 if believed else doubted})
            if believed:
                await session.execute(_KEEP, {"subject": CLOCK, "value": today})
        if not believed:
            left = round(DOUBT_S - doubted)
            log.error("clock_doubted", day=_date(today), last_believed=_date(known), believed_in_s=left)
        return believed

    async def _expire(self, subject: str, first: int, today: int) -> None:
        """Let go the days of ``subject`` before ``first``."""
        async with writing(self._database) as session:
            # A lifetime that was made longer brings nothing back. But a day that is still far away was written by a
            # wrong clock, and as long as it stands everything is too old for the books.
            moved = await session.execute(
                text(
                    "UPDATE lifetime SET first_day = CASE WHEN first_day > :far THEN :today ELSE :first END"
                    " WHERE subject = :subject AND (first_day < :first OR first_day > :far)"
                ),
                {"first": first, "today": today, "far": today + LEAP, "subject": subject},
            )
            kept = await session.scalar(text("SELECT first_day FROM lifetime WHERE subject = :s"), {"s": subject})
        first = min(first, int(kept or 0))
        if subject == HOURS:
            gone = await self._delete_hours(first * 24)
        elif self._database.partitioned:
            gone = await self._drop_days(first)
        else:
            gone = await self._delete_rows(first)
        if gone or getattr(moved, "rowcount", 0):
            log.info("books_expired", subject=subject, first_day=first, gone=gone)

    async def _drop_days(self, first: int) -> int:
        """Drop the partitions of days before ``first``, each in a transaction of its own; return how many."""
        async with bulk(self._database) as connection:
            days = [day for day in await connection.rooms(LEDGER) if day < first]
        for day in days:
            async with bulk(self._database) as connection:
                await connection.run(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
                await connection.drop_room(LEDGER, day)
        return len(days)

    async def _delete_rows(self, first: int) -> int:
        """Delete ledger rows of days before ``first`` in slices; return how many."""
        gone = 0
        while True:
            async with bulk(self._database) as connection:
                last = await connection.read(
                    "SELECT day, request_id FROM ledger WHERE day < ? ORDER BY day, request_id LIMIT 1 OFFSET ?",
                    (first, SLICE),
                )
                day, request_id = last[0] if last else (first, b"")
                deleted = await connection.write(
                    "DELETE FROM ledger WHERE day < ? AND (day, request_id) < (?, ?)", [(first, day, request_id)]
                )
            gone += deleted
            if not last:
                return gone

    async def _delete_hours(self, first: int) -> int:
        """Delete hourly sums before the hour ``first``, hour by hour; return how many."""
        gone = 0
        while True:
            async with bulk(self._database) as connection:
                hours = await connection.read("SELECT MIN(hour) FROM usage_hour WHERE hour < ?", (first,))
                if hours[0][0] is None:
                    return gone
                gone += await connection.write("DELETE FROM usage_hour WHERE hour = ?", [(hours[0][0],)])

    def _empty_quarantine(self, days: float) -> None:
        """Delete segments that were put aside longer than ``days`` ago."""
        oldest = time.time() - days * _DAY_S
        for path in (self._journal / QUARANTINE).glob(f"*{SUFFIX}"):
            try:
                if path.stat().st_ctime < oldest:
                    path.unlink()
                    log.warning("quarantine_expired", segment=path.name)
            except FileNotFoundError:
                continue


def open_office(premises: Premises) -> Office:
    """Return the office that lets go what is old."""

    def spec() -> RetentionSpec:
        snapshot = premises.config()
        return RetentionSpec() if snapshot is None else snapshot.retention

    retention = Retention(premises.database, premises.home / JOURNAL, spec)
    return Office({}, (Duty("retention", EVERY_S, retention.turn),))
