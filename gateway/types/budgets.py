"""Budgets as values: what is limited, over which time, and what is asked of one for a request.

A budget counts what is charged for requests of one key, one team or one model, or of any combination of these, in
nano-USD. Its windows are UTC days, weeks from Monday, months, or all time, and a request belongs to the window of the
time inside its id. Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec

from gateway.types.method import Method, method

_EPOCH: Final = date(1970, 1, 1)
_DAY_US: Final = 86_400_000_000
_DAY_MS: Final = 86_400_000
PERCENTS: Final = (50, 80, 100)
"""Shares of the limit at which an alert goes out unless others are asked for."""
GUARDRAIL: Final = "guardrail:"
"""How the ``source`` of a budget begins that a guardrail made; the guardrail's id follows."""


MEMBER: Final = "member:"
"""How the key of a scope begins that stands for all keys of a member of the team; the member's id follows."""


class Window(StrEnum):
    """The time over which a budget counts, in UTC."""

    DAILY = "daily"
    WEEKLY = "weekly"
    """From Monday."""
    MONTHLY = "monthly"
    TOTAL = "total"
    """For ever."""

    def start(self, day: int) -> int:
        """Return the first day of the window that ``day`` is in; days are counted from 1970-01-01."""
        if self is Window.DAILY:
            return day
        if self is Window.TOTAL:
            return 0
        if self is Window.WEEKLY:
            return day - (day + 3) % 7  # 1970-01-01 was a Thursday
        return (_date(day).replace(day=1) - _EPOCH).days

    def end(self, start: int) -> int | None:
        """Return the day after the last one of the window that begins on ``start``; None when it never ends."""
        if self is Window.TOTAL:
            return None
        if self is Window.MONTHLY:
            first = _date(start)
            return (date(first.year + first.month // 12, first.month % 12 + 1, 1) - _EPOCH).days
        return start + (7 if self is Window.WEEKLY else 1)


def _date(day: int) -> date:
    return _EPOCH + timedelta(days=day)


def today(now_us: int) -> int:
    """Return the UTC day of ``now_us`` (microseconds since 1970), counted from 1970-01-01."""
    return now_us // _DAY_US


def day_of(at_ms: int) -> int:
    """Return the UTC day of ``at_ms`` (milliseconds since 1970), counted from 1970-01-01."""
    return at_ms // _DAY_MS


def iso_day(day: int | None) -> str | None:
    """Return the beginning of a UTC day as ISO 8601, or None for none."""
    if day is None:
        return None
    return datetime(*_date(day).timetuple()[:3], tzinfo=UTC).isoformat().replace("+00:00", "Z")


class Scope(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """Whose requests count: those that agree with every part that is not empty.

    Attributes:
        key_id: public id of an inference key; or ``member:`` and who made it, then all keys of that member count.
        team: slug of a team.
        model: id of the model that answers.
    """

    key_id: str = ""
    team: str = ""
    model: str = ""

    def __str__(self) -> str:
        parts = (("key", self.key_id), ("team", self.team), ("model", self.model))
        return " ".join(f"{name} {value}" for name, value in parts if value)


class NewBudget(msgspec.Struct, frozen=True):
    """What is asked for; one with the same scope and window takes its place.

    Attributes:
        limit_nano: nano-USD per window.
        hard: whether requests that do not fit are refused; a soft one only alerts.
        alerts: percentages of the limit at which an alert goes out.
        source: who set it: ``api``, ``key`` (a field of a key), ``file`` (the configuration file), or
            ``guardrail:<id>``. Those of guardrails stand beside others of the same scope and window.
    """

    scope: Scope
    window: Window
    limit_nano: int
    hard: bool = True
    alerts: tuple[int, ...] = PERCENTS
    source: str = "api"

    @property
    def budget_id(self) -> str:
        """See ``budget_id``."""
        return budget_id(self.scope, self.window, self.source if self.of_guardrail else "")

    @property
    def of_guardrail(self) -> bool:
        """Whether a guardrail made it."""
        return self.source.startswith(GUARDRAIL)


class Budget(msgspec.Struct, frozen=True):
    """A budget as it is kept; see ``NewBudget``. Times are microseconds since 1970.

    ``keys`` are the keys of the member, where it is for a member; ``ended`` says that its key is revoked.
    """

    budget_id: str
    scope: Scope
    window: Window
    limit_nano: int
    hard: bool
    alerts: tuple[int, ...]
    source: str
    created_at: int
    updated_at: int
    keys: tuple[str, ...] = ()
    ended: bool = False

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Its scope, or that of each key of its member."""
        scope = self.scope
        if scope.key_id.startswith(MEMBER):
            return tuple(Scope(key_id, scope.team, scope.model) for key_id in self.keys)
        return (scope,)

    @property
    def of_guardrail(self) -> bool:
        """Whether a guardrail made it."""
        return self.source.startswith(GUARDRAIL)


class BudgetState(msgspec.Struct, frozen=True):
    """A budget and where it stands in its running window; amounts in nano-USD.

    Attributes:
        window_day: first UTC day of the window.
        spent: charged for requests of the window, as far as this host can know.
        reserved: held for requests under way, or leased to hosts and not used yet.
    """

    budget: Budget
    window_day: int
    spent: int
    reserved: int

    @property
    def remaining(self) -> int:
        """What may still be spent, reservations included; never negative."""
        return max(0, self.budget.limit_nano - self.spent)

    @property
    def resets(self) -> str | None:
        """When the next window begins, ISO 8601; None when it never does."""
        return iso_day(self.budget.window.end(self.window_day))


class Lease(msgspec.Struct, frozen=True):
    """What a host holds of a budget. Amounts are nano-USD, times microseconds since 1970.

    Attributes:
        updated_at: when the host wrote it last; on a server a host that lives does so every ten seconds or so.
    """

    budget_id: str
    window_day: int
    host: str
    amount: int
    updated_at: int


class AlertsQuestion(msgspec.Struct, frozen=True):
    """Which alerts to tell of, newest first: of budgets of these teams and their keys, or of all when it is None."""

    teams: tuple[str, ...] | None = None
    limit: int = 50


class Alert(msgspec.Struct, frozen=True):
    """A share of a limit that was reached, and what came of telling. Times are microseconds since 1970.

    Attributes:
        team: whose budget it is; that of its key, ``""`` where it belongs to none.
        state: ``delivered``; ``waiting`` to be sent, or to be sent again; ``given up`` after a day; ``logged``, when
            there is no webhook.
        receiver: host that it was last sent to.
        outcome: what came of the last try.
    """

    budget_id: str
    scope: Scope
    team: str
    window: Window
    window_day: int
    percent: int
    hard: bool
    limit_nano: int
    spent_nano: int
    crossed_at: int
    state: str
    delivered_at: int | None
    tries: int
    receiver: str
    outcome: str


class Spend(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What is asked of the budgets of a request.

    Attributes:
        at_ms: the time inside the request's id, milliseconds since 1970.
        team: who pays.
        models: ids of all models that may answer.
        amount: the most that may be charged, nano-USD.
        least: what is enough when ``amount`` is not there; equal to it when nothing less will do.
    """

    at_ms: int
    team: str
    models: tuple[str, ...]
    amount: int
    least: int


class Shortfall(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Why a request does not fit a budget; amounts in nano-USD.

    Attributes:
        left: the limit less what was charged; too little by up to ``unsettled``.
        free: what of ``left`` is neither held for other requests nor leased to other hosts.
        wanted: what the request may cost at most.
        unsettled: what was charged here and may be in the ledger already, so that it may be taken off twice; for a
            second or so.
    """

    budget_id: str
    scope: Scope
    window: Window
    window_day: int
    limit_nano: int
    left: int
    free: int
    wanted: int
    unsettled: int = 0

    def waits(self, least: int) -> bool:
        """Return whether waiting may help a request that would do with ``least``."""
        return self.left + self.unsettled >= least


Paid = tuple[tuple[str, int], ...]
"""What was charged for a request: pairs of model id and nano-USD."""


def budget_id(scope: Scope, window: Window, source: str = "") -> str:
    """Return the id of the one budget with ``scope`` and ``window``, and ``source`` where that tells them apart."""
    told = msgspec.json.encode((scope, window, source) if source else (scope, window))
    return f"bud-{sha256(told).hexdigest()[:16]}"


class Scopes:
    """Which requests concern any hard budget at all; what a worker asks before it asks the keeper.

    Args:
        scopes: of all hard budgets.
    """

    __slots__ = ("_anyone", "_keys", "_teams", "empty")

    def __init__(self, scopes: Iterable[Scope] = ()) -> None:
        self._keys: dict[str, set[str]] = {}
        self._teams: dict[str, set[str]] = {}
        self._anyone: set[str] = set()
        for scope in scopes:
            if scope.key_id:
                self._keys.setdefault(scope.key_id, set()).add(scope.model)
            elif scope.team:
                self._teams.setdefault(scope.team, set()).add(scope.model)
            else:
                self._anyone.add(scope.model)
        self.empty = not (self._keys or self._teams or self._anyone)

    def models(self, key_id: str, team: str) -> frozenset[str]:
        """Return the models for which requests of a key and team concern a budget; ``""`` among them is all."""
        none: set[str] = set()
        return frozenset(self._keys.get(key_id, none) | self._teams.get(team, none) | self._anyone)


SET_BUDGET: Final[Method[Budget]] = method("budgets.set", tuple[NewBudget], Budget)
BUDGETS: Final[Method[Sequence[BudgetState]]] = method(
    "budgets.list", tuple[str | None, tuple[str, ...] | None], tuple[BudgetState, ...], seconds=30.0
)
"""Budgets and where they stand: all, or those of a team and of keys that are named (``""`` names those of none).

Those of revoked keys limit nothing any more and are told where their key is named alone.
"""
ENDED_BUDGETS: Final[Method[Sequence[BudgetState]]] = method(
    "budgets.ended", tuple[str | None], tuple[BudgetState, ...], seconds=30.0
)
"""Budgets of revoked keys and where they stood: all, or those that name a team."""
DELETE_BUDGET: Final[Method[None]] = method("budgets.delete", tuple[str], None)
FILE_BUDGETS: Final[Method[None]] = method("budgets.file", tuple[tuple[NewBudget, ...]], None)
"""Bring the budgets that came from the configuration file to what it says now."""
ALERTS: Final[Method[Sequence[Alert]]] = method("budgets.alerts", tuple[AlertsQuestion], tuple[Alert, ...])
LEASES: Final[Method[Sequence[Lease]]] = method("budgets.leases", tuple[()], tuple[Lease, ...])
RELEASE: Final[Method[int]] = method("budgets.release", tuple[str], int)
"""Give back all leases of a host that is gone for good with its journal; returns the nano-USD that were freed."""
