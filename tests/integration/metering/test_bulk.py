"""Transactions on the driver itself are what units of work are: all or nothing, with errors of our vocabulary."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from gateway.db import sqlite as engine
from gateway.db.bulk import bulk
from gateway.db.engine import Database
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
