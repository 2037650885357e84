"""What price management takes and gives. Money and percent are decimal strings, moments ISO 8601 in UTC."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from gateway.admin.body import Body
from gateway.tariff.form import Wanted
from gateway.tariff.version import Kind
from gateway.types.errors import BadRequest


class NewVersionBody(Body):
    """A version to be made; nothing that was charged before changes."""

    kind: str = Field(description="sell, cost, hour or terms.")
    model: str = Field("", description="Our model id; empty for hour, and for terms of all models.")
    place: str = Field(
        "", description="sell: slug of an endpoint, empty for the model. cost, hour: the backend. terms: the team."
    )
    price: dict[str, Any] | None = Field(None, description="sell, cost: rates as the configuration file writes them.")
    usd_per_hour: str | None = Field(None, description="hour: USD.")
    max_running: int | None = Field(None, ge=1, le=10**6, description="hour: requests it generates side by side.")
    discount_percent: str | None = Field(None, description="terms: percent off the list price.")
    markup_percent: str | None = Field(None, description="terms: percent on top of what the discount leaves.")
    withdraw: bool = Field(False, description="From then on there is nothing of its own.")
    valid_from: str | None = Field(None, description="When it takes its place; now unless said, never in the past.")
    why: str = Field("", max_length=500, description="The reason, for whoever asks later.")

    def wanted(self) -> Wanted:
        """Return the body as a plain value. Raises ``BadRequest`` for an unknown kind."""
        try:
            kind = Kind(self.kind)
        except ValueError:
            raise BadRequest("kind is sell, cost, hour or terms", param="kind") from None
        return Wanted(**{**dict(self), "kind": kind})


class VersionAnswer(BaseModel):
    """One version."""

    data: dict[str, Any]


class VersionsAnswer(BaseModel):
    """Versions, newest first; ``next`` is what ``before`` is for the next page, null on the last one."""

    data: list[dict[str, Any]]
    next: int | None


class LinesAnswer(BaseModel):
    """Lines of a report."""

    data: list[dict[str, Any]]


class MarginAnswer(LinesAnswer):
    """Lines of the margin and their total."""

    total: dict[str, Any]
