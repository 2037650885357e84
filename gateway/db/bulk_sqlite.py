"""Many rows into SQLite: one trip to the connection's thread for each statement, and many rows in each.

The toolkit makes three trips (cursor, execute, close). A statement per row would hand the interpreter's lock back and
forth between the event loop and the database's thread. The connection is the writer's, so all that
``gateway.db.sqlite`` says of it holds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from itertools import chain, groupby
from typing import Any, Final

import aiosqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db.bulk import Bulk, Group, Row
from gateway.db.engine import thread_seconds

_SIZES: Final = (256, 16, 1)
"""Rows per statement: few sizes, so that the driver finds each statement prepared and no number takes many trips.

256 rows of 56 columns are 14,336 parameters; SQLite takes 32,766.
"""


class SqliteBulk(Bulk):
    """A transaction on SQLite."""

    __slots__ = ("_connection", "_driver", "_since")

    def __init__(self, connection: AsyncConnection, driver: aiosqlite.Connection) -> None:
        super().__init__()
        self._connection = connection
        self._driver = driver
        self._since = thread_seconds(connection)

    @classmethod
    async def of(cls, connection: AsyncConnection) -> SqliteBulk:
        """Return the transaction that is open on ``connection``, or that is to be opened on it."""
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, aiosqlite.Connection)
        return cls(connection, driver)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Open the transaction."""
        # Left without COMMIT, it is rolled back when the connection goes back to its pool.
        await self.run("BEGIN IMMEDIATE")
        yield
        await self.run("COMMIT")

    async def run(self, sql: str) -> None:
        """Run a statement without values."""
        await self._driver.execute(sql)

    async def write(self, sql: str, values: Iterable[Sequence[Any]]) -> int:
        """Run a statement once for each of ``values`` and return how many rows it wrote in all."""
        return (await self._driver.executemany(sql, values)).rowcount

    async def read(self, sql: str, values: Sequence[Any]) -> list[Row]:
        """Return the rows of a query."""
        return list(await self._driver.execute_fetchall(sql, values))  # type: ignore[arg-type] # rows are tuples

    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row], after: str = "") -> int:
        """Insert rows; return how many were written."""
        names = ", ".join(columns)
        written = 0
        for size, pieces in groupby(_pieces(rows), len):
            values = placeholders(size, len(columns))
            sql = f"INSERT INTO {table} ({names}) VALUES {values} {after}"  # noqa: S608 - only names of ours
            # One piece at a time: all of a batch flat as well would double what it takes.
            written += await self.write(sql, map(tuple, map(chain.from_iterable, pieces)))
        return written

    async def insert_new(self, table: str, key: Sequence[str], groups: Sequence[Group]) -> set[Row] | None:
        """Insert those rows whose key is not there; return None when all were new, else the keys of those that were."""
        await self.run("SAVEPOINT fresh")
        inserted = 0
        for columns, rows in groups:
            inserted += await self.insert(table, columns, rows, "ON CONFLICT DO NOTHING")
        if inserted == sum(len(rows) for _, rows in groups):
            return None
        # Some were there before. The driver cannot say which, so look and insert the others alone.
        await self.run("ROLLBACK TO fresh")
        wanted = sorted({row[: len(key)] for _, rows in groups for row in rows})
        seen = set(await self.matching(table, key, (), wanted))
        new: set[Row] = set()
        for columns, rows in groups:
            fresh: list[Row] = []
            for row in rows:
                if row[: len(key)] not in seen:
                    seen.add(row[: len(key)])
                    fresh.append(row)
            await self.insert(table, columns, fresh)
            new.update(row[: len(key)] for row in fresh)
        return new

    async def matching(self, table: str, key: Sequence[str], also: Sequence[str], keys: Sequence[Row]) -> list[Row]:
        """Return ``key`` and ``also`` of the rows of ``table`` whose ``key`` is one of ``keys``.

        The keys are joined as a table: SQLite looks each of them up in the index then, while it goes through the whole
        table for a list of keys after ``IN``.
        """
        names = ", ".join(key)
        matches = " AND ".join(f"found.{name} = wanted.{name}" for name in key)
        columns = ", ".join(f"found.{name}" for name in (*key, *also))
        found: list[Row] = []
        for some in _pieces(keys):
            values = placeholders(len(some), len(key))
            # Only names of ours are put into the statement.
            sql = (
                f"WITH wanted ({names}) AS (VALUES {values}) "  # noqa: S608
                f"SELECT {columns} FROM wanted CROSS JOIN {table} AS found WHERE {matches}"
            )
            found += await self.read(sql, tuple(chain.from_iterable(some)))
        return found

    async def guard(self) -> None:
        """Do nothing: there is one writing transaction at a time."""

    async def make_room(self, table: str, days: Iterable[int]) -> None:
        """Do nothing: there are no partitions."""

    async def rooms(self, table: str) -> list[int]:  # noqa: ARG002 - only PostgreSQL needs it
        """Return nothing: there are no partitions."""
        return []

    async def drop_room(self, table: str, day: int) -> None:
        """Do nothing: there are no partitions."""

    def measure(self) -> None:
        """Bring ``seconds`` up to date."""
        self.seconds = thread_seconds(self._connection) - self._since


def _pieces(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Cut ``rows`` into pieces of the sizes that statements have."""
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


@lru_cache(maxsize=64)
def placeholders(rows: int, columns: int) -> str:
    """Return ``rows`` groups of ``columns`` placeholders."""
    return ", ".join([f"({', '.join('?' * columns)})"] * rows)
