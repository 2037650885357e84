"""What workspace management takes and gives, in OpenRouter's shape. A workspace's id is its slug, the team's.

Fields of OpenRouter's that name something Weir does not have are taken only with the value that says so.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from gateway.admin.answer import Usd, iso, usd
from gateway.admin.body import Body
from gateway.types.budgets import Budget, Window
from gateway.types.guardrails import default_id
from gateway.types.workspaces import Member, Workspace, WorkspacePatch

Sorting = Literal["price", "throughput", "latency", "exacto"]
Users = Annotated[list[str], Field(min_length=1, max_length=100, description="E-mail addresses.")]
Interval = Literal["daily", "weekly", "monthly", "lifetime"]
WINDOWS: Final = {
    "daily": Window.DAILY,
    "weekly": Window.WEEKLY,
    "monthly": Window.MONTHLY,
    "lifetime": Window.TOTAL,
}
INTERVALS: Final = {window: name for name, window in WINDOWS.items()}


class SettingsBody(Body):
    """Settings of a workspace."""

    description: str | None = Field(None, description="What it is for; null for nothing.")
    default_text_model: str | None = Field(None, description="What requests mean that name no model; null for none.")
    default_provider_sort: Sorting | None = Field(None, description="Order of endpoints unless a request says one.")
    default_image_model: None = Field(None, description="Only null: there are no image models.")
    disabled_server_tools: Annotated[list[str], Field(max_length=0)] | None = Field(
        None, description="Only null or empty: there are no server tools."
    )
    io_logging_api_key_ids: None = Field(None, description="Only null.")
    io_logging_sampling_rate: Literal[1] | None = Field(None, description="Only 1.")
    is_data_discount_logging_enabled: Literal[False] | None = Field(None, description="Only false.")
    is_observability_broadcast_enabled: Literal[False] | None = Field(None, description="Only false.")
    is_observability_io_logging_enabled: Literal[False] | None = Field(None, description="Only false.")

    def patch(self) -> dict[str, str]:
        """Return the settings that were said, as ``WorkspacePatch`` has them."""
        names = {
            "description": "description",
            "default_text_model": "default_model",
            "default_provider_sort": "default_sort",
        }
        return {ours: getattr(self, name) or "" for name, ours in names.items() if name in self.model_fields_set}


class CreateWorkspaceBody(SettingsBody):
    """A new workspace."""

    name: str = Field(description="What people call it.")
    slug: str = Field(description="Unique name of a-z, 0-9 and -, which never changes.")


class UpdateWorkspaceBody(SettingsBody):
    """Changes of a workspace; what is missing stays."""

    name: str | None = Field(None, description="What people call it; not null.")
    slug: str | None = Field(None, description="Only the workspace's own: a slug never changes.")

    def value(self) -> WorkspacePatch:
        """Return the change."""
        said: dict[str, Any] = self.patch()
        return WorkspacePatch(**said) if self.name is None else WorkspacePatch(name=self.name, **said)


class MembersBody(Body):
    """Users to add or to remove."""

    user_ids: Users


class NewMembersBody(MembersBody):
    """Users to add."""

    role: Literal["admin", "member"] = Field("member", description="Weir's own: what they are in the workspace.")


class BudgetBody(Body):
    """A budget of a workspace."""

    limit_usd: Usd = Field(description="USD per interval.")
    include_byok_in_budgets: Literal[False] | None = Field(None, description="Only false.")


class WorkspaceData(BaseModel):
    """A workspace."""

    id: str
    slug: str
    name: str
    description: str | None
    created_at: str
    created_by: str | None
    updated_at: str | None
    default_guardrail_id: str
    default_text_model: str | None
    default_provider_sort: str | None
    default_image_model: str | None
    io_logging_api_key_ids: list[int] | None
    io_logging_sampling_rate: float
    is_data_discount_logging_enabled: bool
    is_observability_broadcast_enabled: bool
    is_observability_io_logging_enabled: bool
    include_byok_in_budgets: bool


class WorkspaceAnswer(BaseModel):
    """One workspace."""

    data: WorkspaceData


class WorkspacesAnswer(BaseModel):
    """A page of workspaces, by slug."""

    data: list[WorkspaceData]
    total_count: int


class MemberData(BaseModel):
    """A member of a workspace."""

    id: str
    workspace_id: str
    user_id: str
    role: str
    created_at: str


class MembersAnswer(BaseModel):
    """A page of members."""

    data: list[MemberData]
    total_count: int


class AddedAnswer(BaseModel):
    """Who became a member."""

    data: list[MemberData]
    added_count: int


class RemovedAnswer(BaseModel):
    """How many are members no more."""

    removed_count: int


class WorkspaceBudgetData(BaseModel):
    """A budget of a workspace."""

    id: str
    workspace_id: str
    limit_usd: float
    reset_interval: str | None
    created_at: str
    updated_at: str


class WorkspaceBudgetAnswer(BaseModel):
    """One budget."""

    data: WorkspaceBudgetData
    include_byok_in_budgets: bool


class WorkspaceBudgetsAnswer(BaseModel):
    """The budgets of a workspace, the longest interval first."""

    data: list[WorkspaceBudgetData]
    include_byok_in_budgets: bool


class DeletedAnswer(BaseModel):
    """Something was deleted."""

    deleted: Literal[True] = True


def workspace_data(found: Workspace) -> dict[str, Any]:
    """Return a workspace as it is shown; see ``WorkspaceData``."""
    return {
        "id": found.team,
        "slug": found.team,
        "name": found.name,
        "description": found.description or None,
        "created_at": iso(found.created_at),
        "created_by": None,
        "updated_at": iso(found.updated_at),
        "default_guardrail_id": default_id(found.team),
        "default_text_model": found.default_model or None,
        "default_provider_sort": found.default_sort or None,
        "default_image_model": None,
        "disabled_server_tools": None,
        "io_logging_api_key_ids": None,
        "io_logging_sampling_rate": 1,
        "is_data_discount_logging_enabled": False,
        "is_observability_broadcast_enabled": False,
        "is_observability_io_logging_enabled": False,
        "include_byok_in_budgets": False,
    }


def member_data(member: Member) -> dict[str, Any]:
    """Return a member as it is shown; see ``MemberData``."""
    return {
        "id": f"{member.team}/{member.user_id}",
        "workspace_id": member.team,
        "user_id": member.user_id,
        "role": member.role,
        "created_at": iso(member.created_at),
    }


def budget_data(budget: Budget) -> dict[str, Any]:
    """Return a workspace's budget as it is shown; see ``WorkspaceBudgetData``."""
    return {
        "id": budget.budget_id,
        "workspace_id": budget.scope.team,
        "limit_usd": usd(budget.limit_nano),
        "reset_interval": None if budget.window is Window.TOTAL else budget.window.value,
        "created_at": iso(budget.created_at),
        "updated_at": iso(budget.updated_at),
    }
