"""The database away, locked, or lost in the middle of a commit: the journal waits and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from gateway.db import sqlite as engine
from gateway.db.bulk import Bulk, bulk
from gateway.db.engine import Database
from gateway.db.unit_of_work import reading, writing
from gateway.metering import rollups
from gateway.metering.audit import audit
from gateway.metering.record import Close
from gateway.metering.segments import list_segments
from gateway.metering.shipper import Shipper
from gateway.types.errors import Unavailable
from tests.integration.metering.books import URL, expected_rollup, ledger_keys, query, rollup
from tests.integration.metering.conftest import only_postgres, only_sqlite, url_of
from tests.integration.metering.samples import begin, meter

WAITING = """SELECT COUNT(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE NOT granted AND datname = current_database()"""
"""How many locks of this database somebody waits for."""


async def until_shipped(home: Path, count: int) -> None:
    """Wait until the ledger has ``count`` rows."""
    async with asyncio.timeout(60):
        while len(ledger_keys(home)) < count:
            await asyncio.sleep(0.05)


@only_sqlite
async def test_a_locked_database_is_waited_for(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While something else holds the database's lock, the lag grows and requests go on; then all of it is shipped."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 50)
    database = Database(url_of(home / "weir.db"))
    journal, shipper = begin(folder, segment_bytes=20_000), Shipper(folder, database, interval_s=0.02)
    ends = meter(journal, 10)
    locker = sqlite3.connect(home / "weir.db", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        await shipper.ship()
    with capture_logs() as logs:
        running = asyncio.create_task(shipper.run())
        for _ in range(10):
            ends += meter(journal, 20)
            await asyncio.sleep(0.05)
        assert shipper.lag_bytes > 0
        assert shipper.oldest_unshipped_s > 0
        assert len(list_segments(folder)) > 1, "nothing is deleted before it is shipped"
        assert len(ledger_keys(home)) == 0
        async with asyncio.timeout(60):
            while "shipping_failed" not in {entry["event"] for entry in logs}:
                await asyncio.sleep(0.05)
        locker.execute("ROLLBACK")
        locker.close()
        await until_shipped(home, 210)
    assert rollup(home, daily=True) == expected_rollup(ends, daily=True)
    running.cancel()
    await asyncio.wait([running])
    assert (await audit(folder, database)).ok
    await journal.close()
    shipper.close()
    await database.close()


@only_sqlite
async def test_a_database_that_is_away_is_waited_for(folder: Path, home: Path) -> None:
    """A database whose place cannot be reached, from the very start, is tried until it is there."""
    away = home / "away"
    away.write_text("a file where the folder should be")
    database = Database(url_of(away / "weir.db"))
    journal, shipper = begin(folder), Shipper(folder, database, interval_s=0.02)
    meter(journal, 25)
    with pytest.raises(Unavailable):
        await shipper.ship()
    assert shipper.lag_bytes > 0
    running = asyncio.create_task(shipper.run())
    await asyncio.sleep(0.3)
    assert not running.done()
    away.unlink()
    away.mkdir()
    (home / "weir.db").rename(away / "weir.db")
    (away / URL).write_text(url_of(away / "weir.db"))
    await until_shipped(away, 25)
    running.cancel()
    await asyncio.wait([running])
    await journal.close()
    shipper.close()
    await database.close()


async def test_an_error_nobody_expected_does_not_end_the_loop(
    folder: Path, home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect in the middle of a batch rolls it back whole, is logged with its trace, and the batch is tried again."""
    failures = iter([ZeroDivisionError("a defect")] * 3)
    real = rollups.post

    async def fail(*args: object) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        await real(*args)  # type: ignore[arg-type] # passed through

    monkeypatch.setattr(rollups, "post", fail)
    journal, shipper = begin(folder), Shipper(folder, database, interval_s=0.02)
    ends = meter(journal, 9)
    with pytest.raises(ZeroDivisionError):
        await shipper.ship()
    assert len(ledger_keys(home)) == 0
    with capture_logs() as logs:
        running = asyncio.create_task(shipper.run())
        await until_shipped(home, 9)
    assert any(entry.get("exc_info") for entry in logs if entry["event"] == "shipping_failed")
    assert rollup(home, daily=False) == expected_rollup(ends, daily=False)
    running.cancel()
    await asyncio.wait([running])
    await journal.close()
    shipper.close()


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_commit_whose_outcome_is_unknown_is_repeated(
    folder: Path, home: Path, database: Database, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """When the connection breaks around COMMIT, the batch may or may not be in: repeating it counts it once."""
    broken = [True]
    real = Shipper._write

    async def write(self: Shipper, *args: object) -> object:
        if broken.pop() if broken else False:
            if moment == "after":
                await real(self, *args)  # type: ignore[arg-type] # passed through
            raise Unavailable("the connection broke")
        return await real(self, *args)  # type: ignore[arg-type] # passed through

    monkeypatch.setattr(Shipper, "_write", write)
    journal, shipper = begin(folder), Shipper(folder, database)
    ends = meter(journal, 15)
    with pytest.raises(Unavailable):
        await shipper.ship()
    shipped = await shipper.ship()
    assert (shipped.inserted, shipped.conflicts) == ((0, 15) if moment == "after" else (15, 0))
    assert rollup(home, daily=False) == expected_rollup(ends, daily=False)
    assert (await audit(folder, database)).ok
    await journal.close()
    shipper.close()


async def test_a_cancelled_batch_is_rolled_back_whole(folder: Path, home: Path, database: Database) -> None:
    """A shipper stopped at any moment leaves whole batches only; the next one goes on."""
    journal = begin(folder)
    ends: list[Close] = []
    for delay in (0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03):
        ends += meter(journal, 150)
        shipper = Shipper(folder, database, batch_records=40)
        task = asyncio.create_task(shipper.ship())
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        shipper.close()
        assert (await audit(folder, database)).mismatches == ()
    shipper = Shipper(folder, database)
    await shipper.ship()
    assert set(ledger_keys(home)) == {(end.request_id, 1) for end in ends}
    assert rollup(home, daily=True) == expected_rollup(ends, daily=True)
    await journal.close()
    shipper.close()


async def test_a_unit_that_raises_leaves_nothing(home: Path, database: Database) -> None:
    """A writing unit is all or nothing, and a reading one cannot write."""

    async def write_and_raise() -> None:
        async with writing(database) as session:
            await session.execute(text("INSERT INTO model_day_total VALUES (1, 'm', 1, 1)"))
            raise KeyError

    with pytest.raises(KeyError):
        await write_and_raise()
    assert query(home, "SELECT * FROM model_day_total") == []
    async with writing(database) as session:
        await session.execute(text("INSERT INTO model_day_total VALUES (1, 'm', 1, 1)"))
    with pytest.raises(Unavailable):
        async with reading(database) as session:
            await session.execute(text("INSERT INTO model_day_total VALUES (2, 'm', 1, 1)"))
    assert query(home, "SELECT day FROM model_day_total") == [(1,)]


async def test_a_reading_unit_sees_one_state(database: Database) -> None:
    """What is written while a reading unit is open is not seen in it: an audit compares one moment."""
    async with reading(database) as session:
        count = text("SELECT COUNT(*) FROM model_day_total")
        assert await session.scalar(count) == 0
        async with writing(database) as writer:
            await writer.execute(text("INSERT INTO model_day_total VALUES (1, 'm', 1, 1)"))
        assert await session.scalar(count) == 0
    async with reading(database) as session:
        assert await session.scalar(count) == 1


@only_sqlite
async def test_errors_carry_neither_statements_nor_values(database: Database) -> None:
    """What is said of a database error names no value that was written: it may be a user's."""
    with pytest.raises(Unavailable) as caught:
        async with writing(database) as session:
            await session.execute(text("INSERT INTO no_such_table VALUES (:secret)"), {"secret": "canary"})
    shown = repr(caught.value) + repr(caught.value.__cause__)
    assert "canary" not in shown
    assert "INSERT" not in shown


@only_postgres
async def test_a_deadlock_is_tried_again(
    folder: Path, home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that the server ends, for it and another transaction wait for each other, is written once, at once."""
    journal, shipper = begin(folder), Shipper(folder, database)
    ends = meter(journal, 3)
    await shipper.ship()
    ends += meter(journal, 5)
    tries: list[object] = []
    inserted = asyncio.Event()
    real = rollups.post

    async def post(connection: Bulk, *args: Any) -> None:
        tries.append(args)
        inserted.set()
        # Who has waited so long looks for a deadlock, once: this one when the other waits for it in turn.
        await connection.run("SET LOCAL deadlock_timeout = '4s'")
        await real(connection, *args)

    monkeypatch.setattr(rollups, "post", post)
    async with bulk(database) as other:
        await other.run("SET LOCAL deadlock_timeout = '60s'")
        await other.guard()
        shipping = asyncio.create_task(shipper.ship())
        await inserted.wait()
        async with asyncio.timeout(60):
            while query(home, WAITING) == [(0,)]:
                await asyncio.sleep(0.01)
        # The batch has the ledger and wants the rollups; this has the rollups and wants the ledger.
        await other.run("LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE")
    assert (await shipping).inserted == 5
    assert len(tries) == 2
    assert rollup(home, daily=False) == expected_rollup(ends, daily=False)
    assert (await audit(folder, database)).ok
    await journal.close()
    shipper.close()
