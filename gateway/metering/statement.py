"""SQL for writing many rows with few statements.

One statement carries many rows, because a statement per row hands the interpreter's lock back and forth between the
event loop and the database's thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, groupby
from typing import Final

from gateway.db.bulk import Bulk, Row

_SIZES: Final = (256, 16, 1)
"""Rows per statement: few sizes, so that the driver finds each statement prepared and no number takes many trips.

256 rows of 56 columns are 14,336 parameters; SQLite takes 32,766.
"""


async def execute_rows(connection: Bulk, before: str, after: str, rows: Sequence[Row]) -> int:
    """Run ``before VALUES rows after`` and return how many rows it wrote.

    Args:
        connection: in a transaction.
        before: the statement up to ``VALUES``; a constant of ours, never made of input.
        after: what follows the values.
        rows: rows of equal length.
    """
    written = 0
    for size, pieces in groupby(_pieces(rows), len):
        sql = f"{before} VALUES {placeholders(size, len(rows[0]))} {after}"
        written += await connection.write(sql, [tuple(chain.from_iterable(piece)) for piece in pieces])
    return written


async def fetch_matching(
    connection: Bulk, table: str, key: Sequence[str], also: Sequence[str], keys: Sequence[Row]
) -> Sequence[Row]:
    """Return ``key`` and ``also`` of the rows of ``table`` whose ``key`` is one of ``keys``.

    The keys are joined as a table: SQLite looks each of them up in the index then, while it goes through the whole
    table for a list of keys after ``IN``.

    Args:
        connection: in a transaction.
        table: name of the table.
        key: names of columns that begin the primary key, in its order.
        also: names of more columns to return.
        keys: values of ``key``.
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
        found += await connection.read(sql, tuple(chain.from_iterable(some)))
    return found


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
