"""Reading the boards from the database: totals per day and, for boards by the hour, the hourly rollup.

Nothing here reads the ledger, so the time an answer takes depends on how many names and days it spans and not on how
much was metered. Every query is a range of a primary key. Raises ``Unavailable`` when the database cannot be used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from gateway.db.bulk import Row, bulk_on
from gateway.db.engine import Database
from gateway.db.unit_of_work import reading
from gateway.leaderboard.question import AppStanding, By, Grain, Totals
from gateway.metering.record import ANSWERED

Read = Callable[[str, Sequence[Any]], Awaitable[list[Row]]]

APPROVED: Final = "approved"
_TITLES: Final = "SELECT app, title FROM app WHERE status = ?"
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
_APPS: Final = (
    "SELECT name, app.title, app.categories, "
    "SUM(CASE WHEN day >= ? THEN tokens ELSE 0 END), SUM(CASE WHEN day >= ? THEN requests ELSE 0 END), "
    "SUM(CASE WHEN day < ? THEN tokens ELSE 0 END) "
    "FROM board_day_total JOIN app ON app.app = name "
    "WHERE team = ? AND board = 'app' AND day BETWEEN ? AND ? AND app.status = ? "
    "GROUP BY name, app.title, app.categories"
)


@dataclass(frozen=True, slots=True)
class Used:
    """What one name used in a window.

    Attributes:
        totals: of the whole window.
        points: the points with usage, joined by ``_BETWEEN``.
        values: each column asked for at these points, joined likewise.
    """

    totals: Totals
    points: str
    values: tuple[str, ...]

    def course(self, first: int, last: int) -> list[list[int]]:
        """Return each column at every point from ``first`` to ``last``."""
        courses = [list(map(int, joined.split(_BETWEEN))) for joined in self.values]
        if self.points == _every(first, last):
            return courses
        places = [int(point) - first for point in self.points.split(_BETWEEN)]
        spread = []
        for course in courses:
            line = [0] * (last - first + 1)
            for place, value in zip(places, course, strict=True):
                line[place] = value
            spread.append(line)
        return spread


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
        return Extent(self.by, self.team, self.grain, self.first - length, self.first - 1)


class BoardStore:
    """Reads the boards."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def windows(self, extent: Extent, columns: Sequence[str]) -> tuple[dict[str, Used], dict[str, Totals]]:
        """Return what each stored name used in a window, and ``columns`` of the one before it, as of one moment.

        One query for sums and points together: each costs most for the rows it goes through.
        """
        async with self._reading() as read:
            now = await read(*self._used(extent, columns))
            before = await read(*_sums(extent.before, columns))
        width = len(_COLUMNS)
        return (
            {row[0]: Used(Totals(*map(int, row[1 : 1 + width])), row[1 + width], row[2 + width :]) for row in now},
            {name: Totals(**dict(zip(columns, map(int, sums), strict=True))) for name, *sums in before},
        )

    async def days(self, extent: Extent, columns: Sequence[str]) -> list[tuple[int, list[str], list[list[int]]]]:
        """Return the days of a window with their stored names and the values of each of ``columns``, in order."""
        async with self._reading() as read:
            rows = await read(*self._days(extent, columns))
        return [
            (day, labels.split(_BETWEEN), [list(map(int, joined.split(_BETWEEN))) for joined in values])
            for day, labels, *values in sorted(rows)
        ]

    async def app_window(self, team: str, first: int, last: int, categories: Sequence[str]) -> list[AppStanding]:
        """Return approved apps, of ``categories`` if any, with their usage in a window and in the three before it."""
        earliest = first - 3 * (last - first + 1)
        async with self._reading() as read:
            rows = await read(_APPS, (first, first, first, team, earliest, last, APPROVED))
        wanted = set(categories)
        return [
            AppStanding(app, title, int(tokens), int(requests), int(before))
            for app, title, tags, tokens, requests, before in rows
            if not wanted or wanted & set(tags.split(","))
        ]

    async def strangers(self, keys: Sequence[str]) -> list[str]:
        """Return a few ids of keys that were used and are not among ``keys``."""
        marks = ", ".join("?" * len(keys)) or "''"
        sql = f"SELECT DISTINCT key_id FROM usage_day WHERE key_id NOT IN ({marks}) LIMIT 3"  # noqa: S608 - only marks
        async with self._reading() as read:
            return [str(row[0]) for row in await read(sql, tuple(keys))]

    async def titles(self) -> dict[str, str]:
        """Return the titles of approved apps, ``""`` where there is none."""
        async with self._reading() as read:
            return {str(app): str(title) for app, title in await read(_TITLES, (APPROVED,))}

    def _joined(self, column: str) -> str:
        """Return what joins the values of a column in a group; it wants one value, ``_BETWEEN``."""
        function = _JOINED[self._database.reader.dialect.name]
        return f"{function}(CAST({column} AS TEXT), ?)"

    def _used(self, extent: Extent, columns: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
        """Return the query for name, all sums, joined points, and each of ``columns`` joined in the same order."""
        source, values = _source(extent, _COLUMNS)
        sums = ", ".join(f"SUM({column})" for column in _COLUMNS)
        joined = ", ".join(self._joined(column) for column in (extent.grain, *columns))
        # Only names of ours are put into the statement.
        return f"SELECT name, {sums}, {joined} {source} GROUP BY name", (_BETWEEN,) * (1 + len(columns)) + values

    def _days(self, extent: Extent, columns: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
        """Return the query for day, joined names, and each of ``columns`` joined in the same order."""
        source, values = _source(extent, columns)
        joined = ", ".join(self._joined(column) for column in ("name", *columns))
        return f"SELECT day, {joined} {source} GROUP BY day", (_BETWEEN,) * (1 + len(columns)) + values

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Read]:
        """Give the block a function that reads rows, all as of one moment."""
        async with reading(self._database) as session:
            yield (await bulk_on(await session.connection())).read


def _sums(extent: Extent, columns: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
    """Return the query for name and sums of ``columns`` over a window."""
    source, values = _source(extent, columns)
    sums = ", ".join(f"SUM({column})" for column in columns)
    return f"SELECT name, {sums} {source} GROUP BY name", values


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


@lru_cache(maxsize=64)
def _every(first: int, last: int) -> str:
    """Return all points of a window, joined."""
    return _BETWEEN.join(map(str, range(first, last + 1)))
