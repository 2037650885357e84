"""Reading the boards from the database: totals per day and, for boards by the hour, the hourly rollup.

Nothing here reads the ledger, so the time an answer takes depends on how many names and days it spans and not on how
much was metered. Every query is a range of a primary key. Raises ``Unavailable`` when the database cannot be used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Any, Final

from gateway.db.bulk import Row, bulk_on
from gateway.db.engine import Database
from gateway.db.unit_of_work import reading
from gateway.leaderboard.past import Past, Point, Stretch, Version, runs_of, stretch_of
from gateway.leaderboard.question import By, Grain, Totals
from gateway.metering.places import BLOCK_DAYS
from gateway.metering.record import ANSWERED

Read = Callable[[str, Sequence[Any]], Awaitable[list[Row]]]

APPROVED: Final = "approved"
_STORED: Final[Mapping[By, str]] = {
    "model": "model",
    "author": "model",
    "team": "team",
    "app": "app",
    "endpoint": "endpoint",
}
"""The board of ``board_day_total`` that each board is made from."""
_HOUR_NAME: Final[Mapping[By, str]] = {
    "model": "model",
    "author": "model",
    "team": "team",
    "app": "app",
    "endpoint": "model || ' ' || endpoint",
}
_COLUMNS: Final = ("tokens", "requests", "charge_nano", "cost_nano")
"""Of ``board_day_total``, in the order of ``Totals``."""
_ANSWERED: Final = ", ".join(f"'{status.value}'" for status in sorted(ANSWERED))
_HOURLY: Final[Mapping[str, str]] = {
    "tokens": "tokens_prompt + tokens_completion",
    "requests": f"CASE WHEN status IN ({_ANSWERED}) THEN requests ELSE 0 END",
    "charge_nano": "charge_nano",
    "cost_nano": "cost_nano",
}
"""The same of ``usage_hour``."""
_RANGE: Final = "FROM board_day_total WHERE team = ? AND board = ? AND day BETWEEN ? AND ?"
_JOINED: Final = {"sqlite": "group_concat", "postgresql": "string_agg"}
_BETWEEN: Final = "\n"
"""Stands between joined values; no name has it."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What part of the usage is read.

    Attributes:
        by: the board.
        team: only this team's, or ``""`` for all.
        grain: whether ``first`` and ``last`` are days or hours.
        first, last: both inclusive.
    """

    by: By
    team: str
    grain: Grain
    first: int
    last: int

    @property
    def before(self) -> Extent:
        """The extent of the same length that ends where this one begins."""
        length = self.last - self.first + 1
        return replace(self, first=self.first - length, last=self.first - 1)


class BoardStore:
    """Reads the boards."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._past = Past()

    async def windows(self, extent: Extent, before: Extent) -> tuple[dict[str, Totals], dict[str, Totals]]:
        """Return the totals of two windows by stored name, as of one moment."""
        async with self._reading() as read:
            return await _totals(read, extent), await _totals(read, before)

    async def stretches(
        self, extent: Extent, columns: Sequence[str], names: Collection[str] | None = None
    ) -> list[Stretch]:
        """Return the usage of a window: stretches in order, one after the other, from its first point to its last.

        Args:
            extent: the window.
            columns: of ``Totals``.
            names: these stored names, and others only where that is less work.
        """
        async with self._reading() as read:
            if extent.grain == "day" and (first := -(-extent.first // BLOCK_DAYS)) <= (
                last := (extent.last + 1) // BLOCK_DAYS - 1
            ):
                versions = await _versions(read, extent, first, last)
                if self._past.fits(versions, columns):
                    return await self._remembered(read, extent, columns, versions, (first, last))
            points = await self._read(read, [extent], columns, sorted(names) if names is not None else ())
            return [_stretch(extent.first, extent.last, points, columns)]

    async def blocks(self, extent: Extent) -> list[Extent]:
        """Return the whole blocks of a window of days that have usage; none where there is too much to remember."""
        first, last = -(-extent.first // BLOCK_DAYS), (extent.last + 1) // BLOCK_DAYS - 1
        async with self._reading() as read:
            versions = await _versions(read, extent, first, last)
        if not self._past.fits(versions, _COLUMNS):
            return []
        return [
            replace(extent, first=block * BLOCK_DAYS, last=(block + 1) * BLOCK_DAYS - 1) for block in sorted(versions)
        ]

    async def _remembered(
        self,
        read: Read,
        extent: Extent,
        columns: Sequence[str],
        versions: Mapping[int, Version],
        blocks: tuple[int, int],
    ) -> list[Stretch]:
        """Return the usage of a window of days, of its whole ``blocks`` as they are remembered where they are."""
        place = (extent.team, _STORED[extent.by], tuple(columns))
        found = self._past.found(place, versions)
        missing = {block: version for block, version in versions.items() if block not in found}
        begin, end = blocks[0] * BLOCK_DAYS, (blocks[1] + 1) * BLOCK_DAYS - 1
        edges = [(first, last) for first, last in ((extent.first, begin - 1), (end + 1, extent.last)) if first <= last]
        runs = [(first * BLOCK_DAYS, (last + 1) * BLOCK_DAYS - 1) for first, last in runs_of(missing)]
        points = await self._read(
            read, [replace(extent, first=first, last=last) for first, last in runs + edges], columns
        )
        if missing:
            found |= self._past.keep(place, missing, [each for each in points if begin <= each[0] <= end])
        whole = [
            found.get(block) or _stretch(block * BLOCK_DAYS, (block + 1) * BLOCK_DAYS - 1, (), columns)
            for block in range(blocks[0], blocks[1] + 1)
        ]
        outside = [
            _stretch(first, last, [each for each in points if first <= each[0] <= last], columns)
            for first, last in edges
        ]
        return sorted([*whole, *outside], key=attrgetter("first"))

    async def _read(
        self, read: Read, extents: Sequence[Extent], columns: Sequence[str], names: Sequence[str] = ()
    ) -> list[Point]:
        """Return the points of windows that do not overlap, in order; one query asks for all of them."""
        if not extents:
            return []
        parts = [self._points(each, columns, names) for each in extents]
        values = tuple(chain.from_iterable(given for _, given in parts))
        rows = await read(" UNION ALL ".join(sql for sql, _ in parts), values)
        # Most days have the names of the day before.
        named = cache(lambda labels: tuple(labels.split(_BETWEEN)))
        return [
            (point, named(labels), [list(map(int, joined.split(_BETWEEN))) for joined in values])
            for point, labels, *values in sorted(rows)
        ]

    async def apps(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return the titles and categories of approved apps; ``""`` and none where there are none."""
        async with self._reading() as read:
            rows = await read("SELECT app, title, categories FROM app WHERE status = ?", (APPROVED,))
        return {app: (title, tuple(tags.split(",")) if tags else ()) for app, title, tags in rows}

    async def strangers(self, keys: Sequence[str]) -> list[str]:
        """Return a few ids of keys that were used and are not among ``keys``."""
        marks = ", ".join("?" * len(keys)) or "''"
        sql = f"SELECT DISTINCT key_id FROM usage_day WHERE key_id NOT IN ({marks}) LIMIT 3"  # noqa: S608 - only marks
        async with self._reading() as read:
            return [str(row[0]) for row in await read(sql, tuple(keys))]

    def _points(self, extent: Extent, columns: Sequence[str], names: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
        """Return the query for point, joined names, and each of ``columns`` joined in the same order.

        A row per value would take three times as long: what costs most is handing rows over.
        """
        join = _JOINED[self._database.reader.dialect.name]
        source, values = _source(extent, columns)
        joined = ", ".join(f"{join}(CAST({column} AS TEXT), ?)" for column in ("name", *columns))
        marks = ""
        if names:
            marks = f"{' AND' if extent.grain == 'day' else ' WHERE'} name IN ({', '.join('?' * len(names))})"
        sql = f"SELECT {extent.grain}, {joined} {source}{marks} GROUP BY {extent.grain}"
        return sql, (_BETWEEN,) * (1 + len(columns)) + values + tuple(names)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Read]:
        """Give the block a function that reads rows, all as of one moment."""
        async with reading(self._database) as session:
            yield (await bulk_on(await session.connection())).read


def _stretch(first: int, last: int, points: Sequence[Point], columns: Sequence[str]) -> Stretch:
    return stretch_of(first, last - first + 1, points, len(columns))


async def _totals(read: Read, extent: Extent) -> dict[str, Totals]:
    """Return the sums over a window, by stored name."""
    sums = ", ".join(f"SUM({column})" for column in _COLUMNS)
    source, values = _blocks(extent, _COLUMNS) if extent.grain == "day" else _source(extent, _COLUMNS)
    rows = await read(f"SELECT name, {sums} {source} GROUP BY name", values)
    return {name: Totals(*map(int, found)) for name, *found in rows}


async def _versions(read: Read, extent: Extent, first: int, last: int) -> dict[int, Version]:
    """Return how many names each block has, and the sums of its totals: what tells whether any of it has changed."""
    sums = ", ".join(f"SUM({column})" for column in _COLUMNS)
    sql = (
        f"SELECT block, COUNT(*), {sums} FROM board_block_total "  # noqa: S608 - only names of ours
        "WHERE team = ? AND board = ? AND block BETWEEN ? AND ? GROUP BY block"
    )
    rows = await read(sql, (extent.team, _STORED[extent.by], first, last))
    return {block: tuple(map(int, version)) for block, *version in rows}


def _blocks(extent: Extent, columns: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
    """Return what sums of days are read from: whole blocks, and the days before and behind them."""
    first = -(-extent.first // BLOCK_DAYS)
    last = (extent.last + 1) // BLOCK_DAYS - 1
    if first > last:
        return _source(extent, columns)
    picked = f"SELECT name, {', '.join(columns)} FROM"
    place = (extent.team, _STORED[extent.by])
    parts = [f"{picked} board_block_total WHERE team = ? AND board = ? AND block BETWEEN ? AND ?"]
    values: list[Any] = [*place, first, last]
    for begin, end in ((extent.first, first * BLOCK_DAYS - 1), ((last + 1) * BLOCK_DAYS, extent.last)):
        if begin <= end:
            parts.append(f"{picked} board_day_total WHERE team = ? AND board = ? AND day BETWEEN ? AND ?")
            values += [*place, begin, end]
    return f"FROM ({' UNION ALL '.join(parts)}) AS parts", tuple(values)


def _source(extent: Extent, columns: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
    """Return what a query reads from: one row for each name and point, with ``columns``."""
    if extent.grain == "day":
        return _RANGE, (extent.team, _STORED[extent.by], extent.first, extent.last)
    sums = ", ".join(f"SUM({_HOURLY[column]}) AS {column}" for column in columns)
    team, values = (" AND team = ?", (extent.team,)) if extent.team else ("", ())
    inner = (
        f"SELECT hour, {_HOUR_NAME[extent.by]} AS name, {sums} FROM usage_hour "  # noqa: S608 - only names of ours
        f"WHERE hour BETWEEN ? AND ?{team} GROUP BY 1, 2"
    )
    return f"FROM ({inner}) AS hourly", (extent.first, extent.last, *values)
