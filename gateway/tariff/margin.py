"""Margins: what was charged and what it cost, per day, model and endpoint; and tokens per dollar.

The cost of an endpoint is what its backends cost by token (the ledger) and its part of the machines' hours
(``allocation``); the idle rest of the hours is a line of its own for each backend. *Tokens per dollar* is a whole
number, rounded down: for the public per dollar charged, for the operator per dollar of cost; idle hours count in the
totals alone. Money is in nano-USD. Days that are not over, and hours that are not worked out yet, count as far as they
are known. A database that is away is ``Unavailable``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from sqlalchemy import func, select
from sqlmodel import col

from gateway.db.engine import Database
from gateway.db.tables.ledger import UsageDay
from gateway.db.tables.tariff import AllocationHour
from gateway.db.unit_of_work import reading
from gateway.pricing.charge import tokens_per_usd
from gateway.types.errors import BadRequest
from gateway.types.method import Method, method

MOST_DAYS: Final = 366
MOST_HOURS: Final = 24 * 31


class MarginLine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One endpoint of a model on one day, or all of them.

    Attributes:
        day: UTC, counted from 1970; None in a total.
        model: id, ``""`` where no model was served: the idle hours of a machine, or a correction.
        endpoint: slug; of idle hours the backend.
        requests: attempts of all kinds.
        tokens: prompt and completion tokens.
        charge: what teams were charged.
        discount: how much that is below the list price.
        token_cost: what the owner pays by token.
        hour_cost: its part of the machines' hours.
        idle: whether it is the idle rest of a machine's hours.
    """

    day: int | None
    model: str
    endpoint: str
    requests: int = 0
    tokens: int = 0
    charge: int = 0
    discount: int = 0
    token_cost: int = 0
    hour_cost: int = 0
    idle: bool = False

    @property
    def cost(self) -> int:
        """What the owner pays."""
        return self.token_cost + self.hour_cost

    @property
    def margin(self) -> int:
        """What is left of the charge."""
        return self.charge - self.cost

    @property
    def tokens_per_usd_charged(self) -> int | None:
        """Tokens per dollar, as the public sees it; None when nothing was charged."""
        return tokens_per_usd(self.tokens, self.charge)

    @property
    def tokens_per_usd_of_cost(self) -> int | None:
        """Tokens per dollar, as the operator sees it; None when it cost nothing."""
        return tokens_per_usd(self.tokens, self.cost)


class AllocationLine(msgspec.Struct, frozen=True, gc=False):
    """A line of an hour of an own machine; see ``gateway.db.tables.tariff.AllocationHour``."""

    hour: int
    backend: str
    model: str
    endpoint: str
    usd_per_hour_nano: int
    cost_nano: int
    share: int
    tokens: int
    busy_us: int
    measure: str
    final: bool


MARGIN: Final[Method[tuple[MarginLine, ...]]] = method(
    "tariff.margin", tuple[int, int], tuple[MarginLine, ...], seconds=60.0
)
"""Lines of the days from the first to the last."""
ALLOCATION: Final[Method[tuple[AllocationLine, ...]]] = method(
    "tariff.allocation", tuple[int, int, str | None], tuple[AllocationLine, ...], seconds=60.0
)
"""Lines of the hours from the first to the last, of one backend or of all."""


def total(lines: Iterable[MarginLine]) -> MarginLine:
    """Return the sums of ``lines``."""
    names = ("requests", "tokens", "charge", "discount", "token_cost", "hour_cost")
    sums: dict[str, Any] = dict.fromkeys(names, 0)
    for line in lines:
        for name in names:
            sums[name] += getattr(line, name)
    return MarginLine(day=None, model="", endpoint="", **sums)


class Margins:
    """Reads margins and allocations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def margin(self, first: int, last: int) -> tuple[MarginLine, ...]:
        """Return the lines of the days ``first`` to ``last``, by day, model and endpoint, idle ones last."""
        if not 0 <= last - first < MOST_DAYS:
            raise BadRequest(f"ask for 1 to {MOST_DAYS} days")
        found: dict[tuple[int, bool, str, str], dict[str, Any]] = {}
        async with reading(self._database) as session:
            for day, model, endpoint, *sums in await session.execute(_used(first, last)):
                names = ("requests", "tokens", "charge", "discount", "token_cost")
                found[day, False, model, endpoint] = dict(zip(names, map(int, sums), strict=True))
            for day, backend, model, endpoint, cost in await session.execute(_hours(first, last)):
                key = (day, not model, model, endpoint or backend)
                line = found.setdefault(key, {})
                line["hour_cost"] = line.get("hour_cost", 0) + int(cost)
        return tuple(
            MarginLine(day=day, model=model, endpoint=endpoint, idle=idle, **sums)
            for (day, idle, model, endpoint), sums in sorted(found.items())
        )

    async def allocation(self, first: int, last: int, backend: str | None) -> tuple[AllocationLine, ...]:
        """Return the lines of the hours ``first`` to ``last``."""
        if not 0 <= last - first < MOST_HOURS:
            raise BadRequest(f"ask for 1 to {MOST_HOURS} hours")
        query = select(AllocationHour).where(col(AllocationHour.hour).between(first, last))
        if backend is not None:
            query = query.where(col(AllocationHour.backend) == backend)
        query = query.order_by(
            col(AllocationHour.hour),
            col(AllocationHour.backend),
            col(AllocationHour.model).desc(),
            col(AllocationHour.endpoint),
        )
        names = AllocationLine.__struct_fields__
        async with reading(self._database) as session:
            rows = (await session.execute(query)).scalars()
            return tuple(AllocationLine(*(getattr(row, name) for name in names)) for row in rows)


def _used(first: int, last: int) -> Any:
    keys = (col(UsageDay.day), col(UsageDay.model), col(UsageDay.endpoint))
    sums = (
        func.sum(UsageDay.requests),
        func.sum(UsageDay.tokens_prompt + UsageDay.tokens_completion),
        func.sum(UsageDay.charge_nano),
        func.sum(UsageDay.discount_nano),
        func.sum(UsageDay.cost_nano),
    )
    return select(*keys, *sums).where(col(UsageDay.day).between(first, last)).group_by(*keys)


def _hours(first: int, last: int) -> Any:
    day = (col(AllocationHour.hour) // 24).label("day")
    keys = (col(AllocationHour.backend), col(AllocationHour.model), col(AllocationHour.endpoint))
    return (
        select(day, *keys, func.sum(AllocationHour.cost_nano))
        .where(col(AllocationHour.hour).between(first * 24, last * 24 + 23))
        .group_by(day, *keys)
    )
