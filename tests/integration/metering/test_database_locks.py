"""Whoever looks into the ledger file from outside, a backup or a curious operator, does no harm to a running keeper."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sqlalchemy import text

from gateway.db.engine import Database

_LOOK = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('select count(*) from t').fetchone()[0])"


def looked(path: Path) -> int:
    """Open the file in another process, count the rows, close it again."""
    done = subprocess.run([sys.executable, "-c", _LOOK, str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout)


async def test_a_look_from_outside_removes_nothing(tmp_path: Path) -> None:
    """The write-ahead log stays the one that is written to, with every connection of the pools open or not.

    SQLite removes the log with the last connection to the file. A process that drops its locks, as closing any other
    descriptor of the file does, is not seen; rows committed afterwards would go into a removed log.
    """
    path = tmp_path / "weir.db"
    database = Database(f"sqlite+aiosqlite:///{path}")
    try:
        async with database.writer.begin() as connection:
            await connection.execute(text("CREATE TABLE t (n INTEGER)"))
        for number in range(1, 4):
            async with database.reader.connect() as one, database.reader.connect() as other:
                await one.execute(text("SELECT 1"))
                await other.execute(text("SELECT 1"))
            log = path.with_name("weir.db-wal").stat().st_ino
            assert looked(path) == number - 1
            assert path.with_name("weir.db-wal").stat().st_ino == log
            async with database.writer.begin() as connection:
                await connection.execute(text("INSERT INTO t VALUES (1)"))
            assert looked(path) == number
    finally:
        await database.close()
    assert looked(path) == 3
