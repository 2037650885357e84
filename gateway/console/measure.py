"""What pages ask about usage, and the answers: sums over time and single requests.

Days and hours count from 1970 in UTC, money is in nano-USD, durations are microseconds. Imported by whoever asks, so it
knows no database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from gateway.types.method import Method, method

Grain = Literal["day", "hour"]
Group = Literal["", "team", "key_id", "model", "endpoint", "app", "status"]
GROUPS: Final[tuple[Group, ...]] = ("", "team", "key_id", "model", "endpoint", "app", "status")


Ranked = Literal["tokens", "charge", "requests", "errors"]
"""What names are ranked by."""
REST: Final = "*"
"""The name of all names together that are not told apart."""


class Pick(msgspec.Struct, frozen=True):
    """Whose usage counts: what agrees with every part that is not empty.

    Attributes:
        teams: of these teams only; None for all.
    """

    teams: tuple[str, ...] | None = None
    team: str = ""
    key_id: str = ""
    model: str = ""
    endpoint: str = ""
    app: str = ""
    status: str = ""


class UsageQuestion(msgspec.Struct, frozen=True):
    """Sums of a window (both ends inclusive) by ``group`` and, when ``series`` says so, by point of time.

    Attributes:
        most: names of a series that are told apart, the greatest ``by`` a measure; the others are ``REST``. 0 for all.
    """

    grain: Grain
    first: int
    last: int
    group: Group = ""
    pick: Pick = Pick()
    series: bool = True
    most: int = 0
    by: Ranked = "tokens"


class Sum(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was used.

    Attributes:
        point: the day or hour; the first of the window without a series.
        name: of the group; ``""`` without one.
        requests: of callers: answered, left, refused or broken off.
        errors: those of them that were refused or broken off by an error.
        retries: tries that another one followed.
    """

    point: int
    name: str
    requests: int
    errors: int
    retries: int
    prompt: int
    completion: int
    cached: int
    charge_nano: int
    cost_nano: int

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens."""
        return self.prompt + self.completion


class Speed(msgspec.Struct, frozen=True, gc=False):
    """Percentiles of a window; None when nothing was measured.

    Attributes:
        ttft_p50, ttft_p95: seconds to the first token.
        rate_p50: tokens per second of one answer.
    """

    ttft_p50: float | None
    ttft_p95: float | None
    rate_p50: float | None


class Pace(msgspec.Struct, frozen=True, gc=False):
    """Percentiles of an hour; see ``Speed``."""

    hour: int
    speed: Speed


class RequestsQuestion(msgspec.Struct, frozen=True):
    """A page of single attempts of a window of hours (both inclusive), newest first.

    Attributes:
        before: only requests with a smaller id; empty for the newest.
        backend: only what this one was asked; ``""`` for all. Sums do not know it, so pages may have fewer rows than
            there is room for, or none, and go on all the same.
    """

    first: int
    last: int
    pick: Pick = Pick()
    before: bytes = b""
    limit: int = 50
    backend: str = ""


class RequestRow(msgspec.Struct, frozen=True, array_like=True):
    """A metered attempt; see ``gateway.db.tables.ledger``."""

    request_id: bytes
    attempt: int
    team: str
    key_id: str
    model: str
    endpoint: str
    backend: str
    app: str
    status: str
    finish_reason: str
    error: str
    prompt: int
    completion: int
    cached: int
    charge_nano: int
    cost_nano: int
    ttft_us: int
    duration_us: int


class RequestPage(msgspec.Struct, frozen=True):
    """Attempts, and from where to go on; ``next`` is empty at the end."""

    rows: list[RequestRow]
    next: bytes


class Yield(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What came out of money that the owner spent.

    Attributes:
        backend: an own machine, or ``""`` for an endpoint that is billed by token.
        endpoint: its slug, ``""`` of a machine, which may have several.
        cost_nano: idle hours of a machine included.
        idle_nano: those alone.
    """

    backend: str
    endpoint: str
    tokens: int
    cost_nano: int
    idle_nano: int = 0


class KeyName(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a key is called, and whose it is; revoked ones too."""

    key_id: str
    name: str
    team: str


USAGE: Final[Method[Sequence[Sum]]] = method("console.usage", tuple[UsageQuestion], list[Sum])
SPEED: Final[Method[Speed]] = method("console.speed", tuple[int, int, Pick], Speed)
"""Percentiles of a window of hours."""
REQUESTS: Final[Method[RequestPage]] = method("console.requests", tuple[RequestsQuestion], RequestPage)
FIRST_DAY: Final[Method[int]] = method("console.first_day", tuple[str], int)
"""The first day with usage of a team, or of all for ``""``; 0 when there is none."""
PACES: Final[Method[list[Pace]]] = method("console.paces", tuple[int, int, Pick], list[Pace])
"""Percentiles of each hour of a window in which anything was measured, in the order of time."""
YIELDS: Final[Method[list[Yield]]] = method("console.yields", tuple[int, int, tuple[str, ...]], list[Yield])
"""Of the days from the first to the last: own machines by name, and the endpoints that are named."""
KEY_NAMES: Final[Method[list[KeyName]]] = method("console.key_names", tuple[tuple[str, ...]], list[KeyName])
"""Of the keys that are named, as far as there are such; 500 of them at most."""
