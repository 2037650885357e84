"""Recovery: workers that died, segments given up, damaged or written by another version."""

from __future__ import annotations

import asyncio
import errno
import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.db.engine import Database
from gateway.metering import segments
from gateway.metering.audit import audit
from gateway.metering.orphans import find_orphans
from gateway.metering.record import Open, Price, frame
from gateway.metering.segments import QUARANTINE, SegmentWriter, list_segments, new_writer_id
from gateway.metering.shipper import Shipper
from tests.integration.metering.books import LABELLED, ledger_keys, query
from tests.integration.metering.samples import (
    COST,
    COST_ID,
    PRICE,
    PRICE_ID,
    begin,
    closed,
    meter,
    opened,
    progressed,
)


async def test_damage_in_the_middle_is_shipped_around_and_kept(folder: Path, home: Path, database: Database) -> None:
    """A segment with unreadable bytes loses only these: the rest is shipped and the file is put aside, not deleted."""
    journal = begin(folder)
    ends = meter(journal, 20)
    await journal.close()
    (file,) = list_segments(folder)
    data = bytearray(file.path.read_bytes())
    place = data.index(ends[10].request_id, data.index(ends[10].request_id) + 1)
    data[place + 40] ^= 0xFF
    file.path.write_bytes(data)
    shipper = Shipper(folder, database)
    await shipper.ship()
    rows = dict(query(home, f"SELECT request_id, status FROM {LABELLED}"))
    assert len(rows) == 20
    assert [rows[end.request_id] for end in ends[9:12]] == ["ok", "orphaned", "ok"]
    assert shipper.quarantined == 1
    assert (folder / QUARANTINE / file.name).read_bytes() == data
    assert list_segments(folder) == []
    report = await audit(folder, database)
    assert report.mismatches == (
        "1 segments lie in quarantine: what is damaged or too old in them is not in the ledger.",
    )
    assert report.journal["quarantined_segments"] == 1
    shipper.close()


async def test_damage_at_the_end_is_not_taken_for_a_torn_write(folder: Path, home: Path, database: Database) -> None:
    """A bit flipped in the last record, and a file of noise: what is sound is shipped, both are put aside and told."""
    journal = begin(folder)
    ends = meter(journal, 3)
    await journal.commit()
    journal._stop()
    (file,) = list_segments(folder)
    data = bytearray(file.path.read_bytes())
    data[-20] ^= 1
    file.path.write_bytes(data)
    noise = folder / f"20270115T080000000000Z-{new_writer_id()}.weirj"
    noise.write_bytes(b"\xff" * 5_000)
    shipper = Shipper(folder, database)
    with capture_logs() as said:
        shipped = await shipper.ship()
        await shipper.ship()
    assert (shipped.records, shipped.orphans, shipper.quarantined) == (2, 1, 2)
    rows = dict(query(home, f"SELECT request_id, status FROM {LABELLED}"))
    assert [rows[end.request_id] for end in ends] == ["ok", "ok", "orphaned"]
    assert (folder / QUARANTINE / file.name).read_bytes() == data
    assert (folder / QUARANTINE / noise.name).stat().st_size == 5_000
    damaged = {event["segment"] for event in said if event["event"] == "segment_damaged"}
    assert len([event for event in said if event["event"] == "segment_damaged"]) == 2
    assert damaged == {file.name, noise.name}
    assert not (await audit(folder, database)).ok
    shipper.close()


async def test_a_segment_of_a_newer_version_waits(folder: Path, home: Path, database: Database) -> None:
    """What this version cannot read is neither shipped nor deleted, and the other segments go on."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "FORMAT_VERSION", 99)
        later = SegmentWriter.create(folder, new_writer_id(), 1, [frame(closed(opened()))])
        later.close()
    journal, shipper = begin(folder), Shipper(folder, database)
    meter(journal, 3)
    assert (await shipper.ship()).inserted == 3
    await shipper.ship()
    assert later.path.exists()
    assert shipper.lag_bytes > 0
    await journal.close()
    shipper.close()


async def test_orphans_of_a_dead_writer_pay_their_last_progress(folder: Path, home: Path, database: Database) -> None:
    """An attempt whose process died is charged what it had produced by its last progress, and the owner its cost."""
    writer = new_writer_id()
    folder.mkdir()
    lost, silent, prefill = opened(), opened(), opened()
    records: list[Open | object] = [Price(PRICE_ID, PRICE), Price(COST_ID, COST), lost, silent, prefill]
    records += [progressed(lost, 10), progressed(lost, 40), progressed(prefill, 0)]
    segment = SegmentWriter.create(folder, writer, 1, [frame(record) for record in records])  # type: ignore[arg-type]
    shipper = Shipper(folder, database)
    assert (await shipper.ship()).orphans == 0, "the writer lives"
    segment.close()
    shipped = await shipper.ship()
    assert (shipped.orphans, shipped.inserted, shipped.deleted) == (3, 3, 1)
    rows = {
        row[0]: row[1:]
        for row in query(
            home,
            "SELECT request_id, status, tokens_prompt, tokens_completion, charge_nano, cost_nano, source "
            f"FROM {LABELLED}",
        )
    }
    assert rows[lost.request_id] == ("orphaned", 1_000, 40, 100_000 + 12_000, 60_000 + 10_000, "counted")
    assert rows[silent.request_id] == ("orphaned", 0, 0, 0, 0, "none")
    assert rows[prefill.request_id] == ("orphaned", 1_000, 0, 0, 60_000, "counted")
    assert list_segments(folder) == []
    assert (await audit(folder, database)).ok
    shipper.close()


async def test_a_living_writer_that_changed_segments_has_no_orphans(
    folder: Path, home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment given up for a failing disk has no seal, but its attempts run on in the next one."""
    journal = begin(folder)
    start = opened()
    journal.append(start)
    meter(journal, 3)
    await journal.commit()
    journal._recovery.fail(OSError(errno.EIO, "simulated"))
    async with asyncio.timeout(20):
        while journal.failed:
            await asyncio.sleep(0.01)
    assert len(list_segments(folder)) == 2
    shipper = Shipper(folder, database)
    shipped = await shipper.ship()
    assert shipped.orphans == 0
    assert shipped.deleted == 1
    journal.append(closed(start))
    await shipper.ship()
    await journal.close()
    await shipper.ship()
    assert dict(query(home, f"SELECT status, COUNT(*) FROM {LABELLED} GROUP BY status")) == {"ok": 4}
    assert (await audit(folder, database)).ok
    shipper.close()


async def test_a_long_attempt_survives_the_deletion_of_the_segment_it_began_in(
    folder: Path, home: Path, database: Database
) -> None:
    """A request that outlives its first segment is still an orphan with its progress when its process dies later."""
    journal, shipper = begin(folder, segment_bytes=3_000), Shipper(folder, database)
    lasting = opened()
    journal.append(lasting)
    journal.append(progressed(lasting, 5))
    meter(journal, 30)
    await journal.commit()
    async with asyncio.timeout(20):
        while len(list_segments(folder)) > 1:
            await shipper.ship()
            await asyncio.sleep(0.01)
    journal._stop()
    shipped = await shipper.ship()
    assert shipped.orphans == 1
    ((status, completion),) = query(home, f"SELECT status, tokens_completion FROM {LABELLED} WHERE status <> 'ok'")
    assert (status, completion) == ("orphaned", 5)
    shipper.close()


async def test_damage_in_a_living_journal_is_settled_when_its_writer_is_gone(
    folder: Path, home: Path, database: Database
) -> None:
    """What an unreadable record ended may still run for all a reader can tell: only the writer's death settles it."""
    journal, shipper = begin(folder, segment_bytes=6_000), Shipper(folder, database)
    ends = meter(journal, 40)
    await journal.commit()
    first = list_segments(folder)[0]
    async with asyncio.timeout(20):
        while first.owned():
            await asyncio.sleep(0.01)
    data = bytearray(first.path.read_bytes())
    place = data.index(ends[2].request_id, data.index(ends[2].request_id) + 1)
    data[place + 40] ^= 0xFF
    first.path.write_bytes(data)
    for _ in range(3):
        await shipper.ship()
    assert first.path.exists()
    assert shipper.quarantined == 0
    assert len(ledger_keys(home)) == 39
    await journal.close()
    shipped = await shipper.ship()
    assert shipped.orphans == 1
    assert query(home, f"SELECT request_id FROM {LABELLED} WHERE status = 'orphaned'") == [(ends[2].request_id,)]
    assert shipper.quarantined == 1
    assert list_segments(folder) == []
    shipper.close()


async def test_only_attempts_without_an_end_are_orphans(folder: Path) -> None:
    """An end counts wherever in the journal it stands, also in a later segment than its beginning."""
    journal = begin(folder, segment_bytes=2_000)
    lasting, lost = opened(), opened()
    journal.append(lasting)
    journal.append(lost)
    meter(journal, 20)
    journal.append(closed(lasting))
    await journal.close()
    files = list_segments(folder)
    assert len(files) > 2
    assert [row.request_id for row in await find_orphans(files)] == [lost.request_id]


async def test_an_end_that_a_copy_of_the_folder_wrote_is_not_believed(
    folder: Path, home: Path, database: Database, tmp_path: Path
) -> None:
    """A segment that is still written to is shipped to its end, also when the ledger was told that it is finished."""
    journal, shipper = begin(folder), Shipper(folder, database, host="one")
    ends = meter(journal, 5)
    await shipper.ship()
    shipper.close()
    copied = Shipper(Path(shutil.copytree(folder, tmp_path / "copied")), database, host="one")
    assert (await copied.ship()).deleted == 1
    copied.close()
    ends += meter(journal, 5)
    shipper = Shipper(folder, database, host="one")
    await shipper.ship()
    assert len(list_segments(folder)) == 1
    ends += meter(journal, 5)
    await journal.close()
    await shipper.ship()
    assert set(ledger_keys(home)) == {(end.request_id, end.attempt) for end in ends}
    assert (await audit(folder, database)).ok
    assert list_segments(folder) == []
    shipper.close()
