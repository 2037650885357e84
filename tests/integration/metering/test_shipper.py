"""From the journal into the ledger."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from gateway.db.engine import Database
from gateway.metering.audit import audit
from gateway.metering.ledger import Ledger
from gateway.metering.outcome import Shipped, ShipperBusy
from gateway.metering.record import Status
from gateway.metering.segments import list_segments
from gateway.metering.shipper import Shipper
from gateway.types.tokens import Usage
from tests.integration.metering.books import LABELLED, dump, expected_rollup, ledger_keys, query, rollup, totals
from tests.integration.metering.conftest import only_sqlite, url_in
from tests.integration.metering.samples import (
    COST_ID,
    PRICE_ID,
    begin,
    closed,
    dims,
    meter,
    opened,
)


async def test_ends_become_rows_with_their_rollups(folder: Path, home: Path, database: Database) -> None:
    """What was journalled is in the ledger, in the hours, the days and the totals, and can be looked up."""
    journal, shipper = begin(folder), Shipper(folder, database)
    ends = meter(journal, 30) + meter(journal, 12, team="team-b", key_id="other000")
    shipped = await shipper.ship()
    assert (shipped.records, shipped.inserted, shipped.conflicts, shipped.orphans) == (42, 42, 0, 0)
    assert shipped.last_used == {"abcd1234": ends[29].opened_us, "other000": ends[41].opened_us}
    assert set(ledger_keys(home)) == {(end.request_id, 1) for end in ends}
    assert rollup(home, daily=True) == expected_rollup(ends, daily=True)
    assert shipper.lag_bytes == 0
    assert shipper.oldest_unshipped_s == 0
    assert shipper.records == 42
    assert shipper.seconds > 0
    record = await Ledger(database).generation(ends[7].request_id)
    assert record is not None
    (attempt,) = record.attempts
    assert (attempt.usage, attempt.charge_nano, attempt.cost_nano) == (
        ends[7].usage,
        ends[7].charge.total,
        ends[7].cost.total,
    )
    assert (attempt.status, attempt.user, attempt.streamed, attempt.upstream_id) == ("ok", "user-1", True, "chatcmpl-1")
    assert await Ledger(database).generation(os.urandom(16)) is None
    assert {row[0] for row in query(home, "SELECT price_id FROM price")} == {PRICE_ID, COST_ID}
    await journal.close()
    shipper.close()


@only_sqlite
async def test_a_round_takes_two_trips_to_the_database(folder: Path, database: Database, trips: list[object]) -> None:
    """One inserts rows and asks for what they are added to, one adds it and commits: a round is mostly trips."""
    journal, shipper = begin(folder), Shipper(folder, database)
    meter(journal, 1)
    await shipper.ship()
    for count in (1, 100):
        meter(journal, count)
        meter(journal, count, team="team-b", key_id="other000")
        await asyncio.sleep(0)  # ends are written a turn later
        trips.clear()
        assert (await shipper.ship()).inserted == 2 * count
        assert len(trips) == 2
    await journal.close()
    shipper.close()


@only_sqlite
async def test_nothing_new_costs_no_transaction(folder: Path, home: Path, database: Database) -> None:
    """An idle shipper leaves the database alone, also while attempts are under way."""
    journal, shipper = begin(folder), Shipper(folder, database)
    meter(journal, 3)
    await shipper.ship()
    before = query(home, "PRAGMA data_version"), (home / "weir.db-wal").stat().st_size
    for _ in range(5):
        journal.append(opened())
        assert (await shipper.ship()) == Shipped()
        assert shipper.lag_bytes == 0
    assert (query(home, "PRAGMA data_version"), (home / "weir.db-wal").stat().st_size) == before
    await journal.close()
    shipper.close()


async def test_newest_requests_come_first_with_all_their_attempts(folder: Path, database: Database) -> None:
    """``recent`` gives whole requests, also when they took several attempts."""
    journal, shipper = begin(folder), Shipper(folder, database)
    ends = meter(journal, 5)
    first = opened()
    second = opened(request_id=first.request_id, attempt=2)
    for start, status in ((first, Status.FAILED), (second, Status.OK)):
        journal.append(start)
        journal.append(closed(start, status=status))
    await shipper.ship()
    recent = await Ledger(database).recent(3)
    assert [record.request_id for record in recent] == [
        first.request_id,
        ends[4].request_id,
        ends[3].request_id,
    ]
    assert [attempt.status for attempt in recent[0].attempts] == ["failed", "ok"]
    assert recent[0].created_us == int.from_bytes(first.request_id[:6], "big") * 1000
    assert len(await Ledger(database).recent(100)) == 6
    await journal.close()
    shipper.close()


async def test_a_failed_attempt_is_no_request_of_a_model(folder: Path, home: Path, database: Database) -> None:
    """Boards count the tokens of every attempt, but a failover as one request."""
    journal, shipper = begin(folder), Shipper(folder, database)
    start = opened()
    again = opened(request_id=start.request_id, attempt=2)
    for each, status in ((start, Status.FAILED), (again, Status.OK)):
        journal.append(each)
        journal.append(closed(each, Usage(10, 5), status))
    await shipper.ship()
    ((_, tokens_and_requests),) = totals(home).items()
    assert tokens_and_requests == (30, 1)
    await journal.close()
    shipper.close()


async def test_a_segment_goes_only_when_it_is_shipped_and_left(folder: Path, home: Path, database: Database) -> None:
    """Sealed segments are deleted once they are in the ledger; the one being written stays; nothing is left behind."""
    journal, shipper = begin(folder, segment_bytes=5_000), Shipper(folder, database)
    ends = meter(journal, 60)
    assert len(list_segments(folder)) > 3
    await journal.commit()
    async with asyncio.timeout(20):
        while len(list_segments(folder)) > 1:
            await shipper.ship()
            await asyncio.sleep(0.01)
    ends += meter(journal, 1)
    await journal.close()
    assert (await shipper.ship()).deleted >= 1
    assert list_segments(folder) == []
    assert set(ledger_keys(home)) == {(end.request_id, 1) for end in ends}
    meter(begin(folder), 1)
    await shipper.ship()
    assert len(query(home, "SELECT segment FROM journal_checkpoint")) == 1, "checkpoints of deleted segments go too"
    shipper.close()


async def test_small_batches_ship_the_same(folder: Path, home: Path, database: Database) -> None:
    """A batch limit splits the work in transactions and changes nothing else."""
    journal, shipper = begin(folder), Shipper(folder, database, batch_records=7)
    ends = meter(journal, 50)
    assert (await shipper.ship()).inserted == 50
    assert rollup(home, daily=False) == expected_rollup(ends, daily=False)
    await journal.close()
    shipper.close()


async def test_a_rolled_back_checkpoint_changes_no_sum(folder: Path, home: Path, database: Database) -> None:
    """The same segment shipped twice leaves ledger and rollups as they were, and says so."""
    journal = begin(folder)
    meter(journal, 40)
    shipper = Shipper(folder, database)
    await shipper.ship()
    shipper.close()
    before = dump(home)
    async with database.writer.begin() as connection:
        await connection.exec_driver_sql("UPDATE journal_checkpoint SET position = 0")
    again = Shipper(folder, database)
    more = meter(journal, 2)
    shipped = await again.ship()
    assert (shipped.records, shipped.inserted, shipped.conflicts) == (42, 2, 40)
    assert again.conflicts == 40
    after = dump(home)
    assert len(after["ledger"]) == 42
    assert set(before["ledger"]) < set(after["ledger"])
    assert sum(row[2] for row in query(home, "SELECT 0, 0, requests FROM usage_day")) == 42
    assert more[1].request_id in {row[0] for row in query(home, "SELECT request_id FROM ledger")}
    assert (await audit(folder, database)).ok
    await journal.close()
    again.close()


async def test_two_shippers_take_turns(folder: Path, home: Path, database: Database) -> None:
    """A host has one shipper: a second one is refused until the first gives the lock up, then goes on from there."""
    journal = begin(folder)
    first, second = Shipper(folder, database), Shipper(folder, database)
    meter(journal, 5)
    await first.ship()
    with pytest.raises(ShipperBusy):
        await second.ship()
    meter(journal, 4)
    waiting = asyncio.create_task(second.run())
    await asyncio.sleep(0.2)
    assert len(ledger_keys(home)) == 5
    first.close()
    async with asyncio.timeout(20):
        while len(ledger_keys(home)) < 9:
            await asyncio.sleep(0.02)
    assert second.conflicts == 0, "it begins at the checkpoint"
    waiting.cancel()
    await asyncio.wait([waiting])
    await journal.close()
    second.close()


async def test_two_shippers_at_once_without_the_lock_do_no_harm(
    folder: Path, home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when the lock fails to keep them apart, the ledger's key does."""
    monkeypatch.setattr(Shipper, "_acquire", lambda self: None)
    journal = begin(folder)
    ends = meter(journal, 300)
    other = Database(url_in(home))
    shippers = [Shipper(folder, database, batch_records=20), Shipper(folder, other, batch_records=17)]
    results = await asyncio.gather(*[shipper.ship() for shipper in shippers])
    assert sum(result.inserted for result in results) == 300
    assert rollup(home, daily=True) == expected_rollup(ends, daily=True)
    await journal.close()
    await other.close()


async def test_run_ships_by_itself_and_at_once_when_kicked(folder: Path, home: Path, database: Database) -> None:
    """The loop needs no call per batch; a kick spares the wait for the next round; a bad listener does not end it."""
    told: list[Shipped] = []

    def listen(shipped: Shipped) -> None:
        told.append(shipped)
        raise RuntimeError("a listener's defect")

    journal, shipper = begin(folder), Shipper(folder, database, interval_s=30.0, on_shipped=listen)
    running = asyncio.create_task(shipper.run())
    await asyncio.sleep(0.1)
    for count in (1, 2):
        meter(journal, 1)
        shipper.kick()
        async with asyncio.timeout(20):
            while len(told) < count:
                await asyncio.sleep(0.01)
    assert len(ledger_keys(home)) == 2
    running.cancel()
    await asyncio.wait([running])
    await journal.close()
    shipper.close()


async def test_absurd_usage_does_not_stop_the_books(folder: Path, home: Path, database: Database) -> None:
    """One engine's nonsense is cut and logged; its row and all others are there, once."""
    journal, shipper = begin(folder), Shipper(folder, database)
    start = opened()
    journal.append(start)
    journal.append(closed(start, Usage(10**30, 2**62)))
    meter(journal, 3)
    for _ in range(2):
        await shipper.ship()
    assert len(ledger_keys(home)) == 4
    assert (await audit(folder, database)).ok
    await journal.close()
    shipper.close()


async def test_text_that_a_database_cannot_hold_does_not_stop_the_books(
    folder: Path, home: Path, database: Database
) -> None:
    """PostgreSQL has no character zero; a caller or an engine that sends one gets a row as everybody else."""
    journal, shipper = begin(folder), Shipper(folder, database)
    start = opened(dims(user="us\0er", app="https://a\0.example"))
    journal.append(start)
    end = closed(start)
    journal.append(msgspec.structs.replace(end, upstream_id="chat\0", error="bro\0ken"))
    meter(journal, 2)
    await shipper.ship()
    assert len(ledger_keys(home)) == 3
    found = query(home, f"SELECT end_user, app, upstream_id, error FROM {LABELLED} WHERE error <> ''")
    assert found == [("us\ufffder", "https://a\ufffd.example", "chat\ufffd", "bro\ufffdken")]
    assert (await audit(folder, database)).ok
    await journal.close()
    shipper.close()


async def test_the_event_loop_is_never_held_for_long(folder: Path, database: Database) -> None:
    """A big batch is worked off in slices: other tasks of the loop get many turns while it runs."""
    journal, shipper = begin(folder, durability="process"), Shipper(folder, database)
    meter(journal, 4_000)
    turns, done = 0, False

    async def other() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await shipper.ship()
    done = True
    await task
    assert turns > 120
    await journal.close()
    shipper.close()
