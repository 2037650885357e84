"""Lifetimes of books: what is old goes, no sum changes, and nothing that comes too late is lost unseen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from itertools import count
from pathlib import Path

import pytest

from gateway.config.snapshot import RetentionSpec
from gateway.db.bulk import Bulk, bulk
from gateway.db.engine import Database
from gateway.metering import ledger, retention
from gateway.metering.audit import audit
from gateway.metering.entry import Entries
from gateway.metering.record import Close, end_of, frame
from gateway.metering.retention import DOUBT_S, Expired, Retention
from gateway.metering.segments import QUARANTINE, SegmentWriter, new_writer_id
from gateway.metering.shipper import Shipper
from gateway.types import ids
from tests.integration.metering.books import dump, expected_rollup, query, rollup
from tests.integration.metering.conftest import only_postgres, url_in
from tests.integration.metering.samples import begin, closed, dims, opened, request_id_at

DAY_US = 86_400_000_000
TODAY = 20_700
"""A UTC day, counted from 1970."""
SPEC = RetentionSpec(ledger_days=100, hour_days=100)


def at(day: int, second: int = 0) -> Close:
    """Return the end of an attempt of a day."""
    return closed(opened(request_id=request_id_at(day * DAY_US + second * 1_000_000)))


async def ship(folder: Path, database: Database, ends: list[Close]) -> Shipper:
    """Journal ``ends``, ship them, and return the shipper."""
    journal, shipper = begin(folder), Shipper(folder, database)
    for end in ends:
        journal.append(end)
    await journal.close()
    await shipper.ship()
    return shipper


def keeping(database: Database, folder: Path, spec: RetentionSpec = SPEC, today: int = TODAY) -> Retention:
    """Return the retention of a day."""
    return Retention(database, folder, lambda: spec, lambda: today)


async def test_old_days_go_and_their_sums_stay(
    folder: Path, home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ledger and hours lose what is older than their days, in slices; days and totals keep all; the audit agrees."""
    monkeypatch.setattr(retention, "SLICE", 7)
    ends = [at(TODAY - age, second) for age in (0, 99, 100, 101, 150) for second in range(20)]
    (await ship(folder, database, ends)).close()
    before = dump(home)
    await keeping(database, folder).turn()
    kept = {TODAY, TODAY - 99, TODAY - 100}
    assert {day for (day,) in query(home, "SELECT day FROM ledger")} == kept
    assert query(home, "SELECT COUNT(*) FROM ledger") == [(60,)]
    assert {hour // 24 for (hour,) in query(home, "SELECT hour FROM usage_hour")} == kept
    assert rollup(home, daily=True) == expected_rollup(ends, daily=True)
    after = dump(home)
    assert {name: after[name] for name in ("usage_day", "model_day_total")} == {
        name: before[name] for name in ("usage_day", "model_day_total")
    }
    assert (await audit(folder, database)).mismatches == ()
    await keeping(database, folder).turn()
    assert dump(home) == after, "a second turn finds nothing to do"


async def test_what_comes_too_late_goes_into_quarantine(folder: Path, home: Path, database: Database) -> None:
    """A segment with records that are older than the ledger is put aside; what is young enough in it is counted."""
    await keeping(database, folder).turn()
    late, fresh = at(TODAY - 101), at(TODAY)
    shipper = await ship(folder, database, [late, fresh])
    assert query(home, "SELECT request_id FROM ledger") == [(fresh.request_id,)]
    assert rollup(home, daily=True) == expected_rollup([fresh], daily=True)
    (aside,) = (folder / QUARANTINE).iterdir()
    assert late.request_id in aside.read_bytes()
    report = await audit(folder, database)
    assert [sentence.startswith("1 segments lie in quarantine") for sentence in report.mismatches] == [True]
    shipper.close()


async def test_a_shipper_notices_that_the_ledger_has_let_go_days(folder: Path, home: Path, database: Database) -> None:
    """Days that went while a shipper ran count for its next batch: a redelivered row is not counted again."""
    await keeping(database, folder, today=TODAY - 5).turn()
    old = at(TODAY - 101)
    journal, shipper = begin(folder), Shipper(folder, database)
    journal.append(old)
    assert (await shipper.ship()).inserted == 1
    await keeping(database, folder).turn()
    fresh = at(TODAY)
    for end in (old, fresh):
        journal.append(end)
    await journal.close()
    assert (await shipper.ship()).inserted == 1
    assert query(home, "SELECT request_id FROM ledger") == [(fresh.request_id,)]
    assert rollup(home, daily=True) == expected_rollup([old, fresh], daily=True)
    assert len(list((folder / QUARANTINE).iterdir())) == 1
    shipper.close()


async def test_an_attempt_that_never_ended_may_be_too_old_as_well(folder: Path, home: Path, database: Database) -> None:
    """The journal of a worker that died long ago stops nothing."""
    await keeping(database, folder).turn()
    folder.mkdir()
    lost = opened(dims(price_id=0, cost_id=0), request_id_at((TODAY - 300) * DAY_US))
    SegmentWriter.create(folder, new_writer_id(), 1, [frame(lost)]).close()
    shipper = Shipper(folder, database)
    assert (await shipper.ship()).deleted == 1
    assert query(home, "SELECT COUNT(*) FROM ledger") == [(0,)]
    (aside,) = (folder / QUARANTINE).iterdir()
    assert lost.request_id in aside.read_bytes()
    shipper.close()


async def test_a_row_of_a_day_that_is_gone_is_refused(folder: Path, database: Database) -> None:
    """Whoever writes to the ledger is told; a longer lifetime afterwards brings nothing back."""
    await keeping(database, folder).turn()
    await keeping(database, folder, RetentionSpec(ledger_days=1_000)).turn()
    with pytest.raises(Expired) as caught:
        async with bulk(database) as connection:
            await ledger.insert(connection, Entries.of([end_of(at(TODAY - 101))]))
    assert caught.value.first_day == TODAY - 100


@pytest.mark.parametrize("leap", [800, -TODAY], ids=["ahead", "1970"])
@pytest.mark.parametrize("written", [True, False], ids=["a day is written down", "only rows tell"])
async def test_a_clock_that_jumped_lets_nothing_go(
    folder: Path, home: Path, database: Database, leap: int, written: bool
) -> None:
    """Not at once and not after hours; once it is right again all goes on as if nothing had been."""
    days, seconds = [TODAY], [0.0]
    if written:
        await keeping(database, folder).turn()
    (await ship(folder, database, [at(TODAY - 99), at(TODAY)])).close()
    before = dump(home)
    keeper = Retention(database, folder, lambda: SPEC, lambda: days[0], lambda: seconds[0])
    days[0] += leap
    for hours in (0, 1, 24):
        seconds[0] = 3_600.0 * hours
        await keeper.turn()
        assert dump(home) == before
    days[0] = TODAY + 1
    await keeper.turn()
    assert query(home, "SELECT COUNT(*) FROM ledger") == [(2,)]
    (await ship(folder, database, [at(TODAY + 1)])).close()
    assert query(home, "SELECT COUNT(*) FROM ledger") == [(3,)]


async def test_a_clock_is_believed_when_it_says_the_same_for_a_day(
    folder: Path, home: Path, database: Database
) -> None:
    """A host that was off for months lets go what is old, later than others do; the log says when."""
    await keeping(database, folder).turn()
    (await ship(folder, database, [at(TODAY)])).close()
    seconds = [0.0]
    keeper = Retention(database, folder, lambda: SPEC, lambda: TODAY + 200, lambda: seconds[0])
    for seconds[0] in (0.0, DOUBT_S - 1):
        await keeper.turn()
        assert query(home, "SELECT COUNT(*) FROM ledger") == [(1,)]
    seconds[0] = DOUBT_S
    await keeper.turn()
    assert query(home, "SELECT COUNT(*) FROM ledger") == [(0,)]


async def test_a_restart_forgets_no_doubt(folder: Path, home: Path, database: Database) -> None:
    """A host that was off for long and is restarted every night lets go what is old all the same."""
    await keeping(database, folder).turn()
    (await ship(folder, database, [at(TODAY)])).close()
    for night in range(3):
        assert query(home, "SELECT COUNT(*) FROM ledger") == [(1,)], night
        seconds = count(step=3_600)
        keeper = Retention(database, folder, lambda: SPEC, lambda: TODAY + 200, seconds.__next__)
        for _ in range(10):
            await keeper.turn()
    assert query(home, "SELECT COUNT(*) FROM ledger") == [(0,)]


async def test_a_wrong_clock_is_never_believed_beside_a_right_one(folder: Path, home: Path, database: Database) -> None:
    """Another host over the same database moves the day each midnight, and the doubt begins anew."""
    seconds = [0.0]
    wrong = Retention(database, folder, lambda: SPEC, lambda: TODAY + 800, lambda: seconds[0])
    for day in range(TODAY, TODAY + 4):
        await keeping(database, folder, today=day).turn()
        if day == TODAY:
            (await ship(folder, database, [at(TODAY)])).close()
        for _ in range(4):
            seconds[0] += 21_600.0
            await wrong.turn()
    assert query(home, "SELECT COUNT(*) FROM ledger") == [(1,)]


async def test_a_first_day_that_is_still_to_come_is_set_right(folder: Path, home: Path, database: Database) -> None:
    """Else nothing would be metered any more; a shipper that refused what it was given takes what comes next."""
    await keeping(database, folder).turn()
    today = int(time.time()) // 86_400
    wrong = Retention(database, folder, lambda: SPEC, lambda: today + 800, count(step=int(DOUBT_S)).__next__)
    for _ in range(2):
        await wrong.turn()
    journal, shipper = begin(folder), Shipper(folder, database)
    journal.append(at(today))
    assert (await shipper.ship()).inserted == 0
    right = Retention(database, folder, lambda: SPEC, lambda: today, count(step=int(DOUBT_S)).__next__)
    for _ in range(2):
        await right.turn()
    fresh = at(today, second=1)
    journal.append(fresh)
    await journal.close()
    assert (await shipper.ship()).inserted == 1
    assert query(home, "SELECT request_id FROM ledger") == [(fresh.request_id,)]
    shipper.close()


async def test_a_round_that_refuses_a_row_is_none_that_budgets_may_count_on(folder: Path, database: Database) -> None:
    """What is in no ledger must stay on the lease of its budget."""
    await keeping(database, folder).turn()
    shipper = await ship(folder, database, [at(TODAY - 101)])
    assert shipper.rounds == 0
    await shipper.ship()
    assert shipper.rounds == 1
    shipper.close()


@only_postgres
async def test_no_day_goes_between_the_look_for_its_place_and_its_rows(
    folder: Path, home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the oldest day are on their way when it comes of age: it waits for them, and goes with them."""
    await keeping(database, folder, today=TODAY - 1).turn()
    (await ship(folder, database, [at(TODAY - 101, second=1)])).close()
    other = Database(url_in(home))  # another host's
    looked, go_on = asyncio.Event(), asyncio.Event()
    async with bulk(database) as connection:
        make_room = type(connection).make_room

        async def pausing(self: Bulk, table: str, days: Collection[int]) -> None:
            await make_room(self, table, days)
            if self is connection:
                looked.set()
                await go_on.wait()

        monkeypatch.setattr(type(connection), "make_room", pausing)
        inserting = asyncio.create_task(ledger.insert(connection, Entries.of([end_of(at(TODAY - 101))])))
        await looked.wait()
        turning = asyncio.create_task(keeping(other, folder).turn())
        await asyncio.wait([turning], timeout=1.0)
        go_on.set()
        await inserting
    await turning
    await other.close()
    assert query(home, "SELECT COUNT(*) FROM ledger") == [(0,)]


async def test_segments_in_quarantine_have_a_lifetime_when_one_is_set(
    folder: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default nothing is deleted from quarantine."""
    aside = folder / QUARANTINE
    aside.mkdir(parents=True)
    (aside / "x.weirj").write_bytes(b"damaged")
    await keeping(database, folder).turn()
    await keeping(database, folder, RetentionSpec(quarantine_days=1)).turn()
    assert len(list(aside.iterdir())) == 1
    later = time.time() + 2 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    await keeping(database, folder, RetentionSpec(quarantine_days=1)).turn()
    assert list(aside.iterdir()) == []


@only_postgres
async def test_partitions_are_made_ahead_and_on_demand(folder: Path, home: Path, database: Database) -> None:
    """The pieces of today and the next days are there before their rows; those of the past come with their rows."""
    await keeping(database, folder).turn()
    pieces = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ledger'::regclass ORDER BY 1"
    assert query(home, pieces) == [(f"ledger_d{TODAY + ahead}",) for ahead in range(3)]
    databases = [database, Database(database.writer.url.render_as_string(hide_password=False))]
    ends = [at(TODAY - age) for age in (1, 2)]

    async def insert(into: Database, end: Close) -> None:
        async with bulk(into) as connection:
            await ledger.insert(connection, Entries.of([end_of(end)]))

    await asyncio.gather(*[insert(into, end) for into in databases for end in ends])
    await databases[1].close()
    assert len(query(home, pieces)) == 5
    assert query(home, "SELECT COUNT(*) FROM ledger") == [(2,)]
    assert {day for (day,) in query(home, "SELECT day FROM ledger")} == {ids.day(end.request_id) for end in ends}
