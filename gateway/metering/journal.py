"""The journal of one worker: every attempt on disk before its caller sees the end of it.

Written on the event loop. A record is in the page cache when ``append`` returns, which survives the death of the
process; ``commit`` waits until it is on the medium. Syncs are shared: one starts at once when none runs, and all that
comes while it runs waits for the next.

When a write or a sync fails, the segment is never trusted again: what was not yet acknowledged is written anew into a
new segment as soon as one can be made. Until then new attempts are refused with ``Unavailable``, ends of running
attempts are kept in memory, and whoever waits for a commit waits on, for at most ``PATIENCE_S``. Nothing needs a
restart. Attempts that are open when a segment ends are repeated at the beginning of the next one, so the segments
before it can be shipped and deleted.

When the disk is full, the next segment is made of space that was set aside (``gateway.metering.reserve``), enough for
the ends of all open attempts: these are metered and acknowledged as ever, new ones are refused until as much could be
set aside again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from gateway.metering.record import Close, Open, Price, Progress, Seal, frame
from gateway.metering.reserve import FULL, Reserve, Space
from gateway.metering.segments import SegmentWriter, new_writer_id
from gateway.metering.sync import SyncGroup, SyncJob, SyncThread
from gateway.telemetry import logs
from gateway.types.errors import Unavailable
from gateway.types.money import Rates

Durability = Literal["disk", "process"]

SEGMENT_BYTES: Final = 64 * 1024 * 1024
SEGMENT_SECONDS: Final = 600.0
PATIENCE_S: Final = 10.0
RETRY_S: Final = (0.05, 1.0)
"""First and longest wait before another segment is tried after a failure, in seconds."""
_MOST_UNSYNCED: Final = 4096
PACE_S: Final = 0.001
"""Least time between two syncs while other attempts are under way: the later one takes more records along.

A sync makes threads change places, whatever it carries. A lone caller, with no other attempt open, never waits."""

log: Final = logs.logger(__name__)


class Journal:
    """Appends records to segments in a folder; make one with ``create``. Belongs to one event loop.

    Attributes:
        records: records appended.
        bytes_written: bytes written, repeated records included.
        syncs: syncs done.
        sync_seconds: wall seconds spent in syncs, by the thread that does them.
        failures: writes and syncs that failed.
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
        self.bytes_written = 0
        self.syncs = 0
        self.sync_seconds = 0.0
        self.failures = 0
        self._folder = folder
        self._loop = loop
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._writer = new_writer_id()
        self._stamp = 0
        self._rates: dict[int, Rates] = {}
        self._priced: set[int] = set()
        self._open: dict[tuple[bytes, int], bytes] = {}
        self._space = Space(folder, self._writer)
        self._progress: dict[tuple[bytes, int], Progress] = {}
        self._segment: SegmentWriter | None = None
        self._limit = segment_bytes
        self._unlisted = False
        self._retiring: list[SegmentWriter] = []
        self._broken: list[SegmentWriter] = []
        self._group = SyncGroup()
        self._flying: SyncGroup | None = None
        self._dirty = False
        self._scheduled = False
        self._synced_at = 0.0
        self._closing = False
        self._stopped = False
        self._failed_at = 0.0
        self._retry_s = RETRY_S[0]
        self._timer: asyncio.TimerHandle | None = None
        self._room: asyncio.TimerHandle | None = None
        self._thread = SyncThread(loop, self._landed) if durability == "disk" else None

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
            journal._begin()
            journal._provide()
        except OSError as error:
            journal._stop()
            raise Unavailable(f"The journal cannot be written in {directory}: {error.strerror}.") from error
        return journal

    @property
    def writer(self) -> str:
        """The id that all its segments share."""
        return self._writer

    @property
    def failed(self) -> bool:
        """Whether nothing can be written at the moment, or only what is under way, so that new attempts are refused."""
        return self._segment is None or self._space.full

    def declare(self, price_id: int, rates: Rates) -> None:
        """Make the rates of ``price_id`` known; they are written before the first record that names the id."""
        if price_id not in self._rates:
            self._rates[price_id] = rates

    def append(self, record: Open | Progress | Close) -> None:
        """Write ``record``; it outlives this process when this returns.

        The end of an attempt is always taken: when it cannot be written now it is kept and written later.

        Raises:
            Unavailable: an ``Open`` that cannot be written now, or the end of an attempt after ``close``.
            ValueError: an ``Open`` that names rates that were not declared.
        """
        key = (record.request_id, record.attempt)
        if type(record) is Open:
            self._append_open(key, record)
        elif type(record) is Close:
            if self._stopped:
                raise Unavailable("The gateway is shutting down.")
            begun = self._open.pop(key, None)
            if begun is not None:
                self._space.ended(begun)
            self._progress.pop(key, None)
            data = frame(record)
            written = self._put(data, record.dims.price_id, record.dims.cost_id)
            if self._thread is not None or not written:
                group = self._group
                group.frames.append(data)
                if len(group.frames) >= _MOST_UNSYNCED:
                    self._schedule()
        elif type(record) is Progress and key in self._open:
            self._progress[key] = record
            if (
                not self._space.full
                or (segment := self._segment) is None
                or self._limit - segment.size > self._space.owed
            ):
                self._put(frame(record), 0, 0)
        self.records += 1

    def commit(self) -> asyncio.Future[None]:
        """Return a future that is done when everything appended so far is durable.

        Its error is ``Unavailable`` when the disk has been failing for ``PATIENCE_S``. What was appended is still
        written as soon as it can be. Cancelling the future harms nobody else.
        """
        future = self._loop.create_future()
        group = self._pending()
        if group is None:
            future.set_result(None)
        elif self._stopped:
            future.set_exception(Unavailable("The gateway is shutting down."))
        else:
            group.waiters.append(future)
        return future

    def committed(self, callback: Callable[[Unavailable | None], None]) -> None:
        """Call ``callback`` once everything appended so far is durable, or with the error ``commit`` would have."""
        group = self._pending()
        if group is None:
            self._loop.call_soon(callback, None)
        else:
            group.callbacks.append(callback)

    async def close(self) -> None:
        """Make everything durable and end the journal. Attempts still open count as orphans from then on.

        Records that a failing disk does not take even now are counted in the log and lost.
        """
        if self._closing:
            return
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._segment is None:
            self._recover()
        if self._segment is not None and not self._open:
            self._put(frame(Seal("")), 0, 0)
        if self._segment is not None or self._flying is not None:
            with suppress(Unavailable):
                await self.commit()
        if self._group.frames:
            log.critical("journal_lost", records=len(self._group.frames))
        self._stop()

    # Writing

    def _append_open(self, key: tuple[bytes, int], record: Open) -> None:
        price_id, cost_id = record.dims.price_id, record.dims.cost_id
        if self._segment is None or self._space.full or self._closing:
            raise Unavailable("The gateway cannot meter requests at the moment.", retry_after=1.0)
        for rates_id in (price_id, cost_id):
            if rates_id and rates_id not in self._rates:
                raise ValueError(f"rates {rates_id} were not declared")
        data = frame(record)
        if not self._space.covers(data) or not self._put(data, price_id, cost_id):
            raise Unavailable("The gateway cannot meter requests at the moment.", retry_after=1.0)
        self._open[key] = data
        self._space.began(data)

    def _put(self, data: bytes, price_id: int, cost_id: int) -> bool:
        """Write a frame, its prices first; return whether it was written. A failure begins the recovery."""
        segment = self._segment
        if segment is None:
            return False
        if segment.size + len(data) > self._limit and not self._space.full:
            segment = self._rotate(segment)
        priced = self._priced
        if price_id not in priced or cost_id not in priced:
            data = self._prices(price_id, cost_id) + data
        try:
            segment.write(data)
        except OSError as error:
            self._fail(error)
            return False
        self.bytes_written += len(data)
        self._dirty = True
        return True

    def _prices(self, *ids: int) -> bytes:
        """Return the frames of those rates that the segment does not hold yet."""
        missing = [rates_id for rates_id in ids if rates_id not in self._priced and rates_id in self._rates]
        self._priced.update(ids)
        return b"".join(frame(Price(rates_id, self._rates[rates_id])) for rates_id in missing)

    # Segments

    def _begin(self, repeated: Sequence[bytes] = (), reserve: Reserve | None = None) -> SegmentWriter:
        """Make the next segment, if need be of the ``reserve``, and write to it from now on. Raises ``OSError``.

        It begins with all rates, the attempts still open, and the frames ``repeated``.
        """
        self._stamp = max(self._stamp + 1, time.time_ns() // 1000)
        first = [frame(Price(rates_id, rates)) for rates_id, rates in self._rates.items()]
        first += self._open.values()
        first += [frame(record) for record in self._progress.values()]
        first += repeated
        segment = SegmentWriter.create(self._folder, self._writer, self._stamp, first, reserve)
        self._segment = segment
        self._priced = {0, *self._rates}
        self._limit = segment.size + self._segment_bytes
        self._unlisted = True
        self.bytes_written += segment.size
        if self._timer is not None:
            self._timer.cancel()
        if not self._closing:
            self._timer = self._loop.call_later(self._segment_seconds, self._expire, segment.size)
        return segment

    def _rotate(self, segment: SegmentWriter) -> SegmentWriter:
        """End ``segment`` and return the next one, or the same when no other can be made now."""
        try:
            following = self._begin()
        except OSError as error:
            # The segment at hand still works; it may grow until another can be made.
            log.warning("journal_rotation_failed", error=str(error))
            self._limit = segment.size + self._segment_bytes // 16
            return segment
        try:
            segment.write(frame(Seal(following.path.name)))
        except OSError as error:
            log.warning("journal_seal_failed", segment=segment.path.name, error=str(error))
        if self._thread is None:
            segment.close()
        else:
            self._retiring.append(segment)
            self._schedule()
        return following

    def _expire(self, begun: int) -> None:
        """End the segment because of its age, when anything was written since it was ``begun`` bytes long."""
        segment = self._segment
        if segment is None:
            return
        if segment.size == begun or self._space.full or self._rotate(segment) is segment:
            self._timer = self._loop.call_later(self._segment_seconds, self._expire, begun)

    # Syncing

    def _pending(self) -> SyncGroup | None:
        """Return the group that will make everything appended so far durable, or None when it is already."""
        if self._segment is None or self._group.frames or (self._dirty and self._thread is not None):
            self._schedule()
            return self._group
        return self._flying

    def _schedule(self) -> None:
        """Start a sync when the callbacks that are ready now have run, unless one is running or none is needed."""
        if not self._scheduled and self._flying is None and self._segment is not None and self._thread is not None:
            self._scheduled = True
            wait = self._synced_at + PACE_S - time.monotonic() if self._open else 0.0
            if wait > 0:
                self._loop.call_later(wait, self._sync)
            else:
                self._loop.call_soon(self._sync)

    def _sync(self) -> None:
        self._scheduled = False
        if self._flying is not None or self._segment is None or self._thread is None:
            return
        self._synced_at = time.monotonic()
        self._flying, self._group = self._group, SyncGroup()
        self._dirty = False
        job = SyncJob(self._retiring, self._segment, self._folder if self._unlisted else None)
        self._retiring = []
        self._unlisted = False
        self._thread.submit(job)

    def _landed(self, job: SyncJob, error: OSError | None, seconds: float) -> None:
        """Take the outcome of a sync: answer its group, or write it anew; then start the next one."""
        group, self._flying = self._flying, None
        if group is None or self._stopped:
            return
        self.syncs += 1
        self.sync_seconds += seconds
        if error is None:
            group.answer(self._loop, None)
        else:
            group.absorb(self._group)
            self._group = group
            self._broken += job.retiring
            if self._segment is not None and self._segment is not job.current and job.current is not None:
                self._retiring.remove(job.current)
                self._broken.append(job.current)
            self._fail(error)
        if self._segment is None:
            self._recover()
        elif self._group.waiters or self._group.callbacks or self._retiring:
            self._schedule()

    # Failing

    def _fail(self, error: OSError) -> None:
        """Give the segment up; it stays owned until another has taken over what is still open."""
        self.failures += 1
        log.error("journal_failed", error=str(error))
        if self._segment is None:
            return
        self._broken.append(self._segment)
        self._segment = None
        self._space.full = self._space.full or error.errno in FULL
        self._failed_at = self._loop.time()
        self._retry_s = RETRY_S[0]
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._retry_s, self._recover)

    def _recover(self) -> None:
        """Try to go on in a new segment. Waits for a running sync, whose outcome decides what must be repeated."""
        if self._segment is not None or self._flying is not None or self._stopped:
            return
        try:
            self._go_on()
        except OSError as error:
            log.warning("journal_still_failing", error=str(error), unwritten=len(self._group.frames))
            if self._closing or self._loop.time() - self._failed_at > PATIENCE_S:
                self._group.answer(self._loop, Unavailable("The gateway cannot write its journal."))
            self._retry_s = min(2 * self._retry_s, RETRY_S[1])
            if self._timer is not None:
                self._timer.cancel()
            if not self._closing:
                self._timer = self._loop.call_later(self._retry_s, self._recover)
            return
        log.info("journal_recovered", seconds=round(self._loop.time() - self._failed_at, 3))
        for segment in (*self._broken, *self._retiring):
            segment.close()
        self._broken, self._retiring = [], []
        if self._thread is None:
            self._group.frames = []
            self._group.answer(self._loop, None)
        else:
            self._dirty = True
            self._schedule()

    def _go_on(self) -> None:
        """Begin a segment with what was not acknowledged: of the reserve when the disk is full. Raises ``OSError``."""
        space = self._space
        if not space.full:
            try:
                self._begin(self._group.frames)
            except OSError as error:
                space.full = error.errno in FULL  # a write that was cut short does not tell why
                if not space.full:
                    raise
        if self._segment is None:
            reserve = space.take()
            segment = self._begin(self._group.frames, reserve)
            if reserve is not None:
                log.error("journal_full", segment=segment.path.name, open=len(self._open), reserve_bytes=reserve.size)
                self._limit = reserve.size
        self._provide()

    def _provide(self) -> None:
        """Set space aside for a full disk; while there is no room for it, look again and again."""
        space, was_full = self._space, self._space.full
        if not space.provide():
            if self._room is not None:
                self._room.cancel()
            self._room = self._loop.call_later(RETRY_S[1], self._look_for_room)
        elif was_full and self._segment is not None:
            log.info("journal_has_room")
            self._limit = self._segment.size + self._segment_bytes

    def _look_for_room(self) -> None:
        if not self._closing and self._segment is not None:
            self._provide()

    def _stop(self) -> None:
        """End the thread and give up every segment."""
        self._stopped = True
        self._space.release()
        if self._room is not None:
            self._room.cancel()
        if self._thread is not None:
            self._thread.stop()
        for segment in (self._segment, *self._retiring, *self._broken):
            if segment is not None:
                segment.close()
        self._segment, self._retiring, self._broken = None, [], []
