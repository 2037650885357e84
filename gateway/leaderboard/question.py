"""What can be asked of the boards, and the answers: plain values, and the methods of the keeper that carry them.

Days count from 1970 in UTC, hours likewise, moments are microseconds since 1970, money is in nano-USD. Imported by
whoever asks, so it knows no database.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from gateway.types.method import Method, method

By = Literal["model", "author", "team", "app", "endpoint"]
Measure = Literal["tokens", "requests", "spend", "tokens_per_dollar"]
Basis = Literal["charge", "cost"]
Grain = Literal["day", "hour"]
BOARDS: Final[tuple[By, ...]] = ("model", "author", "team", "app", "endpoint")
MADE_UP: Final = "demo.history"
"""File in the state folder that says which past was made up for a demo."""
MEASURES: Final[tuple[Measure, ...]] = ("tokens", "requests", "spend", "tokens_per_dollar")


class Totals(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What was used: prompt and completion tokens, answered requests, what teams were charged, what the owner paid."""

    tokens: int = 0
    requests: int = 0
    charge_nano: int = 0
    cost_nano: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.tokens + other.tokens,
            self.requests + other.requests,
            self.charge_nano + other.charge_nano,
            self.cost_nano + other.cost_nano,
        )


class Question(msgspec.Struct, frozen=True):
    """A board of one window, with the window of the same length before it.

    Attributes:
        by: what is ranked.
        measure: what it is ranked by.
        first, last: the window, both inclusive: days, or hours when ``grain`` says so.
        grain: width of a point of the series.
        team: only this team's usage; ``""`` for all teams.
        limit: most rows; the rest is summed up.
        basis: what a dollar is in ``tokens_per_dollar``: charged to teams, or paid by the owner.
        approved: whether apps that nobody approved are summed up instead of named.
    """

    by: By
    measure: Measure
    first: int
    last: int
    grain: Grain = "day"
    team: str = ""
    limit: int = 50
    basis: Basis = "charge"
    approved: bool = False


class Standing(msgspec.Struct, frozen=True):
    """One row of a board.

    Attributes:
        rank: from 1.
        name: as in ``gateway.db.tables.board.BoardDayTotal``, or the author.
        title: how people call it, ``""`` for the name.
        value: of the measure: tokens, requests, nano-USD, or whole tokens per dollar.
        share: of the board's sum, 0 to 1; None where a sum makes no sense.
        totals: of the window.
        previous: of the window before; None when it is not on that board.
        previous_value: likewise.
        previous_rank: likewise.
        change: growth of the value against the window before, 0.1 for ten percent more; None without one.
        series: the value of each point of the window.
    """

    rank: int
    name: str
    title: str
    value: int
    share: float | None
    totals: Totals
    previous: Totals | None
    previous_value: int | None
    previous_rank: int | None
    change: float | None
    series: list[int]


class Board(msgspec.Struct, frozen=True):
    """The answer to a ``Question``.

    Attributes:
        rows: by rank.
        names: how many names have usage, named or not.
        other: of names beyond the limit or not approved.
        unattributed: of no name: requests that named no app.
        totals: of all: rows, other and unattributed together.
        previous: all of the window before.
        as_of_us: when it was read.
        made_up: whether part of the usage was made up for a demo.
    """

    rows: list[Standing]
    names: int
    other: Totals
    unattributed: Totals
    totals: Totals
    previous: Totals
    as_of_us: int
    made_up: bool = False


class Days(msgspec.Struct, frozen=True):
    """Tokens per model and day of a window (days, both inclusive), for one team or for all."""

    first: int
    last: int
    team: str = ""


class DayTokens(msgspec.Struct, frozen=True):
    """One day of the answer to ``Days``: models and, in the same order, their tokens."""

    day: int
    models: list[str]
    tokens: list[int]


class AppWindow(msgspec.Struct, frozen=True):
    """Approved apps by tokens in a window of days (both inclusive), and in the three of its length before.

    Attributes:
        categories: only apps that are in one of them; empty for all.
    """

    first: int
    last: int
    categories: tuple[str, ...] = ()
    team: str = ""


class AppStanding(msgspec.Struct, frozen=True):
    """One app: tokens of the window and of the three before it together, requests of the window."""

    app: str
    title: str
    tokens: int
    requests: int
    before: int


class RecordsQuestion(msgspec.Struct, frozen=True):
    """The records of a board over a window of days; see ``Question``."""

    by: By
    measure: Measure
    first: int
    last: int
    team: str = ""
    approved: bool = False


class Peak(msgspec.Struct, frozen=True):
    """The biggest value of a day."""

    name: str
    day: int
    value: int


class Lead(msgspec.Struct, frozen=True):
    """Days in a row, both inclusive, on which one name was first."""

    name: str
    first: int
    last: int


class FirstOver(msgspec.Struct, frozen=True):
    """The first name whose value of a day reached a line, and the first day on which it did."""

    line: int
    name: str
    day: int


class Records(msgspec.Struct, frozen=True):
    """Records of a board: its biggest days, the longest lead, the lead of now, who was first over each line."""

    peaks: list[Peak]
    longest: Lead | None
    current: Lead | None
    first_over: list[FirstOver]


class MilestoneRecord(msgspec.Struct, frozen=True):
    """A model's tokens of a day passed a line for the first time.

    Attributes:
        model: which.
        line: tokens.
        day: on which.
        crossed_us: when.
        total: tokens of that day, as they stand now.
        first: whether no model had passed this line before.
    """

    model: str
    line: int
    day: int
    crossed_us: int
    total: int
    first: bool


AppStatus = Literal["pending", "approved", "hidden"]


class AppRecord(msgspec.Struct, frozen=True):
    """An app that callers said they are; see ``gateway.db.tables.board.App``."""

    app: str
    title: str
    categories: tuple[str, ...]
    status: AppStatus
    first_key: str
    first_seen_us: int
    decided_us: int | None
    tokens: int = 0


class Sighting(msgspec.Struct, frozen=True):
    """A request said it comes from an app.

    Attributes:
        day: UTC day of the request.
        key_id: whose request.
        app: host, valid.
        title, categories: valid, or empty.
        cap: how many apps that nobody approved a key may name a day.
    """

    day: int
    key_id: str
    app: str
    title: str
    categories: tuple[str, ...]
    cap: int


class Visit(msgspec.Struct, frozen=True):
    """Somebody asks for a board: the caller, the account it belongs to, and how often each may."""

    caller: str
    account: str
    per_minute: int
    per_day: int


BOARD: Final[Method[Board]] = method("boards.board", tuple[Question], Board)
DAYS: Final[Method[list[DayTokens]]] = method("boards.days", tuple[Days], list[DayTokens])
APP_WINDOW: Final[Method[list[AppStanding]]] = method("boards.app_window", tuple[AppWindow], list[AppStanding])
RECORDS: Final[Method[Records]] = method("boards.records", tuple[RecordsQuestion], Records)
MILESTONES: Final[Method[list[MilestoneRecord]]] = method("boards.milestones", tuple[()], list[MilestoneRecord])
VISIT: Final[Method[None]] = method("boards.visit", tuple[Visit], None, repeatable=False)
APPS: Final[Method[list[AppRecord]]] = method("apps.list", tuple[AppStatus | None], list[AppRecord])
DECIDE: Final[Method[AppRecord]] = method("apps.decide", tuple[str, AppStatus, str | None], AppRecord)
SIGHT: Final[Method[bool]] = method("apps.sight", tuple[Sighting], bool)
STRANGERS: Final[Method[list[str]]] = method("boards.strangers", tuple[tuple[str, ...]], list[str])
