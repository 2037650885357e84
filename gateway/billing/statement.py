"""The statement of a team: what it used in a month, model by model and day by day, and what it owes for that.

Money is decimal text in USD, exact to the nano-USD: list price less discount is what is effectively charged; a markup
is a negative discount. Values only; the forms it is given out in are in ``gateway.billing.paper``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.billing.line import NOTHING, Amounts, Line
from gateway.billing.period import day_text, days_of, period_of
from gateway.metering.record import RowKind
from gateway.types.money import usd_text

FORM: Final = 1
LATE: Final = "late usage of a closed period"
CORRECTED: Final = "correction"


class Money(msgspec.Struct, frozen=True):
    """Amounts in USD as decimal text. ``list`` less ``discount`` is ``effective``."""

    list: str
    discount: str
    effective: str


class StatementLine(msgspec.Struct, frozen=True):
    """One model on one day.

    Attributes:
        day: UTC day of the usage.
        model: our model id.
        requests: answered requests.
        prompt_tokens: input tokens of all classes.
        cached_tokens: those of them that were read from a cache.
        completion_tokens: output tokens of all classes.
        amount: what they cost.
        reason: of a correction; ``""`` for usage of this period.
    """

    day: str
    model: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    amount: Money
    reason: str = ""


class Totals(msgspec.Struct, frozen=True):
    """Sums of all lines and corrections, and of the corrections alone."""

    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    amount: Money
    corrections: Money


class Statement(msgspec.Struct, frozen=True):
    """A statement.

    Attributes:
        form: number of this form.
        period: the month.
        first_day, last_day: its UTC days.
        state: ``open`` (may still change) or ``closed`` (never changes again).
        closed_at: when it was closed, ISO 8601, or None.
        issuer: who charges.
        team: slug of the team.
        name: what people call it.
        currency: ``USD``.
        lines: usage of the period, by day and model.
        corrections: what changes earlier days: late usage of closed periods, and corrections of single rows.
        totals: sums.
    """

    form: int
    period: str
    first_day: str
    last_day: str
    state: str
    closed_at: str | None
    issuer: str
    team: str
    name: str
    currency: str
    lines: tuple[StatementLine, ...]
    corrections: tuple[StatementLine, ...]
    totals: Totals


class Sums:
    """Lines of one team on their way into a statement: amounts by day, model and reason."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, str, str], Amounts] = {}

    def add(self, lines: Iterable[Line]) -> None:
        """Add lines of the team."""
        for line in lines:
            place = (line.key.day, line.key.model, _reason(line))
            self._found[place] = self._found.get(place, NOTHING).plus(line.amounts)

    @property
    def amounts(self) -> Amounts:
        """All of them together."""
        return _sum(self._found.values())

    def statement(
        self, period: str, team: str, name: str, *, issuer: str, state: str, closed_at: str | None
    ) -> Statement:
        """Return what was added as a statement."""
        first, last = days_of(period)
        usage = [(place, self._found[place]) for place in sorted(self._found) if not place[2]]
        corrections = [(place, self._found[place]) for place in sorted(self._found) if place[2]]
        every = self.amounts
        return Statement(
            FORM,
            period,
            day_text(first),
            day_text(last),
            state,
            closed_at,
            issuer,
            team,
            name,
            "USD",
            tuple(_line(*each) for each in usage),
            tuple(_line(*each) for each in corrections),
            Totals(
                every.requests,
                every.prompt_tokens,
                every.tokens[2],
                every.completion_tokens,
                money(every),
                money(_sum(amounts for _, amounts in corrections)),
            ),
        )


def money(amounts: Amounts) -> Money:
    """Return what ``amounts`` cost."""
    charge, discount = amounts.charge_nano, amounts.discount_nano
    return Money(usd_text(charge + discount), usd_text(discount), usd_text(charge))


def _reason(line: Line) -> str:
    if period_of(line.key.day) != line.period:
        return LATE
    return CORRECTED if line.key.kind == RowKind.CORRECTION else ""


def _sum(every: Iterable[Amounts]) -> Amounts:
    total = NOTHING
    for amounts in every:
        total = total.plus(amounts)
    return total


def _line(place: tuple[int, str, str], amounts: Amounts) -> StatementLine:
    day, model, reason = place
    return StatementLine(
        day_text(day),
        model,
        amounts.requests,
        amounts.prompt_tokens,
        amounts.tokens[2],
        amounts.completion_tokens,
        money(amounts),
        reason,
    )
