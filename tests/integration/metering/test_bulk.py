"""Transactions on the driver itself are what units of work are: all or nothing, with errors of our vocabulary."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import asyncpg
import pytest

from gateway.db import sqlite as engine
from gateway.db.bulk import bulk, bulk_on
from gateway.db.engine import Database
from gateway.db.unit_of_work import writing
from gateway.types.errors import Unavailable
from tests.integration.metering.books import query
from tests.integration.metering.conftest import only_sqlite, url_of

INSERT = "INSERT INTO model_day_total VALUES (?, ?, 1, 1)"


async def test_it_is_committed_at_its_end(home: Path, database: Database, kind: str) -> None:
    """What was written is there afterwards, with the number of rows and the CPU time that it took."""
    async with bulk(database) as connection:
        assert await connection.write(INSERT, [(day, "m") for day in range(500)]) == 500
        assert await connection.read("SELECT COUNT(*) FROM model_day_total WHERE day < ?", (7,)) == [(7,)]
    assert query(home, "SELECT COUNT(*) FROM model_day_total") == [(500,)]
    assert (connection.seconds > 0) is (kind == "sqlite"), "only SQLite has a thread"


async def test_it_leaves_nothing_when_it_raises_or_is_cancelled(home: Path, database: Database) -> None:
    """However the block is left but by its end, nothing of it stays, and the connection can be used again."""

    async def write_and(fail: bool) -> None:
        async with bulk(database) as connection:
            await connection.write(INSERT, [(1, "m")])
            if fail:
                raise KeyError
            await asyncio.sleep(60)

    with pytest.raises(KeyError):
        await write_and(fail=True)
    task = asyncio.create_task(write_and(fail=False))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait([task])
    assert query(home, "SELECT * FROM model_day_total") == []
    async with bulk(database) as connection:
        await connection.write(INSERT, [(2, "m")])
    assert query(home, "SELECT day FROM model_day_total") == [(2,)]


@only_sqlite
async def test_errors_of_the_driver_are_translated(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A locked database is ``Unavailable``; a broken rule of the schema is not, because repeating it would not help."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 50)
    database = Database(url_of(home / "weir.db"))
    locker = sqlite3.connect(home / "weir.db", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        async with bulk(database):
            pass
    locker.close()
    with pytest.raises(sqlite3.IntegrityError):
        async with bulk(database) as connection:
            await connection.write(INSERT, [(1, "m"), (1, "m")])
    await database.close()
    assert query(home, "SELECT * FROM model_day_total") == []


async def test_what_is_posted_is_there_for_the_next_question(home: Path, database: Database) -> None:
    """Rows that are posted are seen by whatever is asked after them, and are committed with the transaction."""
    columns = ("day", "model", "tokens", "requests")
    async with bulk(database) as connection:
        await connection.post("model_day_total", columns, [(1, "m", 1, 1), (2, "m", 1, 1)])
        assert await connection.read("SELECT COUNT(*) FROM model_day_total", ()) == [(2,)]
        await connection.post("model_day_total", columns, [(3, "m", 1, 1)])
        await connection.post("model_day_total", columns, [])
    assert query(home, "SELECT day FROM model_day_total ORDER BY day") == [(1,), (2,), (3,)]


async def test_a_question_finds_what_was_written_before_it_was_put(home: Path, database: Database) -> None:
    """An answer holds what came before its question, whether another statement went in between or not."""
    count, key = "SELECT COUNT(*) FROM model_day_total", ("day", "model")
    async with bulk(database) as connection:
        unneeded = connection.ask(count, ())
        await connection.post("model_day_total", (*key, "tokens", "requests"), [(1, "m", 7, 1)])
        assert await connection.ask(count, ()) == [(1,)]
        asked = connection.ask_matching("model_day_total", key, ("tokens",), [(1, "m"), (2, "m")])
        alone = connection.ask_matching("model_day_total", key, (), [])
        assert await asked == [(1, "m", 7)]
        assert await alone == []
        await connection.write(INSERT, [(2, "m")])
    del unneeded
    assert query(home, count) == [(2,)]


@only_sqlite
async def test_questions_wait_for_a_trip_on_sqlite(home: Path, trips: list[object]) -> None:
    """Questions and what is posted go with the statement that follows; what nothing follows goes when it is awaited."""
    database = Database(url_of(home / "weir.db"))
    async with bulk(database) as connection:
        trips.clear()
        first = connection.ask("SELECT 1", ())
        await connection.post("model_day_total", ("day", "model", "tokens", "requests"), [(1, "m", 1, 1)])
        second = connection.ask("SELECT tokens FROM model_day_total", ())
        assert trips == []
        assert await connection.write(INSERT, [(2, "m")]) == 1
        assert (await first, await second, len(trips)) == ([(1,)], [(1,)], 1)
        assert await connection.ask("SELECT 3", ()) == [(3,)]
        assert len(trips) == 2
    await database.close()


@only_sqlite
async def test_a_connection_is_rolled_back_unless_its_transaction_was_seen_to_end(
    home: Path, trips: list[object]
) -> None:
    """Putting a connection back is a trip only when something may be left open on it."""
    database = Database(url_of(home / "weir.db"))
    async with bulk(database):
        trips.clear()
    assert len(trips) == 1, "BEGIN and COMMIT"
    begun = asyncio.Event()
    before = asyncio.create_task(_begin(database, begun))
    await begun.wait()
    before.cancel()  # while it waits, its trip done
    await asyncio.wait([before])
    assert len(trips) == 3, "ROLLBACK"
    task = asyncio.create_task(_begin(database, asyncio.Event()))
    while len(trips) == 3:
        await asyncio.sleep(0)
    task.cancel()  # while its trip is under way
    await asyncio.wait([task])
    async with bulk(database) as connection:
        await connection.write(INSERT, [(3, "m")])
    await database.close()
    assert query(home, "SELECT day FROM model_day_total") == [(3,)]


async def _begin(database: Database, begun: asyncio.Event) -> None:
    """Begin a transaction that never ends."""
    async with bulk(database) as connection:
        await connection.write(INSERT, [(1, "m")])
        begun.set()
        await asyncio.Event().wait()


async def test_what_is_posted_goes_with_a_transaction_that_fails(home: Path, database: Database) -> None:
    """Posted rows that break a rule are told of at the end at the latest; nothing of the transaction stays then."""

    async def post(*rows: tuple[int, str, int, int], fail: bool) -> None:
        async with bulk(database) as connection:
            await connection.write(INSERT, [(1, "m")])
            await connection.post("model_day_total", ("day", "model", "tokens", "requests"), rows)
            if fail:
                raise KeyError

    with pytest.raises((sqlite3.IntegrityError, asyncpg.UniqueViolationError)):
        await post((2, "m", 1, 1), (2, "m", 1, 1), fail=False)
    with pytest.raises(KeyError):
        await post((3, "m", 1, 1), fail=True)
    assert query(home, "SELECT * FROM model_day_total") == []


async def test_in_a_unit_of_work_what_is_posted_is_written_at_once(home: Path, database: Database) -> None:
    """Where the transaction is somebody else's, nothing waits: that one's end knows nothing of it."""
    async with writing(database) as session:
        connection = await bulk_on(await session.connection())
        await connection.post("model_day_total", ("day", "model", "tokens", "requests"), [(1, "m", 1, 1)])
    assert query(home, "SELECT day FROM model_day_total") == [(1,)]
