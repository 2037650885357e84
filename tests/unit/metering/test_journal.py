"""The journal's writer: what is acknowledged is on disk, also when the disk fails."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.metering.journal import Journal
from gateway.metering.record import Close, Head, Open, Price, Record, Seal, scan
from gateway.metering.segments import list_segments
from gateway.metering.sync import SyncJob, SyncThread
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
from tests.unit.metering.faulty_disk import Disk, begin, disk, eventually, put_under

__all__ = ["disk"]


@pytest.mark.parametrize("durability", ["disk", "process"])
async def test_a_record_is_in_the_file_without_a_commit(tmp_path: Path, durability: Any) -> None:
    """The death of the process cannot lose a beginning once ``append`` returns, nor an end a turn of the loop later."""
    journal = begin(tmp_path, durability=durability)
    start = opened()
    journal.append(start)
    assert of_type(on_disk(tmp_path), Open) == [start]
    end = closed(start)
    journal.append(end)
    if durability == "disk":
        await asyncio.sleep(0)
    assert of_type(on_disk(tmp_path), Close) == [end]
    await journal.close()


async def test_ends_of_one_turn_are_one_write_before_whatever_comes_next(tmp_path: Path, disk: Disk) -> None:
    """In their order; a beginning does not wait for them, and takes them along."""
    journal = begin(tmp_path)
    starts = [opened() for _ in range(6)]
    for start in starts:
        journal.append(start)
    before = disk.written
    ends = [closed(start) for start in starts]
    for end in ends[:3]:
        journal.append(end)
    await asyncio.sleep(0)
    assert disk.written == before + 1
    for end in ends[3:5]:
        journal.append(end)
    late = opened()
    journal.append(late)
    assert disk.written == before + 2
    assert of_type(on_disk(tmp_path), Close) == ends[:5]
    assert on_disk(tmp_path)[-1] == late
    journal.append(ends[5])
    await journal.close()
    assert of_type(on_disk(tmp_path), Close) == ends


async def test_a_sync_takes_along_what_was_appended_a_moment_before_it(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told that an end is durable which had not been written when its sync began."""
    journal = begin(tmp_path)
    starts = [opened(), opened()]
    for start in starts:
        journal.append(start)
    await journal.commit()
    await asyncio.sleep(0.01)  # the next sync need not keep a distance from this one
    there: list[list[Record]] = []
    submit = SyncThread.submit

    def submitted(thread: SyncThread, job: SyncJob) -> None:
        there.append(on_disk(tmp_path))
        submit(thread, job)

    monkeypatch.setattr(SyncThread, "submit", submitted)
    journal.append(closed(starts[0]))
    asyncio.get_running_loop().call_soon(lambda: journal.append(closed(starts[1])))
    first = journal.commit()
    while not there:
        await asyncio.sleep(0)
    assert len(journal._commit.flying.frames if journal._commit.flying else []) == len(of_type(there[0], Close))
    await first
    await journal.close()
    assert keys(of_type(on_disk(tmp_path), Close)) == keys(starts)


async def test_ends_that_wait_go_into_the_segment_that_ends(tmp_path: Path) -> None:
    """What is kept is written before a segment is sealed, whether its length or its age ends it."""
    journal = begin(tmp_path, segment_bytes=2_000, segment_seconds=0.02)
    starts = [opened() for _ in range(40)]
    for start in starts:
        journal.append(start)
    for start in starts:
        journal.append(closed(start))
    await asyncio.sleep(0.1)
    await journal.close()
    assert len(list_segments(tmp_path)) > 2
    assert sorted(keys(of_type(on_disk(tmp_path), Close))) == sorted(keys(starts))


async def test_a_segment_does_not_end_by_its_age_before_its_ends_are_written(tmp_path: Path, disk: Disk) -> None:
    """A write that fails there would be heard by nobody; so the end waits for the turn in which they are written."""
    journal = begin(tmp_path)
    start = opened()
    journal.append(start)
    journal.append(closed(start))
    disk.writes = [errno.EIO]
    journal._series._expire(0)
    assert len(list_segments(tmp_path)) == 1
    assert journal.failures == 0
    await journal.commit()
    assert journal.failures == 1
    assert keys(of_type(disk.safe(tmp_path), Close)) == keys([start])
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

    put_under(monkeypatch, SlowDisk())
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
