"""The shipper: moves the ends of attempts from the journal into the ledger, each exactly once.

One per host, by a lock in the journal's folder. A batch is one transaction: ledger rows, rollups from the rows really
inserted, and the position reached in each segment. Whatever fails or is killed in between is repeated, and the
ledger's key makes the repetition harmless. While the database is away the journal grows and nothing is lost; ``run``
tries again for ever. A segment is deleted only when all of it is in the ledger and its writer is gone from it;
one that holds unreadable bytes is shipped as far as it can be read and then put aside, never deleted. The beginning of
a record at its very end is none: that is a write which the writer's death broke off.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from gateway.db.bulk import bulk
from gateway.db.engine import Database
from gateway.db.unit_of_work import Overtaken, reading
from gateway.metering import checkpoints, ledger, rollups
from gateway.metering.backlog import Backlog, Batch
from gateway.metering.checkpoints import Checkpoint
from gateway.metering.entry import Entries
from gateway.metering.orphans import find_orphans
from gateway.metering.outcome import Reconnected, Shipped, ShipperBusy, Written
from gateway.metering.record import Close, Price, end_of
from gateway.metering.retention import LEDGER, Expired, lifetimes
from gateway.metering.segments import list_segments, sweep
from gateway.metering.stopwatch import Stopwatch
from gateway.telemetry import logs
from gateway.types.errors import Unavailable

R = TypeVar("R")
Tallying = asyncio.Task[dict[rollups.Key, rollups.Bucket]]
"""What the rows of a batch add to the rollups, soon."""

LOCK: Final = "shipper.lock"
BATCH_RECORDS: Final = 40_000
"""What a batch costs beside its rows it costs once for each key of the rollups, so large ones are cheapest."""
BATCH_AT_SERVER: Final = 20_000
"""The same where a server writes a batch while the next one is read: there must be a next one."""
INTERVAL_S: Final = 1.0
"""Seconds between rounds. A round has a fixed cost beside that of its records, so few large ones are cheapest."""
_MOST_LABELS: Final = 100_000
_MOST_TRIES: Final = 6
"""How often a transaction is tried that loses against others."""

log: Final = logs.logger(__name__)


class Shipper:
    """Ships the journal of one host; ``ship`` once, or ``run`` for ever.

    Args:
        directory: folder of the journal's segments.
        database: where the ledger is, migrated.
        batch_records: most records in one transaction, by default what is cheapest for the database.
        interval_s: seconds between rounds.
        on_shipped: told of each round of ``run`` that moved anything.
        host: name under which checkpoints are kept, by default the host's.

    Attributes:
        records, conflicts, orphans: sums over all rounds, as in ``Shipped``.
        rounds: how many of them left nothing behind that was in the journal when they began: nothing unread, and
            nothing refused, which is in no ledger, whoever counts on it.
        seconds: CPU seconds used, by the event loop's thread and the database's.
    """

    def __init__(
        self,
        directory: Path,
        database: Database,
        *,
        batch_records: int | None = None,
        interval_s: float = INTERVAL_S,
        on_shipped: Callable[[Shipped], None] | None = None,
        host: str | None = None,
    ) -> None:
        self.records = 0
        self.conflicts = 0
        self.orphans = 0
        self.rounds = 0
        self.seconds = 0.0
        self._directory = directory
        self._database = database
        self._batch_records = batch_records or (BATCH_AT_SERVER if database.partitioned else BATCH_RECORDS)
        self._interval_s = interval_s
        self._on_shipped = on_shipped
        self._host = host or socket.gethostname()
        self._backlog = Backlog(directory)
        self._restored: int | None = None
        self._first_day = 0
        self._known_prices: set[int] = set()
        self._known_labels: set[int] = set()
        self._gone: set[str] = set()
        self._lock_fd: int | None = None
        self._mutex = asyncio.Lock()
        self._kicked = asyncio.Event()

    @property
    def lag_bytes(self) -> int:
        """Journal bytes that are not in the ledger yet, as of the last round."""
        return self._backlog.lag_bytes

    @property
    def oldest_unshipped_s(self) -> float:
        """For how many seconds the longest waiting part of the journal has been seen waiting."""
        return self._backlog.oldest_s

    @property
    def quarantined(self) -> int:
        """Segments put aside because part of them could not be read."""
        return self._backlog.quarantined

    @property
    def writers(self) -> set[str]:
        """Writers of which a segment is in the journal's folder now, dead or alive. Raises ``OSError``."""
        return {file.writer for file in list_segments(self._directory)}

    def look(self) -> None:
        """Measure what waits, without the database. Raises ``OSError``."""
        self._backlog.look()

    def kick(self) -> None:
        """Start the next round of ``run`` at once."""
        self._kicked.set()

    async def ship(self) -> Shipped:
        """Move everything that is in the journal now into the ledger.

        Raises:
            Unavailable: the database cannot be used now; what was shipped before that stays shipped.
            ShipperBusy: another process has the lock.
            OSError: the journal's folder cannot be used.
        """
        async with self._mutex:
            watch = Stopwatch(self._ship())
            try:
                return await watch
            finally:
                self.seconds += watch.seconds

    async def run(self) -> None:
        """Ship for ever, trying again after every failure; ends only by cancellation."""
        retrying = AsyncRetrying(
            # The books of the whole host stop when this loop does, so no error may end it.
            retry=retry_if_exception_type(Exception),
            wait=wait_random_exponential(multiplier=0.1, max=5.0),
            before_sleep=_log_failure,
        )
        while True:
            shipped: Shipped = await retrying(self.ship)
            if shipped.inserted or shipped.conflicts or shipped.deleted:
                self._tell(shipped)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._kicked.wait()
            self._kicked.clear()

    def _tell(self, shipped: Shipped) -> None:
        if self._on_shipped is None:
            return
        try:
            self._on_shipped(shipped)
        except Exception:  # a listener must not stop the books of the host
            log.exception("shipped_listener_failed")

    def close(self) -> None:
        """Give up the lock, so that another process may ship."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    # A round

    async def _ship(self) -> Shipped:
        total = Shipped()
        while True:
            try:
                return await self._round(total)
            except Expired as error:
                # The ledger has let go days since; what is of them goes into quarantine.
                self._first_day = error.first_day
            except Reconnected:
                continue

    async def _round(self, total: Shipped) -> Shipped:
        self._acquire()
        (backlog := self._backlog).look()
        if self._restored != self._database.links:
            await self._restore()
        elif self._first_day * 86_400 > time.time():
            async with reading(self._database) as session:  # a wrong clock wrote it, and may have been set right
                self._first_day = (await lifetimes(session)).get(LEDGER, 0)
        refused = 0
        batch: Batch | None = await self._collect()
        while batch is not None:
            refused += batch.expired
            batch = await self._advance(batch, total)
        await self._finish(total)
        backlog.measure()
        self.rounds += not (backlog.unreadable or refused)
        return total

    def _acquire(self) -> None:
        """Take the host's lock, unless it is held already."""
        if self._lock_fd is not None:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise ShipperBusy(f"another process ships the journal in {self._directory}") from None
        self._lock_fd = fd
        # Another shipper may have been at work since the checkpoints were read.
        self._restored = None
        sweep(self._directory)

    async def _restore(self) -> None:
        """Read the checkpoints, and believe nothing else; those whose segment is gone go with the next write."""
        async with bulk(self._database) if self._database.partitioned else nullcontext():
            links = self._database.links  # the newest is the one that is written over next
        self._known_prices, self._known_labels = set(), set()
        async with reading(self._database) as session:
            saved = await checkpoints.load(session, self._host)
            self._first_day = (await lifetimes(session)).get(LEDGER, 0)
        self._backlog.restore(saved)
        self._gone.update(saved.keys() - self._backlog.segments.keys())
        self._restored = links

    async def _advance(self, batch: Batch, total: Shipped) -> Batch | None:
        """Write a batch and return the next one, or None when there is none.

        While a server inserts rows they are summed up, in the belief that all are new; while it takes the sums,
        the next batch is read. SQLite writes in this process: there these would only wait for each other.
        """
        full = batch.records >= self._batch_records
        back = [move.apply() for move in batch.moves]
        loop = asyncio.get_running_loop()
        tallying = None
        if self._database.partitioned:
            tallying = loop.create_task(self._timed(partial(rollups.tally, batch.entries)))
        storing = loop.create_task(self._timed(partial(self._store, batch, total, tallying)))
        try:
            await (tallying or storing)
            following = await self._collect() if full else None
            await storing
        except BaseException:
            started = [task for task in (tallying, storing) if task is not None]
            for task in started:
                task.cancel()
            await asyncio.gather(*started, return_exceptions=True)
            for move in back:
                move.apply()
            raise
        return following

    async def _collect(self) -> Batch:
        return await self._backlog.collect(self._batch_records, self._known_prices, self._first_day)

    async def _timed(self, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Do ``work`` in a task of its own and count its CPU time as ours."""
        watch = Stopwatch(work())
        try:
            return await watch
        finally:
            self.seconds += watch.seconds

    async def _store(self, batch: Batch, total: Shipped, tallying: Tallying | None) -> None:
        """Write a batch. Progress past records that make no row is written with the next one that does."""
        if batch.records or batch.prices:
            moved = [Checkpoint(move.segment.file.name, move.position, move.damaged) for move in batch.moves]
            written = await self._write(batch.entries, list(batch.prices.values()), moved, tallying)
            self._known_prices.update(batch.prices)
            conflicts = batch.records - written.rows
            self.records += batch.records
            self.conflicts += conflicts
            total.records += batch.records
            total.conflicts += conflicts
            total.note(written)

    async def _finish(self, total: Shipped) -> None:
        """Settle the segments whose writer is gone from them: orphans into the ledger, then the files go."""
        backlog = self._backlog
        over = [each for each in backlog.segments.values() if each.drained and not each.finished]
        orphans: list[Close] = []
        ending = [each for each in over if each.sealed and not each.damaged]
        unsure = [each for each in over if not each.sealed or each.damaged]
        for writer in {each.file.writer for each in unsure}:
            remains = backlog.remains(writer)
            if remains is None:
                continue
            orphans += await find_orphans(remains)
            # What damage swallowed may still run in a writer that lives: only its death tells.
            ending += [each for each in unsure if each.file.writer == writer and (remains or not each.damaged)]
        if ending:
            entries = Entries.of([end_of(row) for row in orphans])
            rows = [each for each in entries if each.hour // 24 >= self._first_day]
            if len(rows) < len(entries):
                # Attempts from before the ledger's first day are kept where a person can look at them.
                for segment in ending:
                    segment.damaged += segment in unsure
            ends = [replace(each.checkpoint(), finished=True) for each in ending]
            written = await self._write(rows, (), ends)
            for segment in ending:
                segment.finished = True
            self.orphans += written.rows
            total.orphans += written.rows
            total.note(written)
        finished = [each for each in backlog.segments.values() if each.finished]
        backlog.remove(finished)
        self._gone.update(each.file.name for each in finished)
        total.deleted += len(finished)

    async def _write(
        self,
        rows: Sequence[Entries],
        prices: Sequence[Price],
        moved: Sequence[Checkpoint],
        tallying: Tallying | None = None,
    ) -> Written:
        """Write rows, rollups and checkpoints in one transaction; return what was new.

        A transaction that lost against another one is repeated a few times. Raises ``Unavailable``; whether the
        transaction happened is then unknown, and repeating it is harmless.

        Args:
            rows: for the ledger; those that it holds are passed over.
            prices: rates that it may not know yet.
            moved: how far segments are in it then.
            tallying: sums up all of ``rows``.
        """
        try:
            return await self._transact(rows, prices, moved, tallying)
        except Overtaken:
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(Overtaken),
                wait=wait_random_exponential(multiplier=0.01, max=0.5),
                stop=stop_after_attempt(_MOST_TRIES - 1),
                reraise=True,
            )
            written: Written = await retrying(self._transact, rows, prices, moved, tallying)
            return written

    async def _transact(
        self,
        rows: Sequence[Entries],
        prices: Sequence[Price],
        moved: Sequence[Checkpoint],
        tallying: Tallying | None,
    ) -> Written:
        """Write rows, rollups and checkpoints in one transaction; return what was new."""
        used = {labels.label_id: labels for labels in set(chain.from_iterable(some.labels for some in rows))}
        fresh = [labels for label_id, labels in used.items() if label_id not in self._known_labels]
        async with bulk(self._database) as connection:
            if self._restored != self._database.links:
                raise Reconnected
            await ledger.insert_prices(connection, prices)
            await ledger.insert_labels(connection, fresh)
            known = rollups.ask(connection, rows)
            inserted = await ledger.insert(connection, rows)
            hours = await (tallying if tallying and inserted is rows else rollups.tally(inserted))
            await rollups.post(connection, hours, known)
            await checkpoints.save(connection, self._host, moved)
            await checkpoints.forget(connection, self._host, self._gone)
        self.seconds += connection.seconds
        self._gone.clear()
        if len(self._known_labels) > _MOST_LABELS:
            self._known_labels.clear()
        self._known_labels.update(used)
        return Written(sum(len(some.rows) for some in inserted), rollups.last_used(hours))


def _log_failure(state: RetryCallState) -> None:
    """Log a failed round: the first, and then ever more rarely."""
    error = state.outcome.exception() if state.outcome else None
    attempt = state.attempt_number
    if attempt & (attempt - 1):
        return
    unexpected = error if not isinstance(error, (Unavailable, ShipperBusy, OSError)) else None
    log.warning("shipping_failed", attempt=attempt, error=str(error), exc_info=unexpected)
