"""Deleting what is too old in slices, and work with the database that is done whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from sqlalchemy import delete, select

from gateway.db.engine import Database
from gateway.db.unit_of_work import reading, writing

SLICE: Final = 500
"""Rows deleted in one transaction, about."""

R = TypeVar("R")


async def expire(database: Database, table: Any, column: Any, *conditions: Any, until: int | None = None) -> None:
    """Delete the rows of ``table`` whose ``column`` is not after ``until``, some at a time.

    Args:
        database: with the table.
        table: its class.
        column: a time, microseconds since 1970.
        conditions: that must hold, too.
        until: by default now.
    """
    until = time.time_ns() // 1_000 if until is None else until
    due = (column <= until, *conditions)
    while True:
        async with reading(database) as session:
            found = list(await session.scalars(select(column).where(*due).order_by(column).limit(SLICE)))
        if not found:
            return
        async with writing(database) as session:
            await session.execute(delete(table).where(column <= found[-1], *conditions))


async def whole(work: Coroutine[Any, Any, R]) -> R:
    """Return what ``work`` gives; it is done whole, whoever stops waiting for it.

    A task that is cancelled inside a call of the database leaves a broken connection.
    """
    return await asyncio.shield(asyncio.get_running_loop().create_task(work))
