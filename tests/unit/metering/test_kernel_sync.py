"""Syncs by the kernel: what is asked for is done and told once, and whatever it cannot do a thread does."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.metering import kernel_sync
from gateway.metering.journal import Journal
from gateway.metering.kernel_sync import KernelSync
from gateway.metering.segments import SegmentWriter
from gateway.metering.sync import SyncJob, SyncThread
from tests.integration.metering.samples import closed, opened
from tests.unit.metering.faulty_disk import begin, eventually

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64", "riscv64"},
    reason="only Linux syncs by itself, where its calls are known",
)


class Landings:
    """What was told of the jobs of one ``KernelSync``."""

    def __init__(self) -> None:
        self.syncer = KernelSync(asyncio.get_running_loop(), self._landed)
        self.seen: list[tuple[SyncJob, OSError | None]] = []

    def _landed(self, job: SyncJob, error: OSError | None, seconds: float) -> None:
        assert 0 < seconds < 60
        self.seen.append((job, error))

    async def outcome(self, job: SyncJob) -> OSError | None:
        """Run ``job`` and return what it came to."""
        before = len(self.seen)
        self.syncer.submit(job)
        await eventually(lambda: len(self.seen) > before)
        (found, error), *more = self.seen[before:]
        assert found is job
        assert not more
        return error


def segment(folder: Path, number: int) -> SegmentWriter:
    """Return a new segment of ``folder``."""
    return SegmentWriter.create(folder, f"{number:016x}", number + 1, [])


def pipe() -> SegmentWriter:
    """Return what looks like a segment and cannot be synced."""
    _, fd = os.pipe()
    return SegmentWriter(Path("pipe"), fd)


def is_open(fd: int) -> bool:
    """Return whether ``fd`` is."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def open_files(folder: Path) -> list[str]:
    """Return the names of the files of ``folder`` that are open, and its own. Other tests' threads use files too."""
    links = []
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            links.append(fd.readlink())
    return sorted(link.name for link in links if link == folder or folder in link.parents)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The events that were made and not closed yet."""
    alive: set[int] = set()
    eventfd, close = os.eventfd, os.close

    def made(*arguments: int) -> int:
        fd = eventfd(*arguments)
        alive.add(fd)
        return fd

    def closed_(fd: int) -> None:
        close(fd)
        alive.discard(fd)

    monkeypatch.setattr(os, "eventfd", made)
    monkeypatch.setattr(os, "close", closed_)
    return alive


async def test_a_job_lands_once_and_gives_up_what_is_complete(tmp_path: Path) -> None:
    """Complete segments are closed once they are safe, the current one stays open, and so does nothing else."""
    landings = Landings()
    retiring, current = [segment(tmp_path, number) for number in range(3)], segment(tmp_path, 3)
    for job in (SyncJob([], current, None), SyncJob(retiring, current, tmp_path), SyncJob([], current, None)):
        assert await landings.outcome(job) is None
    assert open_files(tmp_path) == [current.path.name]
    landings.syncer.stop()
    current.close()


async def test_everything_is_let_go_of(tmp_path: Path, events: set[int]) -> None:
    """A stop waits for the job that runs; the files and events of many journals are not kept."""
    current = segment(tmp_path, 0)
    for _ in range(20):
        landings = Landings()
        assert len(events) == 1
        landings.syncer.submit(SyncJob([], current, tmp_path))
        landings.syncer.stop()
        assert landings.seen == []
        assert not events
    current.close()
    assert open_files(tmp_path) == []


async def test_what_the_kernel_refuses_a_thread_does(tmp_path: Path) -> None:
    """Where a file cannot be synced so, a thread says whether it can be at all, and does the jobs from then on."""
    landings = Landings()
    error = await landings.outcome(SyncJob([], pipe(), None))
    assert error is not None
    assert error.errno == errno.EINVAL
    current = segment(tmp_path, 0)
    assert await landings.outcome(SyncJob([], current, tmp_path)) is None
    landings.syncer.stop()


async def test_a_job_of_which_only_a_part_is_taken_fails_as_a_whole(tmp_path: Path) -> None:
    """The kernel takes files in turn up to the first that it does not; nothing counts as safe then."""
    landings = Landings()
    retiring = [segment(tmp_path, 0), pipe()]
    error = await landings.outcome(SyncJob(retiring, segment(tmp_path, 1), tmp_path))
    assert error is not None
    assert error.errno == errno.EINVAL
    assert all(is_open(each.fd) for each in retiring)
    landings.syncer.stop()


async def test_an_error_of_the_medium_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel answers is what the journal hears; the segments stay open for it."""
    landings = Landings()
    retiring = [segment(tmp_path, 0)]
    taken = landings.syncer._outcomes
    monkeypatch.setattr(landings.syncer, "_outcomes", lambda: [-errno.EIO for _ in taken()])
    error = await landings.outcome(SyncJob(retiring, segment(tmp_path, 1), None))
    assert error is not None
    assert error.errno == errno.EIO
    assert is_open(retiring[0].fd)
    landings.syncer.stop()


def refusing(syncer: KernelSync, monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Have ``syncer`` fail at the system calls ``numbers``."""
    real: Callable[..., int] = vars(syncer)["_call"]

    def call(number: Any, *arguments: object) -> int:
        if number.value not in numbers:
            return real(number, *arguments)
        ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(syncer, "_call", call)


async def test_an_outcome_that_cannot_be_had_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whether it is on disk, so the journal has to write it anew; then a thread syncs."""
    landings = Landings()
    with monkeypatch.context() as patch:
        refusing(landings.syncer, patch, kernel_sync._calls().getevents)
        error = await landings.outcome(SyncJob([], segment(tmp_path, 0), tmp_path))
    assert error is not None
    assert error.errno == errno.EPERM
    monkeypatch.setattr(landings.syncer, "_begin", None)
    assert await landings.outcome(SyncJob([], segment(tmp_path, 1), tmp_path)) is None
    assert await landings.outcome(SyncJob([], segment(tmp_path, 2), None)) is None
    landings.syncer.stop()


@pytest.mark.parametrize("name", ["setup", "getevents"])
async def test_where_a_call_is_forbidden_none_is_made(
    name: str, events: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known before anything depends on it, and what was made until then is given back."""
    calls = kernel_sync._calls()
    forbidden = getattr(calls, name)
    ask = KernelSync._ask
    given: list[int] = []

    def asked(syncer: KernelSync, number: int, *arguments: object) -> int:
        if number == forbidden:
            raise PermissionError(errno.EPERM, "told to")
        found = ask(syncer, number, *arguments)
        given.append(number)
        return found

    monkeypatch.setattr(KernelSync, "_ask", asked)
    with pytest.raises(PermissionError):
        KernelSync(asyncio.get_running_loop(), lambda *_: None)
    assert given == ([calls.setup, calls.destroy] if name == "getevents" else [])
    assert not events


async def test_a_journal_syncs_by_the_kernel_where_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes no thread for it, and does without where the system is another."""
    made: list[str] = []

    def thread(*arguments: object) -> None:
        del arguments
        made.append("thread")

    monkeypatch.setattr(SyncThread, "__init__", thread)
    journal = begin(tmp_path / "kernel")
    await _ends(journal)
    await journal.close()
    assert made == []
    monkeypatch.undo()
    monkeypatch.setattr(platform, "machine", lambda: "sparc64")
    with pytest.raises(OSError, match="no asynchronous fdatasync"):
        KernelSync(asyncio.get_running_loop(), lambda *_: None)
    journal = begin(tmp_path / "thread")
    await _ends(journal)
    await journal.close()


async def _ends(journal: Journal) -> None:
    """Write attempts and wait for the disk, over several segments."""
    for _ in range(3):
        start = opened()
        journal.append(start)
        journal.append(closed(start))
        await asyncio.wait_for(journal.commit(), 20)
    assert journal.syncs == 3
