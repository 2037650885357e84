"""A disk that fails on demand, and small steps that journal tests share."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.metering import commit, segments, sync
from gateway.metering.journal import Journal
from gateway.metering.record import Record, scan
from gateway.metering.segments import list_segments
from tests.integration.metering.samples import (
    COST,
    COST_ID,
    PRICE,
    PRICE_ID,
)


class Disk:
    """The operating system as the journal sees it, with failures on demand.

    Attributes:
        writes: what the next writes do: an error number, or the number of bytes to take; then all is well.
        syncs: likewise; an error number for each of the next syncs.
        full: whether no segment can be made and nothing can be written.
        gate: syncs wait for it.
        running: set once a sync has begun.
        written: writes so far.
    """

    def __init__(self) -> None:
        self.writes: list[int | tuple[int]] = []
        self.syncs: list[int] = []
        self.full = False
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Event()
        self.written = 0
        self._synced: dict[int, int] = {}
        self._tainted: set[int] = set()

    def fail(self, how: str) -> None:
        """Fail as named."""
        match how:
            case "fail":
                self.writes.append(errno.EIO)
            case "short":
                self.writes.append((11,))
            case "sync fails":
                self.syncs.append(errno.EIO)
            case "full" | "room":
                self.full = how == "full"

    def heal(self) -> None:
        """Be well from now on."""
        self.writes, self.syncs, self.full = [], [], False

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, data: bytes) -> int:
        """Write as told."""
        self.written += 1
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        what = self.writes.pop(0) if self.writes else 0
        if isinstance(what, tuple):
            return os.write(fd, data[: what[0]])
        if what:
            raise OSError(what, os.strerror(what))
        return os.write(fd, data)

    def fdatasync(self, fd: int) -> None:
        """Sync as told. After a failure nothing more of that file is safe, whatever later syncs say."""
        what = self.syncs.pop(0) if self.syncs else 0
        file = os.fstat(fd)
        self.running.set()
        self.gate.wait(20)
        if what or self.full:
            self._tainted.add(file.st_ino)
            raise OSError(what or errno.ENOSPC, "told to")
        if file.st_ino not in self._tainted:
            self._synced[file.st_ino] = file.st_size

    def safe(self, folder: Path) -> list[Record]:
        """Return the records that a loss of power would leave: those that were synced."""
        return [
            record
            for file in list_segments(folder)
            for record, _ in scan(file.path.read_bytes()[: self._synced.get(file.path.stat().st_ino, 0)])
        ]


def put_under(journals: pytest.MonkeyPatch, disk: Disk) -> None:
    """Have journals write to ``disk`` and sync it by a thread, for the kernel's own syncs cannot be made to fail."""

    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    journals.setattr(commit, "KernelSync", missing)
    journals.setattr(segments, "os", disk)
    journals.setattr(sync, "os", disk)
    journals.setattr(sync, "_FULL_SYNC", None)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk that fails on demand, under the journal alone."""
    disk = Disk()
    put_under(monkeypatch, disk)
    return disk


def begin(folder: Path, **options: Any) -> Journal:
    """Return a journal that knows the usual rates."""
    journal = Journal.create(folder, **options)
    journal.declare(PRICE_ID, PRICE)
    journal.declare(COST_ID, COST)
    return journal


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
