"""What the paths of stored prompts and answers take and give."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field

from gateway.admin.body import Body
from gateway.types.content import ContentChoice

TEAM: Final = "^[a-z0-9-]{1,64}$"
KEY: Final = "^[a-z0-9]{8}$"


class ChooseBody(Body):
    """Whether prompts and answers of a team, or of one of its keys, are stored."""

    team: str = Field(description="Slug of the team.", pattern=TEAM)
    key: str | None = Field(None, description="`weir.key_id` of one key; null for the whole team.", pattern=KEY)
    store: bool = Field(description="Whether they are.")
    lifetime_days: int | None = Field(
        None, ge=1, le=3650, description="Days that they are kept; null as the configuration says."
    )

    def value(self) -> ContentChoice:
        """Return the choice."""
        return ContentChoice(self.team, self.key or "", self.store, self.lifetime_days)


class ChoiceData(BaseModel):
    """What was chosen."""

    team: str
    key: str | None
    store: bool
    lifetime_days: int | None


class ChoicesAnswer(BaseModel):
    """All that was chosen."""

    data: list[ChoiceData]


class ContentOutput(BaseModel):
    """What was answered: the first choice, and beside it tool calls and further choices where there are any."""

    completion: str | None
    reasoning: str | None
    tool_calls: list[dict[str, Any]] | None = None
    choices: list[dict[str, Any]] | None = None


class ContentError(BaseModel):
    """How an answer failed."""

    message: str | None
    previous_errors: list[dict[str, Any]]
    provider_name: str | None
    raw: str | None
    status: int | None


class ContentData(BaseModel):
    """What was asked and answered: ``input`` has ``messages`` or ``prompt``."""

    input: dict[str, Any]
    output: ContentOutput
    error: ContentError | None


class ContentAnswer(BaseModel):
    """One request's content."""

    data: ContentData


class ForgottenData(BaseModel):
    """How many stored prompts and answers were deleted."""

    deleted: int


class ForgottenAnswer(BaseModel):
    """What was deleted."""

    data: ForgottenData


def choice_data(choice: ContentChoice) -> ChoiceData:
    """Return ``choice`` as the API shows it."""
    return ChoiceData(team=choice.team, key=choice.key_id or None, store=choice.store, lifetime_days=choice.days)
