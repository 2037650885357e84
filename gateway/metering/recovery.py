"""How a journal goes on when its disk fails or is full.

A segment in which a write or a sync failed is never trusted again. What was not acknowledged is written anew into
another segment as soon as one can be made, and attempts that are open are repeated there. When the disk is full it is
made of space that was set aside (``gateway.metering.reserve``).
"""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.metering.carry import Carry
from gateway.metering.commit import GroupCommit
from gateway.metering.reserve import FULL
from gateway.metering.segments import SegmentWriter
from gateway.metering.series import Series
from gateway.metering.sync import SyncJob
from gateway.telemetry import logs
from gateway.types.errors import Unavailable

PATIENCE_S: Final = 10.0
"""Seconds for which whoever waits for a commit waits on while the disk fails."""
RETRY_S: Final = (0.05, 1.0)
"""First and longest wait before another segment is tried after a failure, in seconds."""

log: Final = logs.logger(__name__)


class Recovery:
    """Takes a journal from a segment that failed to one that works. Belongs to one event loop.

    Args:
        loop: of the journal.
        carry: the attempts that are open.
        sync: what forces segments to disk; it holds the one being written, none while nothing works.
        series: makes segments.

    Attributes:
        failures: writes and syncs that failed.
    """

    __slots__ = (
        "_broken",
        "_carry",
        "_failed_at",
        "_loop",
        "_retry_s",
        "_room",
        "_series",
        "_stopped",
        "_sync",
        "_timer",
        "failures",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, carry: Carry, sync: GroupCommit, series: Series) -> None:
        self.failures = 0
        self._loop = loop
        self._carry = carry
        self._sync = sync
        self._series = series
        self._broken: list[SegmentWriter] = []
        self._failed_at = 0.0
        self._retry_s = RETRY_S[0]
        self._timer: asyncio.TimerHandle | None = None
        self._room: asyncio.TimerHandle | None = None
        self._stopped = False

    def fail(self, error: OSError) -> None:
        """Give the segment up; it stays owned until another has taken over what is still open."""
        self.failures += 1
        log.error("journal_failed", error=str(error))
        segment = self._sync.segment
        if segment is None:
            return
        self._broken.append(segment)
        self._sync.segment = None
        self._series.space.full = self._series.space.full or error.errno in FULL
        self._failed_at = self._loop.time()
        self._retry_s = RETRY_S[0]
        self._series.rest()
        self._again()

    def unsynced(self, job: SyncJob, error: OSError) -> None:
        """Give up every segment of ``job``, whose sync failed with ``error``."""
        sync, current = self._sync, job.current
        self._broken += job.retiring
        if sync.segment is not None and sync.segment is not current and current is not None:
            sync.retiring.remove(current)
            self._broken.append(current)
        self.fail(error)

    def recover(self) -> None:
        """Try to go on in a new segment. Waits for a running sync, whose outcome decides what must be repeated."""
        sync = self._sync
        if sync.segment is not None or sync.flying is not None or self._stopped:
            return
        try:
            self._go_on()
        except OSError as error:
            log.warning("journal_still_failing", error=str(error), unwritten=len(sync.group.frames))
            if self._series.closing or self._loop.time() - self._failed_at > PATIENCE_S:
                sync.group.answer(self._loop, Unavailable("The gateway cannot write its journal."))
            self._retry_s = min(2 * self._retry_s, RETRY_S[1])
            self.rest()
            if not self._series.closing:
                self._again()
            return
        log.info("journal_recovered", seconds=round(self._loop.time() - self._failed_at, 3))
        for segment in (*self._broken, *sync.retiring):
            segment.close()
        self._broken, sync.retiring = [], []
        if sync.synced:
            sync.dirty = True
            sync.schedule(others=bool(self._carry.open))
        else:
            sync.group.frames = []
            sync.group.answer(self._loop, None)

    def provide(self) -> None:
        """Set space aside for a full disk; while there is no room for it, look again and again."""
        space, was_full = self._series.space, self._series.space.full
        taken = space.provide()
        if space.lacking:
            if self._room is not None:
                self._room.cancel()
            self._room = self._loop.call_later(RETRY_S[1], self._look_for_room)
        if taken and was_full and self._sync.segment is not None:
            log.info("journal_has_room")
            self._series.extend(self._sync.segment)

    def rest(self) -> None:
        """Try no more by itself until the next failure."""
        if self._timer is not None:
            self._timer.cancel()

    def stop(self) -> None:
        """Give up for good, and every segment that failed."""
        self._stopped = True
        self._series.space.release()
        if self._room is not None:
            self._room.cancel()
        broken, self._broken = self._broken, []
        for segment in broken:
            segment.close()

    def _again(self) -> None:
        self.rest()
        self._timer = self._loop.call_later(self._retry_s, self.recover)

    def _go_on(self) -> None:
        """Begin a segment with what was not acknowledged: of the reserve when the disk is full. Raises ``OSError``."""
        space, unacknowledged = self._series.space, self._sync.group.frames
        if not space.full:
            try:
                self._series.begin(unacknowledged)
            except OSError as error:
                space.full = error.errno in FULL  # a write that was cut short does not tell why
                if not space.full:
                    raise
        if self._sync.segment is None:
            reserve = space.take()
            segment = self._series.begin(unacknowledged, reserve)
            if reserve is not None:
                log.error(
                    "journal_full", segment=segment.path.name, open=len(self._carry.open), reserve_bytes=reserve.size
                )
        self.provide()

    def _look_for_room(self) -> None:
        if not self._series.closing and self._sync.segment is not None:
            self.provide()
