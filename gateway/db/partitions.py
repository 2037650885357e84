"""Tables that PostgreSQL keeps in one piece per UTC day, so that a day goes by dropping its piece.

A piece is made beside the table and attached to it: that stops neither readers nor writers, as making it in place
would. Whoever adds or drops pieces holds a lock for it until the end of the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import asyncpg

from gateway.db.postgresql import PARTITIONS

Driver: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_OF_DAY: Final = "_d"


def partition(table: str, day: int) -> str:
    """Return the name of the piece of ``table`` for a day, counted from 1970."""
    return f"{table}{_OF_DAY}{day}"


async def missing(driver: Driver, table: str, days: Iterable[int]) -> list[int]:
    """Return those of ``days`` for which ``table`` has no piece."""
    wanted = sorted(set(days))
    # Not by to_regclass: it may answer from a cache of before another transaction's end.
    found = await driver.fetch(
        "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = $1::regclass AND c.relname = ANY ($2::text[])",
        table,
        [partition(table, day) for day in wanted],
    )
    there = {name for (name,) in found}
    return [day for day in wanted if partition(table, day) not in there]


async def attach(driver: Driver, table: str, days: Sequence[int]) -> None:
    """Add the pieces of ``days``, unless another transaction was first."""
    await driver.execute(f"SELECT pg_advisory_xact_lock({PARTITIONS})")
    for day in await missing(driver, table, days):
        name = partition(table, day)
        await driver.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)")
        await driver.execute(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({day}) TO ({day + 1})")


async def kept(driver: Driver, table: str) -> list[int]:
    """Return the days for which ``table`` has a piece, in order."""
    found = await driver.fetch("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::regclass", table)
    return sorted(int(name.rpartition(_OF_DAY)[2]) for (name,) in found)


async def drop(driver: Driver, table: str, day: int) -> None:
    """Drop the piece of a day with all its rows."""
    await driver.execute(f"SELECT pg_advisory_xact_lock({PARTITIONS})")
    await driver.execute(f"DROP TABLE IF EXISTS {partition(table, day)}")
