"""The journal's writer: what is acknowledged is on disk, also when the disk fails."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.metering import journal as journal_module
from gateway.metering import segments, sync
from gateway.metering.journal import Journal
from gateway.metering.record import Close, Head, Open, Price, Progress, Record, Seal, scan
from gateway.metering.segments import list_segments
from gateway.types.errors import Unavailable
from tests.integration.metering.samples import (
    COST,
    COST_ID,
    PRICE,
    PRICE_ID,
    closed,
    dims,
    keys,
    of_type,
    on_disk,
    opened,
    progressed,
)


class Disk:
    """The operating system as the journal sees it, with failures on demand.

    Attributes:
        writes: what the next writes do: an error number, or the number of bytes to take; then all is well.
        syncs: likewise; an error number for each of the next syncs.
        full: whether no segment can be made and nothing can be written.
        gate: syncs wait for it.
        running: set once a sync has begun.
    """

    def __init__(self) -> None:
        self.writes: list[int | tuple[int]] = []
        self.syncs: list[int] = []
        self.full = False
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Event()
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


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk that fails on demand, under the journal alone."""
    disk = Disk()
    monkeypatch.setattr(segments, "os", disk)
    monkeypatch.setattr(sync, "os", disk)
    monkeypatch.setattr(sync, "_FULL_SYNC", None)
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


async def test_a_record_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    """The death of the process cannot lose what was appended: no commit is needed for that."""
    journal = begin(tmp_path)
    start = opened()
    journal.append(start)
    assert of_type(on_disk(tmp_path), Open) == [start]
    end = closed(start)
    journal.append(end)
    assert of_type(on_disk(tmp_path), Close) == [end]
    await journal.close()


async def test_segment_begins_with_its_head_and_holds_rates_before_their_use(tmp_path: Path) -> None:
    """A segment can be priced by itself: each id's rates come before the first record that names it."""
    journal = begin(tmp_path)
    journal.append(opened(dims(cost_id=0)))
    journal.append(opened())
    journal.append(opened())
    await journal.close()
    kinds = [type(record) for record in on_disk(tmp_path)]
    assert kinds == [Head, Price, Open, Price, Open, Open]
    prices = of_type(on_disk(tmp_path), Price)
    assert {price.price_id: price.rates for price in prices} == {PRICE_ID: PRICE, COST_ID: COST}


async def test_an_attempt_with_unknown_rates_is_not_begun(tmp_path: Path) -> None:
    """Rates must be declared before an attempt names them, else its orphan could not be charged."""
    journal = Journal.create(tmp_path)
    with pytest.raises(ValueError, match="not declared"):
        journal.append(opened())
    await journal.close()
    assert of_type(on_disk(tmp_path), Open) == []


async def test_one_sync_serves_all_who_wait(tmp_path: Path) -> None:
    """Ends of the same moment share a sync; those that come while it runs share the next."""
    journal = begin(tmp_path)

    async def attempt() -> None:
        start = opened()
        journal.append(start)
        await asyncio.sleep(0)
        journal.append(closed(start))
        await journal.commit()

    await asyncio.gather(*[attempt() for _ in range(200)])
    assert 1 <= journal.syncs <= 4
    assert journal.records == 400
    await journal.close()


async def test_commit_of_nothing_is_done_at_once(tmp_path: Path) -> None:
    """Who has nothing to wait for does not wait."""
    journal = begin(tmp_path)
    await journal.commit()
    assert journal.commit().done()
    start = opened()
    journal.append(start)
    assert not journal.commit().done()
    await journal.commit()
    assert journal.commit().done()
    await journal.close()


async def test_a_waiter_that_is_cancelled_harms_nobody(tmp_path: Path) -> None:
    """Each waiter has its own future: cancelling one leaves the others waiting."""
    journal = begin(tmp_path)
    start = opened()
    journal.append(start)
    journal.append(closed(start))
    first, second = journal.commit(), journal.commit()
    first.cancel()
    await second
    assert second.done()
    assert not second.cancelled()
    await journal.close()


async def test_commit_waits_for_a_sync_that_began_after_the_record(tmp_path: Path, monkeypatch: Any) -> None:
    """A sync that was under way when a record came does not count for it."""
    release, running = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class SlowDisk(Disk):
        def fdatasync(self, fd: int) -> None:
            loop.call_soon_threadsafe(running.set)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20)
            os.fdatasync(fd)

    monkeypatch.setattr(sync, "os", SlowDisk())
    journal = begin(tmp_path)
    start = opened()
    journal.append(start)
    early = journal.commit()
    await running.wait()
    same = journal.commit()
    journal.append(closed(start))
    late = journal.commit()
    release.set()
    await early
    assert same.done()
    assert not late.done()
    await late
    assert journal.syncs == 2
    await journal.close()


async def test_callbacks_are_called_after_the_sync(tmp_path: Path) -> None:
    """``committed`` is ``commit`` without a future."""
    journal = begin(tmp_path)
    told: list[Unavailable | None] = []
    journal.committed(told.append)
    await asyncio.sleep(0)
    assert told == [None]
    journal.append(opened())
    journal.committed(told.append)
    assert len(told) == 1
    await eventually(lambda: len(told) == 2)
    assert told == [None, None]
    await journal.close()


async def test_a_full_segment_is_sealed_and_attempts_are_carried_on(tmp_path: Path) -> None:
    """Any segment can be read without the ones before it: open attempts and progress are repeated in the next."""
    journal = begin(tmp_path, segment_bytes=4_000)
    lasting = opened()
    journal.append(lasting)
    progress = progressed(lasting, 7)
    journal.append(progress)
    short = [opened() for _ in range(40)]
    for start in short:
        journal.append(start)
        journal.append(closed(start))
    await journal.commit()
    files = list_segments(tmp_path)
    assert len(files) > 3
    assert len({file.writer for file in files}) == 1
    contents = [[record for record, _ in scan(file.path.read_bytes())] for file in files]
    for records, following in zip(contents, files[1:], strict=False):
        assert records[-1] == Seal(following.name)
    for records in contents:
        assert isinstance(records[0], Head)
        assert lasting in records
        assert progress in records
        named = {record.dims.price_id for record in records if isinstance(record, Open | Close)}
        assert named <= {record.price_id for record in records if isinstance(record, Price)}
    ends = of_type(on_disk(tmp_path), Close)
    assert len(ends) == len(short), "no end is repeated by an orderly rotation"
    assert keys(ends) == keys(short)
    await journal.close()


async def test_a_used_segment_is_ended_by_its_age(tmp_path: Path) -> None:
    """A little used journal still lets go of its segments, an unused one makes no new ones."""
    journal = begin(tmp_path, segment_seconds=0.05)
    await asyncio.sleep(0.3)
    assert len(list_segments(tmp_path)) == 1
    start = opened()
    journal.append(start)
    await eventually(lambda: len(list_segments(tmp_path)) > 1)
    await asyncio.sleep(0.2)
    assert len(list_segments(tmp_path)) == 2
    await journal.close()


async def test_a_segment_is_owned_while_its_writer_lives(tmp_path: Path) -> None:
    """The lock tells a reader whether more can come; a sealed segment is given up by a living writer."""
    journal = begin(tmp_path, segment_bytes=1_000)
    (only,) = list_segments(tmp_path)
    assert only.owned()
    for _ in range(10):
        journal.append(opened())
    await journal.commit()
    await eventually(lambda: [file.owned() for file in list_segments(tmp_path)][:-1].count(True) == 0)
    assert list_segments(tmp_path)[-1].owned()
    await journal.close()
    assert not any(file.owned() for file in list_segments(tmp_path))


async def test_close_seals_only_when_nothing_is_open(tmp_path: Path) -> None:
    """A journal that ends with attempts under way leaves them to be found as orphans."""
    busy, idle = tmp_path / "busy", tmp_path / "idle"
    journal = begin(busy)
    journal.append(opened())
    await journal.close()
    assert of_type(on_disk(busy), Seal) == []
    journal = begin(idle)
    start = opened()
    journal.append(start)
    journal.append(closed(start))
    await journal.close()
    await journal.close()
    assert of_type(on_disk(idle), Seal) == [Seal("")]
    with pytest.raises(Unavailable):
        journal.append(opened())
    with pytest.raises(Unavailable):
        journal.append(closed(start))
    assert journal.failed


async def test_without_disk_durability_nothing_waits(tmp_path: Path) -> None:
    """Durability "process" promises to survive the process: the page cache is enough."""
    journal = begin(tmp_path, durability="process", segment_bytes=1_000)
    for _ in range(20):
        start = opened()
        journal.append(start)
        journal.append(closed(start))
        assert journal.commit().done()
    assert journal.syncs == 0
    await journal.close()
    assert len(of_type(on_disk(tmp_path), Close)) == 20


async def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A journal that could not meter anything does not start."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be written"):
        Journal.create(tmp_path / "file" / "journal")


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


async def test_a_folder_is_synced_before_anything_in_a_new_segment_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose name is not on disk is lost with all its contents: the folder is synced too, once per segment."""
    synced: list[int] = []

    class Watched(Disk):
        def fsync(self, fd: int) -> None:
            synced.append(os.fstat(fd).st_ino)

    monkeypatch.setattr(sync, "os", Watched())
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
    monkeypatch.setattr(journal_module, "PATIENCE_S", 0.1)
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
        patch.setattr(segments, "os", disk)
        patch.setattr(sync, "os", disk)
        patch.setattr(sync, "_FULL_SYNC", None)
        patch.setattr(journal_module, "RETRY_S", (0.001, 0.002))
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
