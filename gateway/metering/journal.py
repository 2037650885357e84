"""The journal of one worker: every attempt on disk before its caller sees the end of it.

Written on the event loop. A record is in the page cache when ``append`` returns, which survives the death of the
process; the end of an attempt is so in the next turn of the loop, in one write with all others of this turn. ``commit``
waits until it is on the medium, in a sync that it shares with others (``gateway.metering.commit``).

When a write or a sync fails, or the disk is full, ``gateway.metering.recovery`` goes on in another segment. Until then
new attempts are refused with ``Unavailable``, ends of running attempts are kept in memory, and whoever waits for a
commit waits on, for at most ``PATIENCE_S`` there. Nothing needs a restart. Attempts that are open when a segment ends
are repeated at the beginning of the next one, so the segments before it can be shipped and deleted.

When the disk is full, the ends of all open attempts are metered and acknowledged as ever, in space that was set aside
(``gateway.metering.reserve``); new attempts are refused until as much could be set aside again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from gateway.metering.carry import Attempt, Carry
from gateway.metering.commit import GroupCommit
from gateway.metering.record import Close, Open, Progress, Seal, frame
from gateway.metering.recovery import Recovery
from gateway.metering.segments import SegmentWriter
from gateway.metering.series import Series
from gateway.metering.sync import SyncGroup, SyncJob
from gateway.telemetry import logs
from gateway.types.errors import Unavailable
from gateway.types.money import Rates

Durability = Literal["disk", "process"]

SEGMENT_BYTES: Final = 64 * 1024 * 1024
SEGMENT_SECONDS: Final = 600.0
_MOST_UNSYNCED: Final = 4096

log: Final = logs.logger(__name__)


class Journal:
    """Appends records to segments in a folder; make one with ``create``. Belongs to one event loop.

    Attributes:
        declared: the rates that were declared, by id.
        records: records appended.
    """

    def __init__(
        self,
        folder: Path,
        loop: asyncio.AbstractEventLoop,
        *,
        durability: Durability,
        segment_bytes: int,
        segment_seconds: float,
    ) -> None:
        self.records = 0
        self._written = 0
        self._loop = loop
        self._carry = Carry()
        self.declared: Mapping[int, Rates] = self._carry.declared
        self._commit = GroupCommit(loop, folder, self._landed, synced=durability == "disk")
        self._durable = loop.create_future()
        self._durable.set_result(None)
        self._series = Series(
            folder, loop, self._carry, self._commit, segment_bytes=segment_bytes, segment_seconds=segment_seconds
        )
        self._recovery = Recovery(loop, self._carry, self._commit, self._series)
        self._stopped = False

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        durability: Durability = "disk",
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Journal:
        """Begin a journal in ``directory``, which is made when it is missing.

        Args:
            directory: folder of the segments; the shipper of the host watches the same one.
            durability: ``disk`` waits for the medium; ``process`` only for the page cache, which survives the
                process but not the machine.
            segment_bytes: length at which a segment is ended.
            segment_seconds: age at which a segment that was used is ended.
            loop: the event loop that uses the journal, by default the running one.

        Raises:
            Unavailable: no segment can be written there.
        """
        loop = loop or asyncio.get_running_loop()
        journal = cls(
            directory,
            loop,
            durability=durability,
            segment_bytes=segment_bytes,
            segment_seconds=segment_seconds,
        )
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            journal._series.begin()
            journal._recovery.provide()
        except OSError as error:
            journal._stop()
            raise Unavailable(f"The journal cannot be written in {directory}: {error.strerror}.") from error
        return journal

    @property
    def writer(self) -> str:
        """The id that all its segments share."""
        return self._series.writer

    @property
    def bytes_written(self) -> int:
        """Bytes written, repeated records included."""
        return self._written + self._series.begun_bytes

    @property
    def syncs(self) -> int:
        """Syncs done."""
        return self._commit.syncs

    @property
    def sync_seconds(self) -> float:
        """Wall seconds spent in syncs, by the thread that does them."""
        return self._commit.seconds

    @property
    def failures(self) -> int:
        """Writes and syncs that failed."""
        return self._recovery.failures

    @property
    def failed(self) -> bool:
        """Whether nothing can be written at the moment, or only what is under way, so that new attempts are refused."""
        return self._commit.segment is None or self._series.space.full

    def declare(self, price_id: int, rates: Rates) -> None:
        """Make the rates of ``price_id`` known; they are written before the first record that names the id."""
        self._carry.declared.setdefault(price_id, rates)

    def append(self, record: Open | Progress | Close) -> None:
        """Write ``record``; it outlives this process when this returns, and the end of an attempt a turn later.

        The end of an attempt is always taken: when it cannot be written now it is kept and written later.

        Raises:
            Unavailable: an ``Open`` that cannot be written now, or the end of an attempt after ``close``.
            ValueError: an ``Open`` that names rates that were not declared.
        """
        attempt = (record.request_id, record.attempt)
        if type(record) is Close:
            self._append_close(attempt, record)
        elif type(record) is Open:
            self._append_open(attempt, record)
        elif type(record) is Progress and attempt in self._carry.open:
            self._append_progress(attempt, record)
        self.records += 1

    def commit(self) -> asyncio.Future[None]:
        """Return a future that is done when everything appended so far is durable.

        Its error is ``Unavailable`` when the disk has been failing for too long. What was appended is still
        written as soon as it can be. Cancelling the future harms nobody else.
        """
        group = self._commit.pending(bool(self._carry.open))
        if group is None:
            return self._durable
        future = self._loop.create_future()
        if self._stopped:
            future.set_exception(Unavailable("The gateway is shutting down."))
        else:
            group.waiters.append(future)
        return future

    def committed(self, callback: Callable[[Unavailable | None], None]) -> None:
        """Call ``callback`` once everything appended so far is durable, or with the error ``commit`` would have."""
        group = self._commit.pending(bool(self._carry.open))
        if group is None:
            self._loop.call_soon(callback, None)
        else:
            group.callbacks.append(callback)

    async def close(self) -> None:
        """Make everything durable and end the journal. Attempts still open count as orphans from then on.

        Records that a failing disk does not take even now are counted in the log and lost.
        """
        if self._series.closing:
            return
        self._series.closing = True
        self._series.rest()
        self._recovery.rest()
        sync = self._commit
        if sync.segment is None:
            self._recovery.recover()
        if sync.segment is not None and not self._carry.open:
            self._put(frame(Seal("")), 0, 0)
        if sync.segment is not None or sync.flying is not None:
            with suppress(Unavailable):
                await self.commit()
        if sync.group.frames:
            log.critical("journal_lost", records=len(sync.group.frames))
        self._stop()

    # Writing

    def _append_open(self, attempt: Attempt, record: Open) -> None:
        dims, carry, space = record.dims, self._carry, self._series.space
        price_id, cost_id = dims.price_id, dims.cost_id
        if self._commit.segment is None or space.full or self._series.closing:
            raise Unavailable("The gateway cannot meter requests at the moment.", retry_after=1.0)
        if price_id not in carry.priced or cost_id not in carry.priced:
            carry.require(price_id)
            carry.require(cost_id)
        data = frame(record)
        if not space.began(data):
            raise Unavailable("The gateway cannot meter requests at the moment.", retry_after=1.0)
        if not self._put(data, price_id, cost_id):
            space.ended(data)
            raise Unavailable("The gateway cannot meter requests at the moment.", retry_after=1.0)
        carry.open[attempt] = data

    def _append_close(self, attempt: Attempt, record: Close) -> None:
        if self._stopped:
            raise Unavailable("The gateway is shutting down.")
        begun = self._carry.ended(attempt)
        if begun is not None:
            self._series.space.ended(begun)
        data, dims, sync = frame(record), record.dims, self._commit
        if not self._put(data, dims.price_id, dims.cost_id, at_once=not sync.synced) or sync.synced:
            frames = sync.group.frames
            frames.append(data)
            if len(frames) >= _MOST_UNSYNCED:
                self._schedule()

    def _append_progress(self, attempt: Attempt, record: Progress) -> None:
        self._carry.reached(attempt, record)
        segment = self._commit.segment
        # On a full disk the room is for ends.
        series = self._series
        if not series.space.full or segment is None or series.limit - segment.size > series.space.owed:
            self._put(frame(record), 0, 0)

    def _put(self, data: bytes, price_id: int, cost_id: int, *, at_once: bool = True) -> bool:
        """Write a frame, its prices first; return whether it was written. A failure begins the recovery.

        One that need not be written ``at_once`` is written in the next turn of the loop, or before the next sync; until
        then it must be among the frames of the group, from which the recovery writes it anew.
        """
        segment = self._commit.segment
        if segment is None:
            return False
        series = self._series
        try:
            if segment.size + len(data) > series.limit and not series.space.full:
                segment = series.rotate(segment)
            priced = self._carry.priced
            if price_id not in priced or cost_id not in priced:
                data = self._carry.prices(price_id, cost_id) + data
            if at_once:
                segment.write(data)
            else:
                if not segment.kept:
                    self._loop.call_soon(self._flush, segment)
                segment.keep(data)
        except OSError as error:
            self._recovery.fail(error)
            return False
        self._written += len(data)
        self._commit.dirty = True
        return True

    def _flush(self, segment: SegmentWriter) -> None:
        """Write what was kept since the last turn, unless that has been done."""
        if segment is self._commit.segment:
            try:
                segment.flush()
            except OSError as error:
                self._recovery.fail(error)

    # Syncing

    def _schedule(self) -> None:
        self._commit.schedule(others=bool(self._carry.open))

    def _landed(self, job: SyncJob, group: SyncGroup, error: OSError | None) -> None:
        """Take the outcome of a sync: answer its group, or write it anew; then start the next one."""
        if self._stopped:
            return
        sync = self._commit
        if error is None:
            group.answer(self._loop, None)
        else:
            group.absorb(sync.group)
            sync.group = group
            self._recovery.unsynced(job, error)
        if sync.segment is None:
            self._recovery.recover()
        elif sync.group.waiters or sync.group.callbacks or sync.retiring:
            self._schedule()

    def _stop(self) -> None:
        """Wait for the last sync and give up every segment."""
        self._stopped = True
        self._commit.stop()
        self._recovery.stop()
        for segment in (self._commit.segment, *self._commit.retiring):
            if segment is not None:
                segment.close()
        self._commit.segment, self._commit.retiring = None, []
