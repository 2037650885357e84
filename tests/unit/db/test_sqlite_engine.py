"""Opening an SQLite file that another process has just begun to make."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from sqlalchemy import text

from gateway.db.engine import Database


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
