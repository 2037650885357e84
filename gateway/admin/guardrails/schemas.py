"""What guardrail management takes and gives, in OpenRouter's shape.

Fields of OpenRouter's for what Weir does not have (filters of contents, regions of its own addresses) are taken only
with the value that says so: a guardrail never promises more than it holds.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from gateway.access.keys import label
from gateway.admin.answer import Usd, iso, nano, usd
from gateway.admin.body import Body
from gateway.admin.keys.schemas import key_hash
from gateway.types.budgets import Window
from gateway.types.errors import BadRequest
from gateway.types.guardrails import GROUPS, Assignment, Guardrail, NewGuardrail, Terms

ORGANIZATION: Final = "weir"
"""The id of the one organization: whoever runs this gateway."""
Names = Annotated[list[str], Field(max_length=100)]
_NAMES: Final = ("allowed_models", "ignored_models", "allowed_providers", "ignored_providers")
_COLLECTION: Final = ("enable_paid_model_training", "enable_free_model_training", "enable_free_model_publication")
_ZDR: Final = {f"enforce_zdr_{group}": group for group in GROUPS}
_NO_FILTERS: Final = "Only null or empty: contents are not looked at."


class GuardrailBody(Body):
    """What a guardrail asks; null is no restriction."""

    description: str | None = Field(None, description="What it is for.")
    allowed_models: Names | None = Field(None, description="The only models that may answer, by id.")
    ignored_models: Names | None = Field(None, description="Models that must not answer, by id.")
    allowed_providers: Names | None = Field(None, description="The only providers that may serve, by slug.")
    ignored_providers: Names | None = Field(None, description="Providers that must not serve, by slug.")
    enforce_zdr: bool | None = Field(None, description="Zero data retention for every group that is not said below.")
    enforce_zdr_anthropic: bool | None = Field(None, description="Zero data retention for Anthropic's models.")
    enforce_zdr_google: bool | None = Field(None, description="Zero data retention for Google's models.")
    enforce_zdr_openai: bool | None = Field(None, description="Zero data retention for OpenAI's models.")
    enforce_zdr_xai: bool | None = Field(None, description="Zero data retention for xAI's models.")
    enforce_zdr_other: bool | None = Field(None, description="Zero data retention for all other models.")
    enable_paid_model_training: bool | None = Field(
        None, description="false keeps requests from endpoints that may store prompts; so do the two below."
    )
    enable_free_model_training: bool | None = Field(None, description="As `enable_paid_model_training`.")
    enable_free_model_publication: bool | None = Field(None, description="As `enable_paid_model_training`.")
    limit_usd: Usd | None = Field(None, description="USD that each key may spend per `reset_interval`.")
    reset_interval: Literal["daily", "weekly", "monthly"] | None = Field(None, description="With `limit_usd`.")
    include_byok_in_budgets: Literal[False] | None = Field(None, description="Only false.")
    content_filters: Annotated[list[dict[str, Any]], Field(max_length=0)] | None = Field(None, description=_NO_FILTERS)
    content_filter_builtins: Annotated[list[dict[str, Any]], Field(max_length=0)] | None = Field(
        None, description=_NO_FILTERS
    )
    allowed_data_regions: None = Field(None, description="Only null: a gateway has one address.")
    allow_safety_retention_google: None = Field(None, description="Only null.")
    allow_safety_retention_other: None = Field(None, description="Only null.")

    def value(self, name: str, known: Guardrail | None) -> NewGuardrail:
        """Return what the guardrail ``name`` is to be; of ``known`` stays what is not said. Raises ``BadRequest``."""
        said = self.model_fields_set
        terms = known.terms if known is not None else Terms()
        lists: dict[str, Any] = {}
        for field in _NAMES:
            found: list[str] | None = getattr(self, field)
            if field in said:
                fold = field.endswith("providers")
                names = found or None  # an empty list is none, as OpenRouter has it
                lists[field] = None if names is None else tuple(each.casefold() if fold else each for each in names)
            else:
                lists[field] = getattr(terms, field)
        limit, window = (known.limit_nano, known.window) if known is not None else (None, None)
        if "limit_usd" in said:
            limit = None if self.limit_usd is None else nano(self.limit_usd)
        if "reset_interval" in said:
            window = None if self.reset_interval is None else Window(self.reset_interval)
        description = self.description or "" if "description" in said or known is None else known.description
        return NewGuardrail(
            name,
            description,
            Terms(**lists, zdr=self._zdr(terms), deny_collection=self._denies(terms)),
            limit,
            window,
        )

    def _zdr(self, terms: Terms) -> tuple[str, ...]:
        said = self.model_fields_set
        wanted = set(terms.zdr)
        for field, group in _ZDR.items():
            if field in said:
                on = bool(getattr(self, field))
            elif "enforce_zdr" in said:
                on = bool(self.enforce_zdr)
            else:
                continue
            wanted = wanted | {group} if on else wanted - {group}
        return tuple(group for group in GROUPS if group in wanted)

    def _denies(self, terms: Terms) -> bool:
        values = {getattr(self, field) for field in _COLLECTION if field in self.model_fields_set}
        if {True, False} <= values:
            raise BadRequest(
                "endpoints that may store prompts are not told apart: set the three fields alike",
                param="enable_free_model_training",
            )
        return False in values if values else terms.deny_collection


class CreateGuardrailBody(GuardrailBody):
    """A new guardrail."""

    name: str = Field(description="What people call it.")
    workspace_id: str | None = Field(None, description="Slug of the workspace; `default` unless said.")


class UpdateGuardrailBody(GuardrailBody):
    """Changes of a guardrail; what is missing stays."""

    name: str | None = Field(None, description="What people call it; not null.")


class KeysBody(Body):
    """Keys to assign or to take back."""

    key_hashes: Annotated[list[str], Field(min_length=1, max_length=100, description="Hashes of keys.")]


class MembersBody(Body):
    """Members to assign or to take back."""

    member_user_ids: Annotated[list[str], Field(min_length=1, max_length=100, description="User ids of members.")]


class GuardrailData(BaseModel):
    """A guardrail."""

    id: str
    workspace_id: str
    name: str
    description: str | None
    created_at: str
    updated_at: str | None
    allowed_models: list[str] | None
    ignored_models: list[str] | None
    allowed_providers: list[str] | None
    ignored_providers: list[str] | None
    enforce_zdr: bool
    enforce_zdr_anthropic: bool
    enforce_zdr_google: bool
    enforce_zdr_openai: bool
    enforce_zdr_xai: bool
    enforce_zdr_other: bool
    enable_paid_model_training: bool | None
    enable_free_model_training: bool | None
    enable_free_model_publication: bool | None
    limit_usd: float | None
    reset_interval: str | None
    include_byok_in_budgets: bool


class GuardrailAnswer(BaseModel):
    """One guardrail."""

    data: GuardrailData


class GuardrailsAnswer(BaseModel):
    """A page of guardrails."""

    data: list[GuardrailData]
    total_count: int


class KeyAssignmentData(BaseModel):
    """That a guardrail is for a key."""

    id: str
    guardrail_id: str
    key_hash: str
    key_name: str
    key_label: str
    assigned_by: str | None
    created_at: str


class KeyAssignmentsAnswer(BaseModel):
    """A page of assignments."""

    data: list[KeyAssignmentData]
    total_count: int


class MemberAssignmentData(BaseModel):
    """That a guardrail is for a member."""

    id: str
    guardrail_id: str
    user_id: str
    organization_id: str
    assigned_by: str | None
    created_at: str


class MemberAssignmentsAnswer(BaseModel):
    """A page of assignments."""

    data: list[MemberAssignmentData]
    total_count: int


class AssignedAnswer(BaseModel):
    """How many were assigned that were not before."""

    assigned_count: int


class UnassignedAnswer(BaseModel):
    """How many were taken back."""

    unassigned_count: int


def guardrail_data(found: Guardrail) -> dict[str, Any]:
    """Return a guardrail as it is shown; see ``GuardrailData``."""
    terms = found.terms
    denies = False if terms.deny_collection else None
    return {
        "id": found.guardrail_id,
        "workspace_id": found.team,
        "name": found.name,
        "description": found.description or None,
        "created_at": iso(found.created_at),
        "updated_at": iso(found.updated_at),
        **{field: getattr(terms, field) for field in _NAMES},
        "enforce_zdr": len(terms.zdr) == len(GROUPS),
        **{field: group in terms.zdr for field, group in _ZDR.items()},
        **dict.fromkeys(_COLLECTION, denies),
        "limit_usd": None if found.limit_nano is None else usd(found.limit_nano),
        "reset_interval": None if found.window is None else found.window.value,
        "include_byok_in_budgets": False,
        "content_filters": None,
        "content_filter_builtins": None,
        "allowed_data_regions": None,
        "allow_safety_retention_google": None,
        "allow_safety_retention_other": None,
    }


def key_assignment_data(found: Assignment) -> dict[str, Any]:
    """Return an assignment as it is shown; see ``KeyAssignmentData``."""
    return {
        "id": f"{found.guardrail_id}/{key_hash(found.subject)[:16]}",
        "guardrail_id": found.guardrail_id,
        "key_hash": key_hash(found.subject),
        "key_name": found.key_name,
        "key_label": label(found.subject),
        "assigned_by": None,
        "created_at": iso(found.created_at),
    }


def member_assignment_data(found: Assignment) -> dict[str, Any]:
    """Return an assignment as it is shown; see ``MemberAssignmentData``."""
    return {
        "id": f"{found.guardrail_id}/{found.subject}",
        "guardrail_id": found.guardrail_id,
        "user_id": found.subject,
        "organization_id": ORGANIZATION,
        "assigned_by": None,
        "created_at": iso(found.created_at),
    }
