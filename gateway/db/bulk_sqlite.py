"""Many rows into SQLite: many rows in each statement, and many statements in each trip to the connection's thread.

The toolkit makes three trips for a statement (cursor, execute, close), and a trip costs as much CPU as twenty rows.
Here the beginning of a transaction and whatever is posted or asked wait for the next statement whose outcome is needed
at once, and go with it. A statement per row would hand the interpreter's lock back and forth between the event loop and
the database's thread. The connection is the writer's, so all that ``gateway.db.sqlite`` says of it holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from itertools import chain, groupby
from typing import Any, Final, TypeVar

import aiosqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db.bulk import Answer, Bulk, Group, Row
from gateway.db.engine import thread_seconds
from gateway.db.sqlite import ENDED

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
"""What the connection's thread is to do."""

_SIZES: Final = (64, 8, 1)
"""Rows per statement: few sizes, so that the driver finds each statement prepared and no number takes many trips.

One of 64 rows of the ledger takes 150 kB for as long as the connection lives, one of 256 takes 600, and is 1 % quicker.
"""


class SqliteBulk(Bulk):
    """A transaction on SQLite."""

    __slots__ = ("_connection", "_driver", "_open", "_since", "_waiting")

    def __init__(self, connection: AsyncConnection, driver: aiosqlite.Connection) -> None:
        super().__init__()
        self._connection = connection
        self._driver = driver
        self._since = thread_seconds(connection)
        self._open = False
        self._waiting: list[Work[object]] = []

    @classmethod
    async def of(cls, connection: AsyncConnection) -> SqliteBulk:
        """Return the transaction that is open on ``connection``, or that is to be opened on it."""
        assert connection.sync_connection is not None
        # The toolkit's own way there is as long as that of a statement, in case there is no connection yet.
        driver = connection.sync_connection.connection.driver_connection
        assert isinstance(driver, aiosqlite.Connection)
        return cls(connection, driver)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Open the transaction: with the first statement in it."""
        # Left without COMMIT, it is rolled back when the connection goes back to its pool.
        self._waiting, self._open = [partial(_run, "BEGIN IMMEDIATE")], True
        yield
        await self.run("COMMIT")
        self._open = False
        if self._connection.sync_connection is not None:
            self._connection.sync_connection.info[ENDED] = True

    async def _trip(self, last: Work[T]) -> T:
        """Do what waits, then ``last``, in one trip to the connection's thread; return what ``last`` returns."""
        waiting, self._waiting = self._waiting, []
        driver: Any = self._driver

        def work() -> T:
            connection = driver._conn  # noqa: SLF001 - of the two calls that the driver makes all others of
            for each in waiting:
                each(connection)
            return last(connection)

        done: T = await driver._execute(work)  # noqa: SLF001 - see above
        return done

    async def run(self, sql: str) -> None:
        """Run a statement without values."""
        await self._trip(partial(_run, sql))

    async def write(self, sql: str, values: Iterable[Sequence[Any]]) -> int:
        """Run a statement once for each of ``values`` and return how many rows it wrote in all."""
        return await self._trip(lambda connection: connection.executemany(sql, values).rowcount)

    async def read(self, sql: str, values: Sequence[Any]) -> list[Row]:
        """Return the rows of a query."""
        return await self._trip(partial(_read, sql, values))

    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row], after: str = "") -> int:
        """Insert rows; return how many were written."""
        return await self._trip(partial(_insert, table, [(columns, rows)], after)) if rows else 0

    async def post(self, table: str, columns: Sequence[str], rows: Sequence[Row], after: str = "") -> None:
        """Insert rows with the next trip, the one that ends the transaction if need be."""
        if not self._open:
            await self.insert(table, columns, rows, after)
        elif rows:
            self._waiting.append(partial(_insert, table, [(columns, rows)], after))

    async def insert_new(self, table: str, key: Sequence[str], groups: Sequence[Group]) -> set[Row] | None:
        """Insert those rows whose key is not there; return None when all were new, else the keys of those that were."""
        self._waiting.append(partial(_run, "SAVEPOINT fresh"))
        inserted = await self._trip(partial(_insert, table, groups, "ON CONFLICT DO NOTHING"))
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
        return await self._trip(partial(_matching, table, key, also, keys)) if keys else []

    def ask(self, sql: str, values: Sequence[Any]) -> Answer:
        """Ask for the rows of a query with the next trip."""
        return self._asked(partial(_read, sql, values))

    def ask_matching(self, table: str, key: Sequence[str], also: Sequence[str], keys: Sequence[Row]) -> Answer:
        """Ask for what ``matching`` returns with the next trip."""
        return self._asked(partial(_matching, table, key, also, keys))

    def _asked(self, work: Work[list[Row]]) -> Answer:
        """Return the answer of ``work``, which is done with the next trip."""
        found: list[list[Row]] = []

        async def get() -> list[Row]:
            if not found:
                await self._trip(_nothing)
            return found[0]

        self._waiting.append(lambda connection: found.append(work(connection)))
        return Answer(get)

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


def _run(sql: str, connection: sqlite3.Connection) -> None:
    """Run a statement without values."""
    connection.execute(sql)


def _read(sql: str, values: Sequence[Any], connection: sqlite3.Connection) -> list[Row]:
    """Return the rows of a query."""
    return connection.execute(sql, values).fetchall()


def _nothing(connection: sqlite3.Connection) -> None:
    """Do nothing: a trip for the sake of what waits."""


def _matching(
    table: str, key: Sequence[str], also: Sequence[str], keys: Sequence[Row], connection: sqlite3.Connection
) -> list[Row]:
    """Return ``key`` and ``also`` of the rows of ``table`` whose ``key`` is one of ``keys``."""
    names = ", ".join(key)
    matches = " AND ".join(f"found.{name} = wanted.{name}" for name in key)
    columns = ", ".join(f"found.{name}" for name in (*key, *also))
    found: list[Row] = []
    for some in _pieces(keys):
        values = placeholders(len(some), len(key))
        # Only names of ours are put into the statement.
        sql = (
            f"WITH wanted ({names}) AS (VALUES {values}) "  # noqa: S608 - as said
            f"SELECT {columns} FROM wanted CROSS JOIN {table} AS found WHERE {matches}"
        )
        found += connection.execute(sql, tuple(chain.from_iterable(some)))
    return found


def _insert(table: str, groups: Sequence[Group], after: str, connection: sqlite3.Connection) -> int:
    """Insert rows; return how many were written."""
    written = 0
    for columns, rows in groups:
        for size, pieces in groupby(_pieces(rows), len):
            sql = _insertion(table, tuple(columns), size, after)
            # One piece at a time: all of a batch flat as well would double what it takes.
            written += connection.executemany(sql, map(tuple, map(chain.from_iterable, pieces))).rowcount
    return written


def _pieces(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Cut ``rows`` into pieces of the sizes that statements have."""
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


@lru_cache(maxsize=128)
def _insertion(table: str, columns: tuple[str, ...], rows: int, after: str) -> str:
    """Return the statement that inserts so many ``rows``."""
    values = placeholders(rows, len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {values} {after}"  # noqa: S608 - only names of ours


@lru_cache(maxsize=64)
def placeholders(rows: int, columns: int) -> str:
    """Return ``rows`` groups of ``columns`` placeholders."""
    return ", ".join([f"({', '.join('?' * columns)})"] * rows)
