"""SQL for writing many rows with few statements, in the dialect of the connection at hand.

One statement carries many rows, because a statement per row hands the interpreter's lock back and forth between the
event loop and the database's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

Row = tuple[Any, ...]

_MOST_ROWS: Final = 250
"""Rows per statement; 250 rows of the ledger are 14,000 parameters, below the 32,766 that SQLite takes."""


async def execute_rows(connection: AsyncConnection, before: str, after: str, rows: Sequence[Row]) -> int:
    """Run ``before VALUES rows after`` and return how many rows it wrote.

    Args:
        connection: in a transaction.
        before: the statement up to ``VALUES``; a constant of ours, never made of input.
        after: what follows the values.
        rows: rows of equal length.
    """
    written = 0
    for start in range(0, len(rows), _MOST_ROWS):
        some = rows[start : start + _MOST_ROWS]
        sql = f"{before} VALUES {placeholders(len(some), len(some[0]), connection.dialect.paramstyle)} {after}"
        result = await connection.exec_driver_sql(sql, tuple(chain.from_iterable(some)))
        written += result.rowcount
    return written


async def fetch_matching(connection: AsyncConnection, before: str, after: str, keys: Sequence[Row]) -> Sequence[Row]:
    """Run the query ``before (VALUES keys) after`` in pieces and return all its rows."""
    found: list[Row] = []
    for start in range(0, len(keys), _MOST_ROWS):
        some = keys[start : start + _MOST_ROWS]
        sql = f"{before} (VALUES {placeholders(len(some), len(some[0]), connection.dialect.paramstyle)}) {after}"
        found += [tuple(row) for row in await connection.exec_driver_sql(sql, tuple(chain.from_iterable(some)))]
    return found


def placeholders(rows: int, columns: int, paramstyle: str) -> str:
    """Return ``rows`` groups of ``columns`` placeholders in the driver's style, ``?`` or numbered ``$1``."""
    if paramstyle == "qmark":
        group = f"({', '.join('?' * columns)})"
        return ", ".join([group] * rows)
    return ", ".join(
        f"({', '.join(f'${row * columns + column + 1}' for column in range(columns))})" for row in range(rows)
    )
