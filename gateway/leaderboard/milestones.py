"""Milestones: which lines there are, and who passed them first.

The shipper's transaction writes a milestone when a total passes a line (``gateway.metering.totals``). A line that the
owner adds later finds totals that passed it before: for each model the first such day is filled in from the rollups,
with the end of the hour as its moment, or of the day once its hours are gone. Raises ``Unavailable`` when the database
cannot be used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import text

from gateway.db.bulk import Bulk, bulk
from gateway.db.engine import Database
from gateway.db.unit_of_work import reading
from gateway.leaderboard.question import MilestoneRecord

HOUR_US: Final = 3_600_000_000
_LINES: Final = "SELECT tokens FROM milestone_line ORDER BY tokens"
_FIRSTS: Final = (
    "SELECT m.model, m.line, m.day, m.crossed_us, t.tokens FROM milestone AS m "
    "JOIN (SELECT model, line, MIN(day) AS day FROM milestone GROUP BY model, line) AS f "
    "ON f.model = m.model AND f.line = m.line AND f.day = m.day "
    "JOIN milestone_line AS l ON l.tokens = m.line "
    "JOIN model_day_total AS t ON t.day = m.day AND t.model = m.model"
)
_MISSING: Final = (
    "SELECT t.model, MIN(t.day) FROM model_day_total AS t WHERE t.tokens >= ? "
    "AND NOT EXISTS (SELECT 1 FROM milestone AS m WHERE m.line = ? AND m.model = t.model) GROUP BY t.model"
)
_HOURS: Final = (
    "SELECT hour, SUM(tokens_prompt + tokens_completion) FROM usage_hour "
    "WHERE hour BETWEEN ? AND ? AND model = ? GROUP BY hour ORDER BY hour"
)


async def lines_of(database: Database) -> list[int]:
    """Return the lines, in tokens a day."""
    async with reading(database) as session:
        return [int(row[0]) for row in await session.execute(text(_LINES))]


async def keep_lines(database: Database, lines: Iterable[int]) -> bool:
    """Make ``lines`` the lines, and fill in who passed those that are new; return whether anything changed."""
    wanted = set(lines)
    if set(await lines_of(database)) == wanted:
        return False
    async with bulk(database) as connection:
        await connection.guard()
        held = {int(row[0]) for row in await connection.read(_LINES, ())}
        await connection.write("DELETE FROM milestone_line WHERE tokens = ?", [(line,) for line in held - wanted])
        fresh = sorted(wanted - held)
        await connection.insert("milestone_line", ("tokens",), [(line,) for line in fresh], "ON CONFLICT DO NOTHING")
        for line in fresh:
            await _fill(connection, line)
    return True


async def _fill(connection: Bulk, line: int) -> None:
    rows: list[tuple[int, str, int, int]] = []
    for model, day in await connection.read(_MISSING, (line, line)):
        hours = await connection.read(_HOURS, (day * 24, day * 24 + 23, model))
        rows.append((day, model, line, _passed(hours, line, day) * HOUR_US))
    await connection.insert("milestone", ("day", "model", "line", "crossed_us"), sorted(rows), "ON CONFLICT DO NOTHING")


def _passed(hours: list[tuple[Any, ...]], line: int, day: int) -> int:
    """Return the hour after the one in which a day's total passed ``line``; the end of the day when hours are gone."""
    total = 0
    for hour, tokens in hours:
        total += int(tokens)
        if total >= line:
            return int(hour) + 1
    return (day + 1) * 24


async def milestones(database: Database) -> list[MilestoneRecord]:
    """Return for each model and line the first day on which it was passed, the latest first."""
    async with reading(database) as session:
        rows = [
            (model, int(line), int(day), int(moment), int(total))
            for model, line, day, moment, total in await session.execute(text(_FIRSTS))
        ]
    first: dict[int, tuple[int, str]] = {}
    for model, line, _, moment, _ in rows:
        first[line] = min(first.get(line, (moment, model)), (moment, model))
    found = [
        MilestoneRecord(model, line, day, moment, total, first[line] == (moment, model))
        for model, line, day, moment, total in rows
    ]
    return sorted(found, key=lambda each: (-each.crossed_us, -each.line, each.model))
