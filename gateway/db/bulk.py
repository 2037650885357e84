"""Transactions that write many rows: the driver's own calls, past the toolkit.

The toolkit makes three trips to the connection's thread for each statement (cursor, execute, close), and a batch of
the shipper is a dozen statements; here it is one trip each. The connection is the writer's, so all that
``gateway.db.engine`` says of it holds.

Errors are translated as in a unit of work, see ``gateway.db.unit_of_work.translated``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiosqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db.engine import Database, thread_seconds
from gateway.db.unit_of_work import translated

Row = tuple[Any, ...]


class Bulk:
    """A transaction that is open on a connection.

    Attributes:
        seconds: CPU seconds that the connection's thread took for it so far.
    """

    __slots__ = ("_connection", "_driver", "_since", "seconds")

    def __init__(self, connection: AsyncConnection, driver: aiosqlite.Connection) -> None:
        self.seconds = 0.0
        self._connection = connection
        self._driver = driver
        self._since = thread_seconds(connection)

    @classmethod
    async def of(cls, connection: AsyncConnection) -> Bulk:
        """Return the transaction that is open on ``connection``, or that is to be opened on it."""
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, aiosqlite.Connection)
        return cls(connection, driver)

    async def run(self, sql: str) -> None:
        """Run a statement without values."""
        await self._driver.execute(sql)

    async def write(self, sql: str, values: Iterable[Sequence[Any]]) -> int:
        """Run a statement once for each of ``values`` and return how many rows it wrote in all."""
        return (await self._driver.executemany(sql, values)).rowcount

    async def read(self, sql: str, values: Sequence[Any]) -> list[Row]:
        """Return the rows of a query."""
        return list(await self._driver.execute_fetchall(sql, values))  # type: ignore[arg-type] # rows are tuples

    def measure(self) -> None:
        """Bring ``seconds`` up to date."""
        self.seconds = thread_seconds(self._connection) - self._since


@asynccontextmanager
async def bulk(database: Database) -> AsyncIterator[Bulk]:
    """Open a writing transaction: committed when the block ends, rolled back when it raises or is cancelled.

    Raises:
        Unavailable: the database cannot be used now; nothing of the transaction is to be relied on.
    """
    with translated():
        async with database.writer.connect() as connection:
            opened = await Bulk.of(connection)
            # Left without COMMIT, the transaction is rolled back when the connection goes back to its pool.
            await opened.run("BEGIN IMMEDIATE")
            yield opened
            await opened.run("COMMIT")
            opened.measure()
