"""The boards' office at the keeper: answers what boards, apps and visits ask, and keeps lines and memory in order."""

from __future__ import annotations

import time
from typing import Any, Final

from gateway.db.office import Duty, Office, Premises
from gateway.leaderboard import question as asked
from gateway.leaderboard.apps import Apps
from gateway.leaderboard.boards import Boards
from gateway.leaderboard.milestones import keep_lines, lines_of, milestones
from gateway.leaderboard.rate import VisitBook
from gateway.leaderboard.store import BoardStore
from gateway.types.method import Handler, Method

LINES_S: Final = 5.0
SWEEP_S: Final = 3_600.0


def open_office(premises: Premises) -> Office:
    """Return the office of the boards."""
    database = premises.database
    boards, apps, visits = Boards(BoardStore(database), premises.home), Apps(database), VisitBook()

    async def records(question: asked.RecordsQuestion) -> asked.Records:
        return await boards.records(question, await lines_of(database))

    async def passed() -> list[asked.MilestoneRecord]:
        return await milestones(database)

    async def visit(who: asked.Visit) -> None:
        visits.take(who, time.time())

    async def lines() -> None:
        config = premises.config()
        if config is not None:
            await keep_lines(database, config.boards.milestones)

    handlers: dict[Method[Any], Handler] = {
        asked.BOARD: boards.board,
        asked.DAYS: boards.days,
        asked.APP_WINDOW: boards.app_window,
        asked.RECORDS: records,
        asked.MILESTONES: passed,
        asked.VISIT: visit,
        asked.APPS: apps.listed,
        asked.DECIDE: apps.decide,
        asked.SIGHT: apps.sight,
        asked.STRANGERS: boards.strangers,
    }
    return Office(handlers, (Duty("milestone lines", LINES_S, lines), Duty("app uses", SWEEP_S, apps.forget_uses)))
