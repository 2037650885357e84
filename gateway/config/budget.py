"""The section of the configuration file with budgets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.field import Amount, ModelId, Section, TeamSlug
from gateway.config.snapshot import BudgetSpec


class BudgetSection(Section):
    """What a team, a key or a model, or several of these together, may spend."""

    team: TeamSlug | None = Field(None, description="Slug of the team whose requests count. Default: all.")
    key: Annotated[str, Field(pattern="^[a-z0-9]{8}$")] | None = Field(
        None, description="Public id of the key whose requests count. Default: all."
    )
    model: ModelId | None = Field(None, description="Id of the model that answers. Default: all.")
    window: Literal["daily", "weekly", "monthly", "total"] = Field(
        description="The time it is for, in UTC; weeks begin on Monday.", examples=["monthly"]
    )
    usd: Amount = Field(description="USD per window, as decimal text.", examples=['"250"'])
    hard: bool = Field(True, description="Whether requests that do not fit are refused; a soft budget only alerts.")
    alerts: Annotated[tuple[Annotated[int, Field(ge=1, le=1000)], ...], Field(max_length=10)] = Field(
        (50, 80, 100), description="Percentages of the limit at which an alert goes out."
    )

    def values(self) -> BudgetSpec:
        """Return the section as a plain value."""
        alerts = tuple(sorted(set(self.alerts)))
        return BudgetSpec(self.key or "", self.team or "", self.model or "", self.window, self.usd, self.hard, alerts)
