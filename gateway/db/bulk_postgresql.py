"""Many rows into PostgreSQL: ``COPY`` for the ledger, arrays for the rest.

New rows of the ledger are copied straight into it, in the order of their key: as a rule all of them are new. When one
is not, the server says so and takes the copy back. Then they go to a staging table, which is temporary and emptied by
every commit, and from there with ``ON CONFLICT DO NOTHING``; the rows that were really made are named. Rows of other
tables go as one array per column in one statement, however many they are.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from itertools import count
from operator import itemgetter
from typing import Any, Final

import asyncpg
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, Table
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import SQLModel

from gateway.db.bulk import Bulk, Group, Row
from gateway.db.partitions import Driver, attach, drop, kept, missing
from gateway.db.postgresql import ROLLUPS

_STAGED: Final = "weir_staged"
"""Where a connection's ``info`` has the names of the staging tables that were made on it and committed."""
_MANY: Final = 64
"""From so many rows on they are copied: the driver looks at every value of an array three times."""


class PostgresqlBulk(Bulk):
    """A transaction on PostgreSQL."""

    __slots__ = ("_driver", "_kept", "_used")

    FOR_SHARE = " FOR SHARE"

    def __init__(self, driver: Driver, kept: set[str]) -> None:
        super().__init__()
        self._driver = driver
        self._kept = kept
        self._used: set[str] = set()

    @classmethod
    async def of(cls, connection: AsyncConnection) -> PostgresqlBulk:
        """Return the transaction that is open on ``connection``, or that is to be opened on it."""
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, asyncpg.Connection)
        info = connection.sync_connection.info if connection.sync_connection is not None else {}
        return cls(driver, info.setdefault(_STAGED, set()))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Open the transaction."""
        async with self._driver.transaction():
            yield
        self._kept |= self._used

    async def run(self, sql: str) -> None:
        """Run a statement without values."""
        await self._driver.execute(sql)

    async def write(self, sql: str, values: Iterable[Sequence[Any]]) -> int:
        """Run a statement once for each of ``values`` and return how many rows it wrote in all."""
        numbered, written = _numbered(sql), 0
        for each in values:
            written += _rows(await self._driver.execute(numbered, *each))
        return written

    async def read(self, sql: str, values: Sequence[Any]) -> list[Row]:
        """Return the rows of a query."""
        return list(map(tuple, await self._driver.fetch(_numbered(sql), *values)))

    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row], after: str = "") -> int:
        """Insert rows; return how many were written."""
        if not rows:
            return 0
        if len(rows) >= _MANY:
            staging = await self._staging(table)
            await self._copy(staging, [(columns, list(zip(*_transposed(table, columns, rows), strict=True)))])
            names = ", ".join(columns)
            sql = f"INSERT INTO {table} ({names}) SELECT {names} FROM {staging} {after}"  # noqa: S608 - ours
            return _rows(await self._driver.execute(sql))
        values = _arrays(table, tuple(columns))
        sql = f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM {values} {after}"  # noqa: S608 - names of ours
        return _rows(await self._driver.execute(sql, *_transposed(table, columns, rows)))

    async def insert_new(self, table: str, key: Sequence[str], groups: Sequence[Group]) -> set[Row] | None:
        """Insert those rows whose key is not there; return None when all were new, else the keys of those that were."""
        undo = self._driver.transaction()
        await undo.start()
        try:
            in_order = itemgetter(*range(len(key)))
            await self._copy(table, [(columns, sorted(rows, key=in_order)) for columns, rows in groups])
        except asyncpg.UniqueViolationError:
            # Some were there before, or are here twice: of those the first counts.
            await undo.rollback()
        else:
            await undo.commit()
            return None
        staging = await self._staging(table)
        await self._copy(staging, _first_ones(groups, len(key)))
        names = ", ".join(dict.fromkeys(name for columns, _ in groups for name in columns))
        key_list = ", ".join(key)
        move = (
            f"INSERT INTO {table} ({names}) SELECT {names} FROM {staging} ORDER BY {key_list} "  # noqa: S608 - ours
            f"ON CONFLICT DO NOTHING RETURNING {key_list}"
        )
        return set(map(tuple, await self._driver.fetch(move)))

    async def matching(self, table: str, key: Sequence[str], also: Sequence[str], keys: Sequence[Row]) -> list[Row]:
        """Return ``key`` and ``also`` of the rows of ``table`` whose ``key`` is one of ``keys``."""
        if not keys:
            return []
        matches = " AND ".join(f"found.{name} = wanted.{name}" for name in key)
        columns = ", ".join(f"found.{name}" for name in (*key, *also))
        wanted = f"{_arrays(table, tuple(key))} AS wanted ({', '.join(key)})"
        sql = f"SELECT {columns} FROM {wanted} JOIN {table} AS found ON {matches}"  # noqa: S608 - only names of ours
        return list(map(tuple, await self._driver.fetch(sql, *_transposed(table, key, keys))))

    async def guard(self) -> None:
        """Wait until no other transaction is past this point."""
        await self._driver.execute(f"SELECT pg_advisory_xact_lock({ROLLUPS})")

    async def make_room(self, table: str, days: Iterable[int]) -> None:
        """See to it that ``table`` has the partitions of ``days``."""
        wanted = await missing(self._driver, table, days)
        if wanted:
            await attach(self._driver, table, wanted)

    async def rooms(self, table: str) -> list[int]:
        """Return the days for which ``table`` has a partition, in order."""
        return await kept(self._driver, table)

    async def drop_room(self, table: str, day: int) -> None:
        """Drop the partition of ``day`` with all its rows."""
        await drop(self._driver, table, day)

    def measure(self) -> None:
        """Do nothing: the connection has no thread of its own."""

    async def _staging(self, table: str) -> str:
        """Return the name of the staging table for ``table``, empty, made when this connection has none yet."""
        name = f"staged_{table}"
        if name in self._used:
            await self._driver.execute(f"TRUNCATE {name}")
        elif name not in self._kept:
            await self._driver.execute(
                f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
            )
        self._used.add(name)
        return name

    async def _copy(self, table: str, groups: Sequence[Group]) -> None:
        """Copy rows to a table; if one is there already, that is the driver's ``UniqueViolationError``."""
        for columns, rows in groups:
            await self._driver.copy_records_to_table(table, records=rows, columns=list(columns))


def _first_ones(groups: Sequence[Group], width: int) -> list[Group]:
    """Return the rows of ``groups`` without those whose key, the first ``width`` values, came before."""
    seen: set[Row] = set()
    found: list[Group] = []
    for columns, rows in groups:
        fresh: list[Row] = []
        for row in rows:
            if row[:width] not in seen:
                seen.add(row[:width])
                fresh.append(row)
        found.append((columns, fresh))
    return found


def _rows(status: str) -> int:
    """Return how many rows a statement wrote, from what the server said: ``INSERT 0 5``, ``DELETE 5``."""
    return int(status.rpartition(" ")[2])


@lru_cache(maxsize=256)
def _numbered(sql: str) -> str:
    """Return ``sql`` with ``$1``, ``$2``, … for its question marks."""
    numbers = count(1)
    return "".join(f"${next(numbers)}" if each == "?" else each for each in sql)


@lru_cache(maxsize=256)
def _arrays(table: str, columns: tuple[str, ...]) -> str:
    """Return the rows that one array per column makes, for ``FROM``."""
    types = (_type(_declared(table).columns[name]) for name in columns)
    return f"unnest({', '.join(f'${number}::{name}[]' for number, name in enumerate(types, 1))})"


def _type(column: Column[Any]) -> str:
    """Return PostgreSQL's name of a column's type."""
    kinds = {BigInteger: "bigint", Integer: "integer", LargeBinary: "bytea", Boolean: "boolean"}
    return next((name for kind, name in kinds.items() if isinstance(column.type, kind)), "text")


def _declared(table: str) -> Table:
    """Return a table as it is declared; who writes rows of names alone may not have imported it."""
    if table not in SQLModel.metadata.tables:
        importlib.import_module("gateway.db.tables.every")
    return SQLModel.metadata.tables[table]


def _transposed(table: str, columns: Sequence[str], rows: Sequence[Row]) -> list[list[Any]]:
    """Return rows as columns, flags as the driver wants them."""
    declared = _declared(table).columns
    values = map(list, zip(*rows, strict=True))
    return [
        list(map(bool, each)) if isinstance(declared[name].type, Boolean) else each
        for name, each in zip(columns, values, strict=True)
    ]
