"""What pages know of the leaderboards: which view was asked for, who may see it, and the answers of the keeper.

Answers are kept for a few seconds under the question they answer, which holds whose usage counts, so that a page that
many look at costs the books one question. Raises ``BadRequest`` for a view that there is not, ``Unauthorized`` and
``Forbidden`` for one that a visitor may not see, ``RateLimited`` for strangers who ask too often.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from dashboards import door, figures
from dashboards.visit import Visit
from gateway.console.measure import FIRST_DAY, USAGE, Pick, Sum, UsageQuestion
from gateway.console.roles import Permission
from gateway.leaderboard.question import (
    BOARD,
    BOARDS,
    MEASURES,
    MILESTONES,
    RECORDS,
    VISIT,
    Board,
    By,
    Measure,
    MilestoneRecord,
    Question,
    Records,
    RecordsQuestion,
    Totals,
)
from gateway.leaderboard.view import View, view_of, visit_of
from gateway.leaderboard.window import EPOCH, Window, board_window, today
from gateway.types.errors import BadRequest, Forbidden, NotFound, Unauthorized
from gateway.types.method import Method

T = TypeVar("T")
SPANS: Final = (("7", "7 days"), ("30", "30 days"), ("90", "90 days"), ("365", "Year"))
BYS: Final[tuple[tuple[By, str], ...]] = (
    ("model", "Models"),
    ("author", "Authors"),
    ("app", "Apps"),
    ("endpoint", "Endpoints"),
    ("team", "Teams"),
)
MEASURED: Final[tuple[tuple[Measure, str], ...]] = (
    ("tokens", "Tokens"),
    ("requests", "Requests"),
    ("spend", "Spend"),
    ("tokens_per_dollar", "Tokens per $"),
)
ROWS: Final = 100
"""Names with a series of their own; the others are summed up."""
_USED: Final[dict[Measure, Callable[[Sum], int]]] = {
    "tokens": lambda row: row.tokens,
    "requests": lambda row: row.requests - row.errors,
    "spend": lambda row: row.charge_nano,
}
"""What the sums of a day are worth on a board; requests are answered ones there."""
FRESH_S: Final = 8.0
RECORDS_S: Final = 60.0
RECORD_DAYS: Final = 366
_KEPT: Final = 256
_OUT_OF_REACH: Final = "your role does not reach the rankings: an admin can give you another one"
_IDLE_ZEROS: Final = re.compile(r"(?:\.0+|(?<=\.[1-9])0+)(?=[KMBT]?$)")


@dataclass(frozen=True, slots=True)
class Choice:
    """A view of the rankings: what a URL says.

    Attributes:
        days: length of the window.
        to: the last day, as it was written; ``""`` for today.
        team: whose usage alone; ``""`` for all that may be seen.
        window: the days.
    """

    by: By
    measure: Measure
    days: int
    to: str
    team: str
    window: Window

    def query(self, **changed: str) -> str:
        """Return the query of this view, with some parameters set anew."""
        said = {"by": self.by, "measure": self.measure, "days": str(self.days), "to": self.to, "team": self.team}
        return urlencode({name: value for name, value in (said | changed).items() if value})

    @property
    def runs(self) -> bool:
        """Whether the last day is today, so that it is not over."""
        return not self.to

    @property
    def labels(self) -> Sequence[str]:
        """The days, as machines write them."""
        return _labels(self.window)

    @property
    def marks(self) -> Sequence[str]:
        """The days, as an axis says them."""
        return _marks(self.window)


@lru_cache(maxsize=32)
def _labels(window: Window) -> tuple[str, ...]:
    return tuple(window.text(day) for day in range(window.first, window.last + 1))


@lru_cache(maxsize=32)
def _marks(window: Window) -> tuple[str, ...]:
    form = "%b %Y" if window.length > 200 else "%d %b"
    days = range(window.first, window.last + 1)
    return tuple((EPOCH + timedelta(days=day)).strftime(form).lstrip("0") for day in days)


def choice_of(visit: Visit) -> Choice:
    """Return the view that a URL asks for. Raises ``BadRequest`` that names the parameter and what it may be."""
    by: Any = _one_of(visit, "by", BOARDS)
    measure: Any = _one_of(visit, "measure", MEASURES)
    days = days_of(visit, "30")
    to = visit.asked("to")
    last = board_window(to, to, "day", visit.now_us).last if to else today(visit.now_us)
    if last > today(visit.now_us):
        raise BadRequest("to is after today: there is no usage yet", param="to")
    return Choice(by, measure, days, to, visit.asked("team")[:64], Window("day", last - days + 1, last))


def days_of(visit: Visit, default: str) -> int:
    """Return how many days a URL asks for. Raises ``BadRequest``."""
    return int(_one_of(visit, "days", tuple(name for name, _ in SPANS), default))


def root(visit: Visit) -> str:
    """Return how others reach this site, without a slash at the end."""
    return f"{'https' if door.secure(visit.request) else 'http'}://{visit.request.headers.get('host', 'localhost')}"


def _one_of(visit: Visit, name: str, choices: Sequence[str], default: str = "") -> str:
    value = visit.asked(name) or default or choices[0]
    if value not in choices:
        raise BadRequest(f"{name} is {value[:40]!r}; it may be {', '.join(choices)}", param=name)
    return value


def look(visit: Visit, by: By, team: str = "") -> View:
    """Return what a visitor is shown of a board.

    Who has signed in and sees the usage of all sees every board; who sees that of some teams sees of it what keys of
    these teams see; a stranger, and somebody without any role, sees what callers without a key see.
    """
    boards = visit.site.boards
    if visit.roleless:
        try:
            return view_of(None, by, boards, team)
        except Unauthorized:
            if visit.session is None:
                raise
            raise Forbidden(_OUT_OF_REACH) from None  # a sign-in page would send them straight back
    reached = visit.reach(Permission.USAGE_SEE)
    if reached.everything:
        return View(team, owner=visit.may(Permission.COST_SEE), approved=False)
    if not reached:
        raise Forbidden(_OUT_OF_REACH)
    if team and team not in reached.teams:
        raise NotFound("there is no such thing here")
    visibility = getattr(boards, by)
    if visibility == "private":
        raise Forbidden(f"the ranking by {by} is shown to who sees the usage of all teams")
    scope = team or (min(reached.teams) if visibility == "team" else "")
    return View(scope, owner=False, approved=not scope)


def offered(visit: Visit, team: str = "") -> list[tuple[By, str]]:
    """Return the boards that a visitor may see, with their titles."""
    found = []
    for by, title in BYS:
        try:
            look(visit, by, team)
        except (Unauthorized, Forbidden, NotFound):
            continue
        found.append((by, title))
    return found


async def kept(
    visit: Visit, asked: Method[T], question: tuple[Any, ...], seconds: float, *, counted: bool = False
) -> T:
    """Return the answer to a question, one of a moment ago if there is.

    Without one a visit without a role is ``counted`` where there are as many questions as somebody can think of; where
    there are few, what is kept is bound enough.
    """
    shelf: OrderedDict[Any, tuple[float, Any]] = visit.site.shelf.setdefault("boards", OrderedDict())
    name, now = (asked.name, question), time.monotonic()
    if name in visit.answers:
        said: T = visit.answers[name]
        return said
    known = shelf.get(name)
    if known is not None and now - known[0] < seconds:
        found: T = known[1]
        visit.answers[name] = found
        return found
    if counted and visit.roleless:
        who = visit_of(None, visit.address, visit.site.boards)
        if who is not None:
            await visit.site.books.ask(VISIT, (who,))
    found = visit.answers[name] = await visit.site.books.ask(asked, question)
    shelf[name] = (now, found)
    shelf.move_to_end(name)
    while len(shelf) > _KEPT:
        shelf.popitem(last=False)
    return found


def question_of(choice: Choice, view: View, limit: int = ROWS) -> Question:
    """Return what the keeper is asked for a view."""
    window = choice.window
    return Question(
        choice.by, choice.measure, window.first, window.last, "day", view.team, limit, "charge", view.approved
    )


async def board_of(visit: Visit, choice: Choice, view: View, limit: int = ROWS) -> tuple[Board, list[int]]:
    """Return a board, and for each day what belongs to none of its rows; ratios have no such rest."""
    question = question_of(choice, view, limit)
    board = await kept(visit, BOARD, (question,), FRESH_S, counted=True)
    nothing = [0] * choice.days
    if choice.measure == "tokens_per_dollar":
        return board, nothing
    if (board.other, board.unattributed) == (type(board.other)(), type(board.unattributed)()):
        return board, nothing
    sums = nothing.copy()
    for row in await used(visit, choice.window, view, FRESH_S):
        sums[row.point - choice.window.first] += _USED[choice.measure](row)
    shown = list(map(sum, zip(*(row.series for row in board.rows), strict=True))) or nothing
    return board, [max(0, one - other) for one, other in zip(sums, shown, strict=True)]


async def used(visit: Visit, window: Window, view: View, seconds: float) -> Sequence[Sum]:
    """Return everything that was used on each day of a window, in names of no board or of any."""
    pick = Pick((view.team,) if view.team else None)
    return await kept(visit, USAGE, (UsageQuestion("day", window.first, window.last, pick=pick),), seconds)


async def records_of(visit: Visit, choice: Choice, view: View) -> Records:
    """Return the records of the year that ends today."""
    last = today(visit.now_us)
    asked = RecordsQuestion(choice.by, choice.measure, last - RECORD_DAYS + 1, last, view.team, view.approved)
    return await kept(visit, RECORDS, (asked,), RECORDS_S)


async def milestones_of(visit: Visit, choice: Choice, view: View) -> list[MilestoneRecord]:
    """Return which model passed which line when; they tell of all teams together, so a team's own part has none."""
    if choice.by != "model" or choice.measure != "tokens" or view.team:
        return []
    return await kept(visit, MILESTONES, (), RECORDS_S)


async def is_new(visit: Visit, choice: Choice, view: View) -> bool:
    """Return whether the books begin after the window before did, so that there is nothing whole to compare with."""
    first = await kept(visit, FIRST_DAY, (view.team,), RECORDS_S)
    return first > choice.window.first - choice.days


async def today_of(visit: Visit, view: View, choice: Choice | None = None) -> Totals:
    """Return what today has come to so far; with a ``choice`` that ends today, out of what is asked for it anyway."""
    day = today(visit.now_us)
    if choice is not None and choice.runs:
        rows = await used(visit, choice.window, view, FRESH_S)
    else:
        rows = await used(visit, Window("day", day, day), view, 3.0)
    now = [row for row in rows if row.point == day]
    return Totals(sum(map(_USED["tokens"], now)), sum(map(_USED["requests"], now)))


def short(measure: Measure, value: float | None) -> str:
    """Return a value for a glance, with its unit."""
    if value is None:
        return figures.NONE
    if measure == "spend":
        return figures.usd(round(value))
    return figures.short(value) + ("/$" if measure == "tokens_per_dollar" else "")


def tick(measure: Measure, value: float) -> str:
    """Return a value at an axis, or a round one anywhere: without zeros that say nothing."""
    said = figures.usd(round(value)) if measure == "spend" else figures.short(value)
    return _IDLE_ZEROS.sub("", said)


def exact(measure: Measure) -> Callable[[int | None], str]:
    """Return what says a value with every digit."""
    return figures.exact_usd if measure == "spend" else figures.whole
