"""The disk is full, on a real file system: what runs is metered, new work is refused, and it mends itself."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.db.engine import Database
from gateway.metering import recovery
from gateway.metering import reserve as reserve_module
from gateway.metering.audit import audit
from gateway.metering.record import Close, Open
from gateway.metering.reserve import RESERVE_BYTES, Reserve
from gateway.metering.segments import list_segments
from gateway.metering.shipper import Shipper
from gateway.types.errors import Unavailable
from tests.fakes.backend import DONE, SSE_HEAD, Visit, chunk, event, hand_backend, usage_chunk
from tests.fakes.small_disk import MountRefused, SmallDisk, small_disk
from tests.harness import Backend, Stage, configuration, staged
from tests.integration.metering.samples import begin, closed, dims, keys, meter, of_type, on_disk, opened, progressed
from tests.unit.metering.faulty_disk import Disk, put_under


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 16 MiB."""
    try:
        with small_disk(tmp_path / "disk") as mounted:
            yield mounted
    except MountRefused as refused:
        pytest.skip(str(refused))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for room twenty times as often."""
    monkeypatch.setattr(recovery, "RETRY_S", (0.01, 0.05))


async def until(condition: Callable[[], Any]) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("durability", ["disk", "process"])
async def test_running_attempts_are_metered_on_a_full_disk_and_new_ones_refused(
    disk: SmallDisk, database: Database, durability: Any
) -> None:
    """Ends are acknowledged from reserved space at once; with room again new attempts are taken, without a restart."""
    folder = disk.path / "journal"
    journal = begin(folder, durability=durability)
    running = [opened(dims(user=f"user-{number}" * 20)) for number in range(1_000)]
    for start in running:
        journal.append(start)
    await journal.commit()
    disk.fill()
    with capture_logs() as said:
        for position, start in enumerate(running[:-1]):
            journal.append(progressed(start, position))
            journal.append(closed(start))
        async with asyncio.timeout(recovery.PATIENCE_S / 2):
            await journal.commit()
    assert [entry["event"] for entry in said].count("journal_full") == 1
    assert keys(of_type(on_disk(folder), Close)) == keys(running[:-1])
    assert journal.failed
    with pytest.raises(Unavailable) as refused:
        journal.append(opened())
    assert refused.value.retry_after
    disk.free()
    await until(lambda: not journal.failed)
    meter(journal, 10)
    journal.append(closed(running[-1]))
    await journal.close()
    shipper = Shipper(folder, database)
    shipped = await shipper.ship()
    assert (shipped.inserted, shipped.orphans) == (1_010, 0)
    assert (await audit(folder, database)).ok
    assert sorted(path.name for path in folder.iterdir()) == ["shipper.lock"]
    shipper.close()


async def test_a_worker_that_dies_on_a_full_disk_leaves_orphans_with_their_progress(
    disk: SmallDisk, home: Path, database: Database
) -> None:
    """Progress goes on being written while more is reserved than the ends will take."""
    folder = disk.path / "journal"
    journal = begin(folder)
    start, other = opened(), opened()
    journal.append(start)
    journal.append(other)
    disk.fill()
    journal.append(closed(opened()))
    for tokens in range(1, 200):
        journal.append(progressed(start, tokens))
    journal.append(closed(other))
    await journal.commit()
    assert journal.failed
    journal.append(progressed(start, 500))
    journal._stop()
    disk.free()
    shipper = Shipper(folder, database)
    assert (await shipper.ship()).orphans == 1
    report = await audit(folder, database)
    assert report.ok
    assert report.ledger["rows_orphaned"] == 1
    assert report.ledger["tokens_completion"] == 500 + 2 * 100
    shipper.close()


async def test_more_is_set_aside_when_very_many_attempts_are_open(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reserve grows with the open attempts; one that could not be ended on a full disk is not begun."""
    monkeypatch.setattr(reserve_module, "RESERVE_BYTES", 64 * 1024)
    monkeypatch.setattr(reserve_module, "_UNACKNOWLEDGED", 16 * 1024)
    journal = begin(disk.path / "journal", durability="process")
    running = [opened() for _ in range(500)]
    for start in running:
        journal.append(start)
    disk.fill()
    taken = 0
    with suppress(Unavailable):
        for _ in range(2_000):
            start = opened()
            journal.append(start)
            running.append(start)
            taken += 1
    assert 0 < taken < 2_000, "what was set aside covers some more, and then no more are taken"
    for start in running:
        journal.append(closed(start))
    await journal.commit()
    assert keys(of_type(on_disk(disk.path / "journal"), Close)) == keys(running)
    disk.free()
    await journal.close()


async def test_a_journal_that_begins_on_an_almost_full_disk_waits_for_room(disk: SmallDisk) -> None:
    """Without room for a reserve nothing is taken, because it could not be ended for sure."""
    filler = disk.path / "other"
    filler.write_bytes(bytes(16 * 1024 * 1024 - RESERVE_BYTES))
    journal = begin(disk.path / "journal")
    assert journal.failed
    with pytest.raises(Unavailable):
        journal.append(opened())
    filler.unlink()
    await until(lambda: not journal.failed)
    journal.append(opened())
    await journal.close()


async def test_without_reserves_a_full_disk_keeps_ends_in_memory(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that cannot allocate beyond the end of a file is said once; ends wait, and are written later."""

    def cannot(fd: int, size: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(reserve_module, "_allocate", cannot)
    with capture_logs() as said:
        journal = begin(disk.path / "journal")
    assert [entry["event"] for entry in said] == ["journal_without_reserve"]
    start = opened()
    journal.append(start)
    await journal.commit()
    disk.fill()
    while not journal.failed:
        journal.append(progressed(start, 1))
    journal.append(closed(start))
    waiting = journal.commit()
    await asyncio.sleep(0.1)
    assert not waiting.done()
    disk.free()
    async with asyncio.timeout(20):
        await waiting
    assert not journal.failed
    assert keys(of_type(on_disk(disk.path / "journal"), Close)) == keys([start])
    assert len(of_type(on_disk(disk.path / "journal"), Open)) == 1
    await journal.close()


def test_a_reserve_takes_blocks_and_no_length(disk: SmallDisk) -> None:
    """What is set aside is really gone from the disk, and comes back."""
    before = os.statvfs(disk.path).f_bfree
    reserve = Reserve.make(disk.path, "1-0123456789abcdef", RESERVE_BYTES)
    taken = before - os.statvfs(disk.path).f_bfree
    assert taken * os.statvfs(disk.path).f_frsize >= RESERVE_BYTES
    assert os.fstat(reserve.fd).st_size == 0
    assert list_segments(disk.path) == []
    with pytest.raises(OSError, match="No space"):
        Reserve.make(disk.path, "2-0123456789abcdef", 3 * RESERVE_BYTES)
    reserve.release()
    assert os.statvfs(disk.path).f_bfree == before


async def test_what_a_dead_worker_had_set_aside_is_taken_over(disk: SmallDisk) -> None:
    """Workers that die on a full disk do not eat it up: the next one finds what is set aside already."""
    folder = disk.path / "journal"
    first = begin(folder)
    (set_aside,) = folder.glob("reserve-*")
    # As a death leaves it: the lock is gone and the file is there.
    reserve = first._series.space.take()
    assert reserve is not None
    os.close(reserve.fd)
    second, third = begin(folder), begin(folder)
    assert set_aside in list(folder.glob("reserve-*"))
    assert len(list(folder.glob("reserve-*"))) == 2
    assert not second.failed
    assert not third.failed
    for journal in (first, second, third):
        await journal.close()
    assert list(folder.glob("reserve-*")) == []


async def test_a_sync_that_finds_no_room_is_met_with_what_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems take a write and only then look for its place: that is a full disk too."""
    faulty = Disk()
    put_under(monkeypatch, faulty)
    journal = begin(tmp_path)
    start = opened()
    journal.append(start)
    faulty.syncs = [errno.ENOSPC]
    journal.append(closed(start))
    with capture_logs() as said:
        await journal.commit()
    assert "journal_full" in [entry["event"] for entry in said]
    assert len(list_segments(tmp_path)) == 2
    assert not journal.failed, "there is room, as it turned out"
    await journal.close()


async def test_callers_of_a_gateway_on_a_full_disk(disk: SmallDisk) -> None:
    """A running stream ends well and is charged; new requests get a typed 503 that says when to come back."""
    go_on = asyncio.Event()

    async def stream(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk("one")))
        await go_on.wait()
        last = chunk(" two", finish="stop")
        await visit.events(event(last), event(usage_chunk(2)), DONE, last=True)

    async with hand_backend(stream) as engine:
        config = configuration([Backend("hand", engine.url)])
        async with staged(disk.path / "home", config) as stage:
            running = asyncio.create_task(stage.chat(stream=True, stream_options={"include_usage": True}))
            await engine.visit()
            disk.fill()
            refused = await _refused(stage)
            assert refused["error"]["code"] == 503
            assert refused["error"]["metadata"]["error_type"] == "provider_unavailable"
            assert (await stage.http.get(f"{stage.url}/ready")).status_code == 503
            assert (await stage.http.get(f"{stage.url}/health")).status_code == 200
            go_on.set()
            answer = await running
            assert answer.text.endswith("data: [DONE]\n\n")
            disk.free()
            async with asyncio.timeout(20):
                while (await stage.chat()).status_code != 200:
                    await asyncio.sleep(0.02)
            await stage.settled(2, seconds=20)
            assert (await stage.generation(answer.headers["x-generation-id"]))["status"] == "ok"
            assert (await stage.http.get(f"{stage.url}/ready")).status_code == 200


async def _refused(stage: Stage) -> Any:
    """Ask until the full disk is noticed, which takes one record that it does not take."""
    async with asyncio.timeout(20):
        while True:
            asked = asyncio.create_task(stage.chat())
            done, _ = await asyncio.wait({asked}, timeout=0.2)
            if done and asked.result().status_code == 503:
                assert int(asked.result().headers["retry-after"]) >= 1
                return asked.result().json()
            asked.cancel()
            await asyncio.wait({asked})  # a cancelled client is still busy with its connection
