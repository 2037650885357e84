"""Transactions that write many rows: the driver's own calls, past the toolkit.

What a batch of the shipper needs is said here once; ``gateway.db.bulk_sqlite`` and ``gateway.db.bulk_postgresql`` do it
each in their way. Unlike writing units, several may run at once on PostgreSQL: inserts sort their rows, so that two
cannot wait for each other, and ``guard`` lets one at a time read, change and write back.

Names of tables and columns are constants of ours, never made of input. Errors are translated as in a unit of work, see
``gateway.db.unit_of_work.translated``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, ClassVar

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db.engine import Database
from gateway.db.unit_of_work import translated

Row = tuple[Any, ...]
Group = tuple[Sequence[str], Sequence[Row]]
"""Names of columns, and rows of them."""


class Answer:
    """The rows that a question finds: await it, once, to have them.

    The question is put in its turn among what is written, at the latest when the answer is awaited. An answer that is
    not needed after all need not be awaited.
    """

    __slots__ = ("_get",)

    def __init__(self, get: Callable[[], Awaitable[list[Row]]]) -> None:
        self._get = get

    def __await__(self) -> Generator[Any, None, list[Row]]:
        """Return the rows."""
        return self._get().__await__()


class Bulk(ABC):
    """A transaction that is open on a connection.

    Attributes:
        seconds: CPU seconds that a thread of the connection's own took for it so far.
    """

    __slots__ = ("seconds",)

    FOR_SHARE: ClassVar[str] = ""
    """What a query ends with so that its rows stay as they are until the transaction ends."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @abstractmethod
    async def run(self, sql: str) -> None:
        """Run a statement without values."""

    @abstractmethod
    async def write(self, sql: str, values: Iterable[Sequence[Any]]) -> int:
        """Run a statement once for each of ``values``, which stand for its ``?``; return how many rows it wrote."""

    @abstractmethod
    async def read(self, sql: str, values: Sequence[Any]) -> list[Row]:
        """Return the rows of a query; ``values`` stand for its ``?``."""

    @abstractmethod
    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row], after: str = "") -> int:
        """Insert rows; return how many were written.

        Args:
            table: name of the table.
            columns: names of the values of each row.
            rows: in the order of the primary key, where others may write the same.
            after: what follows the values, such as ``ON CONFLICT DO NOTHING``.
        """

    async def post(self, table: str, columns: Sequence[str], rows: Sequence[Row], after: str = "") -> None:
        """Insert rows as ``insert`` does, at the latest before the next question or the transaction's end is answered.

        What is wrong with them is raised there.
        """
        await self.insert(table, columns, rows, after)

    @abstractmethod
    async def insert_new(self, table: str, key: Sequence[str], groups: Sequence[Group]) -> set[Row] | None:
        """Insert those rows whose key ``table`` does not hold; of rows with one key the first one counts.

        Returns:
            None when all of them were new, else the keys of those that were.

        Args:
            table: name of the table.
            key: its primary key, with which the columns of each group begin.
            groups: rows of different columns; those that are missing get their defaults.
        """

    @abstractmethod
    async def matching(self, table: str, key: Sequence[str], also: Sequence[str], keys: Sequence[Row]) -> list[Row]:
        """Return ``key`` and ``also`` of the rows of ``table`` whose ``key`` is one of ``keys``.

        Args:
            table: name of the table.
            key: names of columns that begin the primary key, in its order.
            also: names of more columns to return.
            keys: values of ``key``.
        """

    def ask(self, sql: str, values: Sequence[Any]) -> Answer:
        """Ask for what ``read`` returns; where it saves a trip, the question waits for the next one."""
        return Answer(partial(self.read, sql, values))

    def ask_matching(self, table: str, key: Sequence[str], also: Sequence[str], keys: Sequence[Row]) -> Answer:
        """Ask for what ``matching`` returns; where it saves a trip, the question waits for the next one."""
        return Answer(partial(self.matching, table, key, also, keys))

    @abstractmethod
    async def guard(self) -> None:
        """Wait until no other transaction is past this point; from here to its end this one is alone."""

    @abstractmethod
    async def make_room(self, table: str, days: Iterable[int]) -> None:
        """See to it that ``table`` can take rows of ``days``, where it is cut into days."""

    @abstractmethod
    async def rooms(self, table: str) -> list[int]:
        """Return the days for which ``table`` has a piece of its own, in order."""

    @abstractmethod
    async def drop_room(self, table: str, day: int) -> None:
        """Drop the piece of ``table`` that has the rows of ``day``."""

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[None]:
        """Open the transaction: committed when the block ends, else rolled back."""

    @abstractmethod
    def measure(self) -> None:
        """Bring ``seconds`` up to date."""


async def bulk_on(connection: AsyncConnection) -> Bulk:
    """Return the transaction that is open on ``connection``, or that is to be opened on it."""
    # Each driver is imported by who uses it.
    if connection.dialect.name == "postgresql":
        from gateway.db.bulk_postgresql import PostgresqlBulk  # noqa: PLC0415 - see above

        return await PostgresqlBulk.of(connection)
    from gateway.db.bulk_sqlite import SqliteBulk  # noqa: PLC0415 - see above

    return await SqliteBulk.of(connection)


@asynccontextmanager
async def bulk(database: Database) -> AsyncIterator[Bulk]:
    """Open a writing transaction: committed when the block ends, rolled back when it raises or is cancelled.

    Raises:
        Unavailable: the database cannot be used now; nothing of the transaction is to be relied on. ``Overtaken`` when
            it lost against another one and may be repeated at once.
    """
    with translated():
        async with database.writer.connect() as connection:
            opened = await bulk_on(connection)
            async with opened.transaction():
                yield opened
            opened.measure()
