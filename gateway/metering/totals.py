"""Totals per UTC day: what leaderboards rank by, and the milestones they pass.

Written in the transaction that writes the rollups, from the same buckets, so they cannot disagree with them. A
milestone is written by the very transaction that moves a model's total of a day over a line: one transaction at a time
reads totals and adds to them (``Bulk.guard``), so no two see the same crossing and none misses it. Errors are those of
the transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db.bulk import Answer, Bulk
from gateway.metering.entry import SUMS as ROW_SUMS
from gateway.metering.labels import ROLLUP
from gateway.metering.places import BLOCK_DAYS, Place, add_to, add_up, by_block, with_all_teams
from gateway.metering.places import post as post_places
from gateway.metering.record import ANSWERED

Key = tuple[int | str, ...]
"""Hour or day, then the labels of ``ROLLUP``."""
BOARDS: Final = ("model", "team", "app", "endpoint")
_TABLES: Final = (("board_day_total", "day"), ("board_block_total", "block"))

_PLACE: Final = {name: 1 + ROLLUP.index(name) for name in ROLLUP}
_PROMPT: Final = 1 + ROW_SUMS.index("tokens_prompt")
_COMPLETION: Final = 1 + ROW_SUMS.index("tokens_completion")
_CHARGE: Final = 1 + ROW_SUMS.index("charge_nano")
_COST: Final = 1 + ROW_SUMS.index("cost_nano")
_SLICE: Final = 200
"""Buckets added up before others get their turn on the event loop."""
_ADDED: Final = ("tokens", "requests", "charge_nano", "cost_nano")
_SUMMED: Final = (
    "SELECT day, team, model, endpoint, app, SUM(tokens_prompt + tokens_completion), "
    "SUM(CASE WHEN status IN :answered THEN requests ELSE 0 END), SUM(charge_nano), SUM(cost_nano) "
    "FROM usage_day GROUP BY day, team, model, endpoint, app"
)

Totals = dict[tuple[int, str, str], tuple[int, ...]]
"""First day, ``day`` or ``block``, and team, board and name, to tokens, answered requests, charge and cost."""


class Sums(Protocol):
    """What a rollup bucket tells here: ``gateway.metering.rollups.Bucket``."""

    @property
    def last_us(self) -> int:
        """Latest start of an attempt, microseconds since 1970."""

    @property
    def sums(self) -> Sequence[int]:
        """Requests, then the sums of ``gateway.metering.entry.SUMS``."""


@dataclass(frozen=True, slots=True)
class Before:
    """What tells of milestones: the lines, and the totals of days and models before a batch is added to them.

    Both are awaited before that.
    """

    lines: Answer
    totals: Answer


def ask(connection: Bulk, days: Iterable[Key]) -> Before:
    """Ask for what ``post`` has to know of days and labels; to be awaited behind ``Bulk.guard``."""
    models = sorted({(key[0], key[_PLACE["model"]]) for key in days})
    lines = connection.ask("SELECT tokens FROM milestone_line ORDER BY tokens", ())
    return Before(lines, connection.ask_matching("model_day_total", ("day", "model"), ("tokens",), models))


async def post(connection: Bulk, hours: Mapping[Key, Any], days: Mapping[Key, Any], before: Before) -> None:
    """Add what a batch adds, in the transaction that inserted its ledger rows.

    Args:
        connection: in that transaction.
        hours: ``Sums`` by hour and labels.
        days: the same by day and labels.
        before: what ``ask`` asked for, for these days and perhaps more.
    """
    by_team: dict[Place, tuple[int, ...]] = {}
    for count, (key, bucket) in enumerate(days.items(), 1):
        if count % _SLICE == 0:
            await asyncio.sleep(0)
        added = _added(key, bucket)
        for place in _places(key):
            add_to(by_team, place, added)
    boards = with_all_teams(by_team)
    models = {
        (day, name): sums[:2] for (team, board, day, name), sums in boards.items() if not team and board == "model"
    }
    await _mark(connection, hours, {model: sums[0] for model, sums in models.items()}, before)
    rows: list[tuple[int | str, ...]] = [(*model, *sums) for model, sums in models.items()]
    await add_up(connection, "model_day_total", ("day", "model"), _ADDED[:2], rows)
    await post_places(connection, _TABLES, "board", _ADDED, boards)


async def compare(session: AsyncSession) -> tuple[Totals, Totals]:
    """Return the totals of the boards as they stand, and as the daily rollup says they should.

    Blocks stand among them under the name of their board and ``block``, beginning with their first day.
    """
    held: Totals = {}
    for time, days in (("day", 1), ("block", BLOCK_DAYS)):
        columns = f"team, board, {time}, name, {', '.join(_ADDED)}"
        rows = await session.execute(text(f"SELECT {columns} FROM board_{time}_total"))  # noqa: S608 - our names
        for team, board, number, name, *sums in rows:
            held[number * days, time, f"{team} {board} {name}"] = tuple(map(int, sums))
    by_team: dict[Place, tuple[int, ...]] = {}
    query = text(_SUMMED).bindparams(bindparam("answered", sorted(ANSWERED), expanding=True))
    for day, team, model, endpoint, app, *sums in await session.execute(query):
        for place in _named(day, team, model, endpoint, app):
            add_to(by_team, place, tuple(map(int, sums)))
    due = with_all_teams(by_team)
    wanted: Totals = {}
    for time, days, book in (("day", 1, due), ("block", BLOCK_DAYS, by_block(due))):
        for (team, board, number, name), total in book.items():
            wanted[number * days, time, f"{team} {board} {name}"] = total
    return held, wanted


def _added(key: Key, bucket: Sums) -> tuple[int, int, int, int]:
    """Return what a bucket adds to totals: tokens, answered requests, charge, cost."""
    sums = bucket.sums
    requests = sums[0] if key[_PLACE["status"]] in ANSWERED else 0
    return sums[_PROMPT] + sums[_COMPLETION], requests, sums[_CHARGE], sums[_COST]


def _places(key: Key) -> Iterator[Place]:
    """Yield the places of the team of a bucket by day."""
    team, model, endpoint, app = (str(key[_PLACE[name]]) for name in ("team", "model", "endpoint", "app"))
    return _named(int(key[0]), team, model, endpoint, app)


def _named(day: int, team: str, model: str, endpoint: str, app: str) -> Iterator[Place]:
    for board, name in zip(BOARDS, (model, team, app, f"{model} {endpoint}"), strict=True):
        yield team, board, day, name


async def _mark(
    connection: Bulk, hours: Mapping[Key, Any], added: Mapping[tuple[int, str], int], before: Before
) -> None:
    """Write a milestone for each line that the totals pass by what is ``added`` to them."""
    lines = [row[0] for row in await before.lines]
    totals = {(day, model): tokens for day, model, tokens in await before.totals}
    passed: dict[tuple[int, str], tuple[int, list[int]]] = {}
    for model, tokens in added.items():
        total = totals.get(model, 0)
        over = [line for line in lines if total < line <= total + tokens]
        if over:
            passed[model] = total, over
    courses = _courses(hours, passed.keys())
    rows = [
        (*model, line, _moment(courses[model], line - total))
        for model, (total, over) in passed.items()
        for line in over
    ]
    columns = ("day", "model", "line", "crossed_us")
    await connection.post("milestone", columns, sorted(rows), "ON CONFLICT DO NOTHING")


def _courses(
    hours: Mapping[Key, Any], wanted: Collection[tuple[int, str]]
) -> dict[tuple[int, str], list[tuple[int, int]]]:
    """Return tokens and latest start of what was added to the days of models, hour by hour, for those ``wanted``."""
    courses: dict[tuple[int, str], dict[int, tuple[int, int]]] = {key: {} for key in wanted}
    if wanted:
        for key, bucket in hours.items():
            hour = int(key[0])
            course = courses.get((hour // 24, str(key[_PLACE["model"]])))
            if course is not None:
                tokens, last_us = course.get(hour, (0, 0))
                course[hour] = (tokens + _added(key, bucket)[0], max(last_us, bucket.last_us))
    return {key: [course[hour] for hour in sorted(course)] for key, course in courses.items()}


def _moment(course: Sequence[tuple[int, int]], missing: int) -> int:
    """Return when ``missing`` tokens had come: the latest start in the hour that brought the last of them."""
    for tokens, last_us in course:
        missing -= tokens
        if missing <= 0:
            return last_us
    return course[-1][1]
