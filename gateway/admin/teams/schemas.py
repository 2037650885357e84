"""What team management takes and gives. Times are ISO 8601 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import BaseModel, Field

from gateway.admin.body import Body
from gateway.types.keys import TeamRecord

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class CreateTeamBody(Body):
    """A new team."""

    slug: str = Field(description="Unique name of a-z, 0-9 and -, which never changes.")
    name: str | None = Field(None, description="What people call it; the slug unless said.")


class TeamData(BaseModel):
    """A team."""

    slug: str
    name: str
    created_at: datetime


class TeamAnswer(BaseModel):
    """One team."""

    data: TeamData


class TeamsAnswer(BaseModel):
    """All teams by slug."""

    data: list[TeamData]


def team_data(record: TeamRecord) -> TeamData:
    """Return ``record`` as the API shows it."""
    created = _EPOCH + timedelta(microseconds=record.created_at)
    return TeamData(slug=record.slug, name=record.name, created_at=created)
