"""The shape of the configuration file, one model per section.

Strict: an unknown key, a value of the wrong type, an empty text is refused. Only what one value shows by
itself is judged here; what several say together is judged in ``gateway.config.check``. Every field has a
description, and a required one an example, because the messages are made from them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.config.backends import BackendSection
from gateway.config.billing import BillingSection
from gateway.config.budget import BudgetSection
from gateway.config.byok import ByokSection
from gateway.config.console import ConsoleSection
from gateway.config.cors import CorsSection
from gateway.config.field import (
    AllowedNetwork,
    Count,
    Line,
    ModelId,
    Section,
    TeamSlug,
    Weight,
)
from gateway.config.models import ModelSection
from gateway.config.responses import ResponsesSection
from gateway.config.retention import ContentSection, RepetitionSection, RetentionSection
from gateway.config.routing import AdmissionSection, RoutingSection
from gateway.config.snapshot import (
    MILESTONES,
    BoardsSpec,
    TeamVisibility,
    Visibility,
)


class EgressSection(Section):
    """Where backends may be."""

    allow: tuple[AllowedNetwork, ...] = Field(
        (), description="Private or special networks that backends may live in, such as 10.0.0.0/8."
    )


class TeamSection(Section):
    """A team that exists from the start."""

    slug: TeamSlug = Field(description="Unique short name.", examples=["search"])
    name: Line = Field(description="What people read.", examples=["Search team"])


class BoardsSection(Section):
    """Leaderboards: who sees them, and the apps that callers say they are."""

    model: Visibility = Field("public", description="Models: who sees the board; see docs/leaderboards.md.")
    author: Visibility = Field("public", description="Authors of models: who sees the board.")
    app: Visibility = Field("public", description="Apps: who sees the board; only approved apps are named in public.")
    endpoint: Visibility = Field("private", description="Endpoints of models: who sees the board.")
    team: TeamVisibility = Field(
        "private", description="Teams: private, or team (each sees its own row). Nobody is shown another team."
    )
    keyless: bool = Field(False, description="Whether public boards are shown without a key.")
    milestones: tuple[Annotated[int, Field(ge=1, le=10**18)], ...] = Field(
        MILESTONES, description="Tokens of one model in one UTC day that are a milestone."
    )
    new_apps_per_day: Annotated[int, Field(ge=0, le=10_000)] = Field(
        20, description="Apps that nobody approved that a key may name in a UTC day; others are counted as other."
    )
    per_minute: Count = Field(30, description="How often a key may ask for boards in any minute.")
    per_day: Count = Field(500, description="How often the keys of a team may ask for boards in a UTC day.")

    def values(self) -> BoardsSpec:
        """Return the section as a plain value."""
        said = {**dict(self), "milestones": tuple(sorted(set(self.milestones)))}
        return BoardsSpec(**said)


class FileSection(Section):
    """The whole file."""

    backends: tuple[BackendSection, ...] = Field(
        min_length=1,
        description="The servers that answer requests.",
        examples=["[{name: gpu-a, kind: vllm, url: http://10.0.0.11:8000}]"],
    )
    models: tuple[ModelSection, ...] = Field(
        (),
        description="The models callers can name. What backends serve besides is shown by `weir models discovered`.",
    )
    aliases: dict[ModelId, Annotated[dict[str, Weight], Field(min_length=1)]] = Field(
        default_factory=dict, description="Other names for models: each a mapping of model ids to weights."
    )
    routing: RoutingSection = Field(RoutingSection(), description="The defaults of routing.")
    admission: AdmissionSection = Field(
        AdmissionSection(), description="How requests wait for a turn when the replicas of their model are full."
    )
    egress: EgressSection = Field(EgressSection(), description="Where backends may be.")
    teams: tuple[TeamSection, ...] = Field((), description="Teams that exist from the start.")
    budgets: tuple[BudgetSection, ...] = Field(
        (), description="What teams, keys and models may spend; those changed through the API stay as changed."
    )
    boards: BoardsSection = Field(
        BoardsSection(), description="Leaderboards: who sees them, and the apps that callers say they are."
    )
    byok: ByokSection = Field(ByokSection(), description="Requests that go with a team's own key for a provider.")
    retention: RetentionSection = Field(RetentionSection(), description="How many days books are kept.")
    repetition: RepetitionSection = Field(
        RepetitionSection(), description="Answers that are given again; see docs/repetition.md."
    )
    content: ContentSection = Field(
        ContentSection(), description="Storing what was asked and answered; see docs/repetition.md."
    )
    responses: ResponsesSection = Field(
        ResponsesSection(), description="Answers of the Responses API that are kept; see docs/dialects.md."
    )
    billing: BillingSection = Field(
        BillingSection(), description="Statements, closed periods and where their exports go; see docs/billing.md."
    )
    cors: CorsSection = Field(
        CorsSection(), description="Web pages that may call from a browser; see docs/setup/browser.md."
    )
    console: ConsoleSection = Field(
        ConsoleSection(), description="The pages for people who sign in; see docs/console.md."
    )
