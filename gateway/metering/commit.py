"""Group commit: when the journal is forced to disk, and who is told.

One sync at a time. One starts at once when none runs, and all that comes while it runs waits for the next, so that the
more is written the more each sync carries. Nothing is decided here about failures: the journal is told of each outcome.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.metering.kernel_sync import KernelSync
from gateway.metering.segments import SegmentWriter
from gateway.metering.sync import SyncGroup, SyncJob, SyncLanded, SyncThread

PACE_S: Final = 0.001
"""Least time between two syncs while other attempts are under way: the later one takes more records along.

What a sync costs it costs whatever it carries. A lone caller, with no other attempt open, never waits."""

Landed = Callable[[SyncJob, SyncGroup, OSError | None], None]
"""Told of each sync, what it was to make durable, and why it failed."""


class GroupCommit:
    """Syncs the segments of one journal. Belongs to one event loop.

    Args:
        loop: of the journal.
        folder: of its segments.
        landed: told of each sync when nothing is flying any more.
        synced: whether there are syncs at all; without, what is written counts as durable.

    Attributes:
        segment: the one being written, or None while there is none.
        group: what the next sync makes durable.
        flying: what the running one does, or None.
        dirty: whether anything was written that no sync has begun to make durable.
        unlisted: whether the segment is new, so that its folder must be synced as well.
        retiring: segments that are complete and not yet synced.
        syncs: syncs done.
        seconds: wall seconds that they took.
    """

    __slots__ = (
        "_folder",
        "_landed",
        "_loop",
        "_scheduled",
        "_synced_at",
        "_syncer",
        "dirty",
        "flying",
        "group",
        "retiring",
        "seconds",
        "segment",
        "synced",
        "syncs",
        "unlisted",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path, landed: Landed, *, synced: bool) -> None:
        self.segment: SegmentWriter | None = None
        self.group = SyncGroup()
        self.flying: SyncGroup | None = None
        self.dirty = False
        self.unlisted = False
        self.retiring: list[SegmentWriter] = []
        self.syncs = 0
        self.seconds = 0.0
        self.synced = synced
        self._loop = loop
        self._folder = folder
        self._landed = landed
        self._scheduled = False
        self._synced_at = 0.0
        self._syncer = _syncer(loop, self._land) if synced else None

    def pending(self, others: bool) -> SyncGroup | None:
        """Return the group that will make everything written so far durable, or None when it is already.

        Args:
            others: whether attempts are under way, for which a sync may wait a little.
        """
        if self.segment is None or self.group.frames or (self.dirty and self.synced):
            self.schedule(others=others)
            return self.group
        return self.flying

    def schedule(self, *, others: bool) -> None:
        """Start a sync when the callbacks that are ready now have run, unless one is running or none is needed."""
        if not self._scheduled and self.flying is None and self.segment is not None and self.synced:
            self._scheduled = True
            wait = self._synced_at + PACE_S - time.monotonic() if others else 0.0
            if wait > 0:
                self._loop.call_later(wait, self._sync)
            else:
                self._loop.call_soon(self._sync)

    def stop(self) -> None:
        """Wait for the sync that runs, if one does, and let go of what syncs."""
        if self._syncer is not None:
            self._syncer.stop()

    def _sync(self) -> None:
        self._scheduled = False
        if self.flying is not None or self.segment is None or self._syncer is None:
            return
        self._synced_at = time.monotonic()
        group, self.group = self.group, SyncGroup()
        try:
            self.segment.flush()
        except OSError as error:
            self._landed(SyncJob([], self.segment, None), group, error)
            return
        self.flying = group
        self.dirty = False
        job = SyncJob(self.retiring, self.segment, self._folder if self.unlisted else None)
        self.retiring = []
        self.unlisted = False
        self._syncer.submit(job)

    def _land(self, job: SyncJob, error: OSError | None, seconds: float) -> None:
        group, self.flying = self.flying, None
        if group is not None:
            self.syncs += 1
            self.seconds += seconds
            self._landed(job, group, error)


def _syncer(loop: asyncio.AbstractEventLoop, landed: SyncLanded) -> KernelSync | SyncThread:
    """Return what syncs: the kernel itself where it can, else a thread."""
    try:
        return KernelSync(loop, landed)
    except OSError:
        return SyncThread(loop, landed)
