"""The journal on a failing disk: what is acknowledged is never lost."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.metering import recovery, segments
from gateway.metering.journal import Journal
from gateway.metering.record import Close, Open, Progress, scan
from gateway.metering.segments import list_segments
from gateway.types.errors import Unavailable
from tests.integration.metering.samples import (
    closed,
    keys,
    of_type,
    on_disk,
    opened,
    progressed,
)
from tests.unit.metering.faulty_disk import Disk, begin, disk, eventually, put_under

__all__ = ["disk"]


@pytest.mark.parametrize("durability", ["disk", "process"])
@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EIO, (9,)])
async def test_a_failed_write_is_made_good_in_a_new_segment(
    tmp_path: Path, disk: Disk, durability: Any, failure: Any
) -> None:
    """While the disk refuses, new attempts are refused and ends are kept; nothing needs a restart."""
    journal = begin(tmp_path, durability=durability)
    starts = [opened() for _ in range(5)]
    for start in starts:
        journal.append(start)
    await journal.commit()
    disk.writes = [failure]
    journal.append(closed(starts[0]))
    if durability == "disk":
        await asyncio.sleep(0)  # ends are written together
    disk.full = True
    assert journal.failed
    assert journal.failures == 1
    with pytest.raises(Unavailable):
        journal.append(opened())
    journal.append(closed(starts[1]))
    journal.append(progressed(starts[2], 9))
    waiting = journal.commit()
    await asyncio.sleep(0.3)
    assert not waiting.done()
    disk.full = False
    async with asyncio.timeout(20):
        await waiting
    assert not journal.failed
    old, new = list_segments(tmp_path)
    assert of_type([record for record, _ in scan(old.path.read_bytes())], Close) == []
    records = [record for record, _ in scan(new.path.read_bytes())]
    assert keys(of_type(records, Close)) == keys(starts[:2])
    assert keys(of_type(records, Open)) == keys(starts[2:])
    assert [record.usage.completion for record in of_type(records, Progress)] == [9]
    assert not old.owned()
    journal.append(opened())
    await journal.close()


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EIO, (9,)])
async def test_ends_that_cannot_be_written_before_a_sync_are_made_good(
    tmp_path: Path, disk: Disk, failure: Any
) -> None:
    """Whoever waits for that sync is told once they are in a segment that works."""
    journal = begin(tmp_path)
    starts = [opened() for _ in range(3)]
    for start in starts:
        journal.append(start)
    await journal.commit()
    told: list[asyncio.Future[None]] = []

    def end() -> None:
        journal.append(closed(starts[1]))
        disk.writes = [failure]
        told.append(journal.commit())

    journal.append(closed(starts[0]))
    asyncio.get_running_loop().call_soon(end)
    first = journal.commit()
    async with asyncio.timeout(20):
        await first
        await told[0]
    assert journal.failures == 1
    assert sorted(keys(of_type(disk.safe(tmp_path), Close))) == sorted(keys(starts[:2]))
    await journal.close()


async def test_a_folder_is_synced_before_anything_in_a_new_segment_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose name is not on disk is lost with all its contents: the folder is synced too, once per segment."""
    synced: list[int] = []

    class Watched(Disk):
        def fsync(self, fd: int) -> None:
            synced.append(os.fstat(fd).st_ino)

    put_under(monkeypatch, Watched())
    journal = begin(tmp_path)
    for _ in range(3):
        journal.append(opened())
        await journal.commit()
        assert synced == [tmp_path.stat().st_ino]
    await journal.close()


async def test_a_failed_sync_is_never_trusted_again(tmp_path: Path, disk: Disk) -> None:
    """After a failed sync the kernel may have dropped the data: ends are written anew elsewhere, then acknowledged."""
    journal = begin(tmp_path)
    start = opened()
    journal.append(start)
    await journal.commit()
    journal.append(closed(start))
    disk.syncs = [errno.EIO]
    await journal.commit()
    assert journal.failures == 1
    old, new = list_segments(tmp_path)
    size = old.size()
    assert keys(of_type([record for record, _ in scan(new.path.read_bytes())], Close)) == keys([start])
    journal.append(opened())
    await journal.commit()
    assert old.size() == size
    await journal.close()


async def test_nothing_is_written_to_or_asked_of_a_file_whose_sync_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its descriptor is not trusted again: no write, no sync, no seal; a later sync would claim what is not so."""
    done: list[tuple[str, int]] = []

    class Watched(Disk):
        def write(self, fd: int, data: bytes) -> int:
            done.append(("write", os.fstat(fd).st_ino))
            return super().write(fd, data)

        def fdatasync(self, fd: int) -> None:
            done.append(("sync", os.fstat(fd).st_ino))
            super().fdatasync(fd)

    watched = Watched()
    put_under(monkeypatch, watched)
    journal = begin(tmp_path)
    starts = [opened() for _ in range(3)]
    for start in starts:
        journal.append(start)
    watched.syncs = [errno.EIO]
    journal.append(closed(starts[0]))
    await journal.commit()
    distrusted = list_segments(tmp_path)[0].path.stat().st_ino
    failed_at = done.index(("sync", distrusted))
    journal.append(closed(starts[1]))
    await journal.commit()
    journal.append(closed(starts[2]))
    await journal.close()
    assert [what for what, inode in done[failed_at + 1 :] if inode == distrusted] == []
    assert keys(of_type(watched.safe(tmp_path), Close)) == keys(starts)


async def test_ends_that_came_while_a_sync_failed_are_made_good_too(tmp_path: Path, disk: Disk) -> None:
    """Neither the ends in a sync that fails nor those written meanwhile to the same segment are lost."""
    journal = begin(tmp_path)
    starts = [opened() for _ in range(4)]
    for start in starts:
        journal.append(start)
    disk.syncs = [errno.EIO]
    disk.gate.clear()
    journal.append(closed(starts[0]))
    early = journal.commit()
    await asyncio.to_thread(disk.running.wait, 20)
    journal.append(closed(starts[1]))
    late = journal.commit()
    disk.gate.set()
    async with asyncio.timeout(20):
        await asyncio.gather(early, late)
    assert keys(of_type(disk.safe(tmp_path), Close)) == keys(starts[:2])
    await journal.close()


async def test_sealed_segments_whose_sync_failed_are_made_good_and_given_up(tmp_path: Path, disk: Disk) -> None:
    """Ends in a segment that was ended but not yet synced are repeated too, and all locks but the last are free."""
    journal = begin(tmp_path, segment_bytes=3_000)
    starts = [opened() for _ in range(30)]
    disk.syncs = [errno.EIO]
    for start in starts:
        journal.append(start)
        journal.append(closed(start))
    async with asyncio.timeout(20):
        await journal.commit()
    assert journal.failures == 1
    assert keys(of_type(disk.safe(tmp_path), Close)) == keys(starts)
    await eventually(lambda: sum(file.owned() for file in list_segments(tmp_path)) == 1)
    assert list_segments(tmp_path)[-1].owned()
    await journal.close()


async def test_waiters_are_told_when_the_disk_fails_for_long(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller is not held for ever; what it did is still written when the disk works again."""
    monkeypatch.setattr(recovery, "PATIENCE_S", 0.1)
    journal = begin(tmp_path)
    start = opened()
    journal.append(start)
    disk.full = True
    journal.append(closed(start))
    told: list[Unavailable | None] = []
    journal.committed(told.append)
    with pytest.raises(Unavailable):
        await journal.commit()
    await asyncio.sleep(0)
    assert [type(error) for error in told] == [Unavailable]
    disk.full = False
    await eventually(lambda: not journal.failed)
    await journal.commit()
    assert len(of_type(on_disk(tmp_path), Close)) == 1
    await journal.close()


async def test_what_a_dying_disk_never_took_is_counted_in_the_log(tmp_path: Path, disk: Disk) -> None:
    """Closing a journal on a dead disk ends, and says how many records are lost."""
    journal = begin(tmp_path)
    start = opened()
    journal.append(start)
    await journal.commit()
    disk.full = True
    journal.append(closed(start))
    with capture_logs() as logs:
        await journal.close()
    assert [entry["records"] for entry in logs if entry["event"] == "journal_lost"] == [1]


async def test_a_segment_that_cannot_be_followed_goes_on(tmp_path: Path, disk: Disk, monkeypatch: Any) -> None:
    """When no next segment can be made, the one at hand grows: a limit on size is no reason to refuse work."""
    journal = begin(tmp_path, segment_bytes=2_000)
    create = segments.SegmentWriter.create
    refused: list[int] = []

    def refuse(*_: object) -> segments.SegmentWriter:
        refused.append(1)
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(segments.SegmentWriter, "create", refuse)
    for _ in range(20):
        journal.append(opened())
    await journal.commit()
    assert refused
    assert len(list_segments(tmp_path)) == 1
    monkeypatch.setattr(segments.SegmentWriter, "create", create)
    for _ in range(20):
        journal.append(opened())
    await journal.close()
    assert len(list_segments(tmp_path)) > 1


ACTIONS = st.sampled_from(
    ["open"] * 4
    + ["progress"]
    + ["close"] * 3
    + ["commit", "rest", "turn"] * 2
    + ["fail", "short", "sync fails", "full", "room"]
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A source of fresh folders."""
    return lambda: tmp_path_factory.mktemp("journal")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, min_size=5, max_size=80), durability=st.sampled_from(["disk", "process"]))
def test_no_interleaving_of_failures_loses_an_end(
    folders: Callable[[], Path], actions: list[str], durability: Any
) -> None:
    """Whatever fails when: an acknowledged end is on disk at that moment, and every end is there in the end.

    An attempt still open at the end is in the last segment, with its latest progress.
    """
    folder, disk = folders(), Disk()
    with pytest.MonkeyPatch.context() as patch:
        put_under(patch, disk)
        patch.setattr(recovery, "RETRY_S", (0.001, 0.002))
        asyncio.run(_interleave(folder, disk, actions, durability))


class Worker:
    """A worker that meters on a failing disk, and what it was promised."""

    def __init__(self, journal: Journal, disk: Disk) -> None:
        self.journal = journal
        self.disk = disk
        self.running: list[Open] = []
        self.ended: list[Close] = []
        self.progress: dict[bytes, Progress] = {}
        self.waiting: list[tuple[asyncio.Future[None], set[tuple[bytes, int]]]] = []

    async def do(self, action: str) -> None:
        """Do one thing."""
        match action:
            case "open":
                self.open()
            case "progress" if self.running:
                first = self.running[0]
                self.progress.setdefault(first.request_id, progressed(first, len(self.ended) + 1))
                self.journal.append(self.progress[first.request_id])
            case "close" if self.running:
                self.ended.append(closed(self.running.pop(0)))
                self.journal.append(self.ended[-1])
            case "commit":
                self.waiting.append((self.journal.commit(), keys(self.ended)))
            case "rest":
                await asyncio.sleep(0.003)
            case "turn":
                await asyncio.sleep(0)
            case _:
                self.disk.fail(action)

    def open(self) -> None:
        """Begin an attempt, unless the journal says that it cannot be metered."""
        start = opened()
        try:
            self.journal.append(start)
            self.running.append(start)
        except Unavailable:
            assert self.journal.failed


async def _interleave(folder: Path, disk: Disk, actions: list[str], durability: Any) -> None:
    journal = begin(folder, durability=durability, segment_bytes=2_000)
    worker = Worker(journal, disk)
    survivors = disk.safe if durability == "disk" else on_disk
    for action in actions:
        await worker.do(action)
        for future, due in worker.waiting:
            if future.done():
                assert due <= keys(of_type(survivors(folder), Close))
    disk.heal()
    async with asyncio.timeout(20):
        for future, due in worker.waiting:
            await future
            assert due <= keys(of_type(survivors(folder), Close))
        await eventually(lambda: not journal.failed)
        await journal.close()
    assert keys(of_type(survivors(folder), Close)) == keys(worker.ended)
    assert not any(file.owned() for file in list_segments(folder))
    last = [record for record, _ in scan(list_segments(folder)[-1].path.read_bytes())]
    ends = keys(of_type(last, Close))
    assert keys(of_type(last, Open)) - ends == keys(worker.running) - ends
    for start in worker.running:
        if start.request_id in worker.progress:
            assert worker.progress[start.request_id] in last
