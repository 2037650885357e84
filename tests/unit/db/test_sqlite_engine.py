"""Connections to an SQLite file: opening one that is in the making, and closing all."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.db.engine import Database
from gateway.db.unit_of_work import reading, writing


async def test_whoever_opens_a_file_in_the_making_waits_for_it(tmp_path: Path) -> None:
    """SQLite refuses at once to give a file its log while somebody is about to write: the patience is ours."""
    path = tmp_path / "weir.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE made (number INTEGER)")
    database = Database(f"sqlite+aiosqlite:///{path}")
    asyncio.get_running_loop().call_later(0.1, other.execute, "COMMIT")
    async with database.writer.connect() as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
        assert (await connection.execute(text("SELECT count(*) FROM made"))).scalar() == 0
    other.close()
    await database.close()


async def test_nothing_of_a_database_runs_once_it_is_closed(tmp_path: Path) -> None:
    """Nor the thread of a statement whose asker was cancelled: a loop that ends behind it would leave the file open."""
    before = set(threading.enumerate())
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'weir.db'}")
    long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT count(*) FROM n"

    async def ask() -> None:
        async with reading(database) as session:
            await session.execute(text(long))

    async with writing(database):
        pass  # makes the file
    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await database.close()
    assert set(threading.enumerate()) <= before
