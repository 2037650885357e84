"""Group commit: who waits for the disk, and the thread that forces journal segments to it.

One job at a time: the journal collects what comes in the meantime for the next one. The outcome of a job is handed
back to the event loop once, whoever waits for it. When the loop is gone the thread ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from gateway.metering.segments import SegmentWriter
from gateway.types.errors import Unavailable

_FULL_SYNC: Final[int | None] = getattr(fcntl, "F_FULLFSYNC", None)


class SyncGroup:
    """What one sync makes durable: frames of ends not yet on the medium, and who waits for them."""

    __slots__ = ("callbacks", "frames", "waiters")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.waiters: list[asyncio.Future[None]] = []
        self.callbacks: list[Callable[[Unavailable | None], None]] = []

    def absorb(self, later: SyncGroup) -> None:
        """Take over what ``later`` holds, behind what is here."""
        self.frames += later.frames
        self.waiters += later.waiters
        self.callbacks += later.callbacks

    def answer(self, loop: asyncio.AbstractEventLoop, error: Unavailable | None) -> None:
        """Tell all who wait, and forget them."""
        for waiter in self.waiters:
            if waiter.done():  # its task was cancelled
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
        for callback in self.callbacks:
            loop.call_soon(callback, error)
        self.waiters, self.callbacks = [], []


@dataclass(slots=True)
class SyncJob:
    """What to force to disk.

    Attributes:
        retiring: segments that are complete; synced, then closed.
        current: the segment being written, or None at the end of a journal.
        folder: the folder to sync as well, because a segment is new in it, or None.
    """

    retiring: list[SegmentWriter]
    current: SegmentWriter | None
    folder: Path | None

    @property
    def segments(self) -> list[SegmentWriter]:
        """All segments, oldest first."""
        return self.retiring if self.current is None else [*self.retiring, self.current]

    def close(self) -> None:
        """Give up the segments that are complete, now that they are safe."""
        for segment in self.retiring:
            segment.close()


SyncLanded = Callable[[SyncJob, OSError | None, float], None]
"""Told of each job, its error or None, and the wall seconds it took."""


class SyncThread:
    """Runs sync jobs in order.

    Args:
        loop: where ``landed`` is called.
        landed: told of each job, its error or None, and the seconds it took.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, landed: SyncLanded) -> None:
        self._loop = loop
        self._landed = landed
        self._jobs: SimpleQueue[SyncJob | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="weir-journal-sync", daemon=True)
        self._thread.start()

    def submit(self, job: SyncJob) -> None:
        """Start ``job``, or queue it behind the one that runs."""
        self._jobs.put(job)

    def stop(self) -> None:
        """End the thread when its jobs are done, and wait for it."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            begin = time.perf_counter()
            error: OSError | None = None
            try:
                _perform(job)
            except OSError as failure:
                error = failure
            try:
                self._loop.call_soon_threadsafe(self._landed, job, error, time.perf_counter() - begin)
            except RuntimeError:  # the loop is closed: nobody is left to tell
                return


def _perform(job: SyncJob) -> None:
    """Sync what ``job`` names. Raises ``OSError`` at the first failure; the segments then stay open."""
    for segment in job.segments:
        _sync_file(segment.fd)
    if job.folder is not None:
        fd = os.open(job.folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    job.close()


def _sync_file(fd: int) -> None:
    """Force the data of ``fd`` to the medium; on macOS that takes more than ``fsync``."""
    if _FULL_SYNC is not None:
        fcntl.fcntl(fd, _FULL_SYNC)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)
