"""The boards' office at the keeper: answers what boards, apps and visits ask, and keeps lines and memory in order."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final

from gateway.db.office import Duty, Office, Premises
from gateway.leaderboard import question as asked
from gateway.leaderboard.apps import Apps
from gateway.leaderboard.boards import Boards
from gateway.leaderboard.milestones import keep_lines, lines_of, milestones
from gateway.leaderboard.question import Measure, RecordsQuestion
from gateway.leaderboard.rate import VisitBook
from gateway.leaderboard.store import BoardStore
from gateway.telemetry import logs
from gateway.types.method import Handler, Method

LINES_S: Final = 5.0
SWEEP_S: Final = 3_600.0
BEGIN_S: Final = 2.0
PAUSE_S: Final = 0.05
YEAR_DAYS: Final = 366
REMEMBERED: Final[tuple[Measure, ...]] = ("tokens", "tokens_per_dollar")
_log: Final = logs.logger(__name__)


class Lines:
    """Writes the milestone lines of this host's configuration when it is read: at the start, and when it changes.

    Of hosts that share a database and differ, the one whose configuration was read last decides, and no two of them
    take turns in undoing what the other one did.
    """

    def __init__(self, premises: Premises) -> None:
        self._premises = premises
        self._written: tuple[int, ...] | None = None

    async def turn(self) -> None:
        """Write the lines, unless that is done. Raises ``Unavailable``."""
        config = self._premises.config()
        if config is None or config.boards.milestones == self._written:
            return
        if await keep_lines(self._premises.database, config.boards.milestones):
            _log.info("milestone lines are set", lines=list(config.boards.milestones))
        self._written = config.boards.milestones


async def read_ahead(boards: Boards) -> None:
    """Remember, in small pieces, what a first visit of the rankings would have to wait for. Raises ``Unavailable``.

    That are the model boards that are looked at first. On a ledger of ten million rows it takes a quarter of a second
    of CPU, spread over some seconds, and 6 MB.
    """
    last = time.time_ns() // 86_400_000_000_000
    for measure in REMEMBERED:
        await boards.remember(RecordsQuestion("model", measure, last - YEAR_DAYS + 1, last), PAUSE_S)


def open_office(premises: Premises) -> Office:
    """Return the office of the boards."""
    database = premises.database
    boards, apps, visits = Boards(BoardStore(database), premises.home), Apps(database), VisitBook()

    async def records(question: asked.RecordsQuestion) -> asked.Records:
        return await boards.records(question, await lines_of(database) if question.measure == "tokens" else [])

    async def passed() -> list[asked.MilestoneRecord]:
        return await milestones(database)

    async def visit(who: asked.Visit) -> None:
        visits.take(who, time.time())

    lines = Lines(premises)

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
    duties = (
        Duty("milestone lines", LINES_S, lines.turn),
        Duty("app uses", SWEEP_S, apps.forget_uses),
        Duty("the year of the boards", BEGIN_S, partial(read_ahead, boards), once=True),
    )
    return Office(handlers, duties)
