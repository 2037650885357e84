"""What budget management takes and gives. Money is USD as decimal text, times are ISO 8601 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from pydantic import BaseModel, Field

from gateway.admin.body import Body
from gateway.types.budgets import PERCENTS, BudgetState, NewBudget, Scope, Window, iso_day
from gateway.types.errors import BadRequest
from gateway.types.money import MoneyError, nano_from_usd, usd_text

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SetBudgetBody(Body):
    """A budget; the one for the same key, team, model and window is replaced."""

    team: str | None = Field(None, description="Slug of the team whose requests count; null for all.")
    key: str | None = Field(None, description="`weir.key_id` of the key whose requests count; null for all.")
    model: str | None = Field(None, description="Id of the model that answers; null for all.")
    window: Literal["daily", "weekly", "monthly", "total"] = Field(
        description="The time it is for, in UTC; weeks begin on Monday."
    )
    limit_usd: str = Field(description='USD per window, as decimal text such as "250.00".')
    hard: bool = Field(True, description="Whether requests that do not fit are refused; a soft budget only alerts.")
    alerts: list[int] = Field(list(PERCENTS), description="Percentages of the limit at which an alert goes out.")

    def value(self) -> NewBudget:
        """Return the budget that is asked for. Raises ``BadRequest``."""
        try:
            limit = nano_from_usd(self.limit_usd)
        except MoneyError as error:
            raise BadRequest(f"limit_usd {error.message}: {error.mend}", param="limit_usd") from None
        scope = Scope(self.key or "", self.team or "", self.model or "")
        return NewBudget(scope, Window(self.window), limit, self.hard, tuple(self.alerts))


class BudgetData(BaseModel):
    """A budget and where it stands in its running window.

    ``remaining_usd`` is the limit less what was charged; ``reserved_usd`` of it is held for requests under way, or
    lent to hosts.
    """

    id: str
    team: str | None
    key: str | None
    model: str | None
    window: str
    window_start: str | None
    resets_at: str | None
    limit_usd: str
    spent_usd: str
    reserved_usd: str
    remaining_usd: str
    hard: bool
    alerts: list[int]
    source: str
    revoked: bool = Field(description="Whether its key is revoked, so that it limits nothing any more.")
    created_at: datetime
    updated_at: datetime


class BudgetAnswer(BaseModel):
    """One budget."""

    data: BudgetData


class BudgetsAnswer(BaseModel):
    """All budgets that were asked for."""

    data: list[BudgetData]


class DeletedAnswer(BaseModel):
    """A budget was deleted."""

    deleted: Literal[True] = True


class LeaseData(BaseModel):
    """What a host holds of a budget's window."""

    host: str
    budget: str
    window_start: str | None
    amount_usd: str
    updated_at: datetime


class LeasesAnswer(BaseModel):
    """All leases."""

    data: list[LeaseData]


def budget_data(state: BudgetState) -> BudgetData:
    """Return ``state`` as the API shows it."""
    budget = state.budget
    return BudgetData(
        id=budget.budget_id,
        team=budget.scope.team or None,
        key=budget.scope.key_id or None,
        model=budget.scope.model or None,
        window=budget.window.value,
        window_start=window_start(state.window_day),
        resets_at=state.resets,
        limit_usd=usd_text(budget.limit_nano),
        spent_usd=usd_text(state.spent),
        reserved_usd=usd_text(state.reserved),
        remaining_usd=usd_text(state.remaining),
        hard=budget.hard,
        alerts=list(budget.alerts),
        source=budget.source,
        revoked=budget.ended,
        created_at=moment(budget.created_at),
        updated_at=moment(budget.updated_at),
    )


def window_start(day: int) -> str | None:
    """Return the beginning of a window as ISO 8601; None for one that has none."""
    return iso_day(day) if day else None


def moment(microseconds: int) -> datetime:
    """Return a time since 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)
