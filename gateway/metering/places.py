"""Sums by place: what one name of a kind has on one day, for one team and for all, and the same per 16 days.

What ``gateway.metering.totals`` and ``gateway.metering.tallies`` have in common. A batch is summed up by team alone;
what all teams have together is added up from these few sums at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from operator import add
from typing import Final

from gateway.db.bulk import Bulk

BLOCK_DAYS: Final = 16
"""Days of a block."""

Place = tuple[str, str, int, str]
"""Team (``""`` for all), kind, day or block, name."""
Sums = tuple[int, ...]


def add_to(found: dict[Place, Sums], place: Place, sums: Sums) -> None:
    """Add ``sums`` to those of ``place``."""
    known = found.get(place)
    found[place] = sums if known is None else tuple(map(add, known, sums))


def with_all_teams(by_team: Mapping[Place, Sums]) -> dict[Place, Sums]:
    """Return sums by team, and with them those of all teams together."""
    found: dict[Place, Sums] = {}
    for (_, kind, day, name), sums in by_team.items():
        add_to(found, ("", kind, day, name), sums)
    # A row without a team counts once for all teams and once under its own name, which is the same.
    for place, sums in by_team.items():
        add_to(found, place, sums)
    return found


def by_block(days: Mapping[Place, Sums]) -> dict[Place, Sums]:
    """Return sums by day as sums by block."""
    found: dict[Place, Sums] = {}
    for (team, kind, day, name), sums in days.items():
        add_to(found, (team, kind, day // BLOCK_DAYS, name), sums)
    return found


async def post(
    connection: Bulk, tables: Iterable[tuple[str, str]], kind: str, columns: Sequence[str], days: Mapping[Place, Sums]
) -> None:
    """Add sums to the rows of a table by day and of one by block.

    Args:
        connection: in the transaction that inserted the ledger rows.
        tables: name of each table and of its column of time.
        kind: name of the column that tells kinds apart.
        columns: names of the sums.
        days: the sums, by day.
    """
    for (table, time), sums in zip(tables, (days, by_block(days)), strict=True):
        key = ("team", kind, time, "name")
        await add_up(connection, table, key, columns, [(*place, *added) for place, added in sums.items()])


async def add_up(
    connection: Bulk, table: str, key: Sequence[str], columns: Sequence[str], rows: list[tuple[str | int, ...]]
) -> None:
    """Add ``columns`` to the rows of ``table``, in the order of their keys, so that two writers cannot deadlock."""
    update = _update(table, tuple(key), tuple(columns))
    await connection.post(table, (*key, *columns), sorted(rows), update)


@cache
def _update(table: str, key: tuple[str, ...], columns: tuple[str, ...]) -> str:
    """Return what an upsert ends with that adds ``columns``."""
    added = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in columns)
    return f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {added}"
