"""The shape of the configuration file, one model per section.

Strict: an unknown key, a value of the wrong type, an empty text is refused. Only what one value shows by
itself is judged here; what several say together is judged in ``gateway.config.check``. Every field has a
description, and a required one an example, because the messages are made from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal, get_args

from msgspec.structs import replace as replace_rates
from pydantic import Field

from gateway.config.billing import BillingSection
from gateway.config.budget import BudgetSection
from gateway.config.byok import ByokSection
from gateway.config.console import ConsoleSection
from gateway.config.cors import CorsSection
from gateway.config.external import EXTERNAL_APIS, ProfileName, inferred
from gateway.config.field import (
    AllowedNetwork,
    Amount,
    Count,
    Line,
    ModelId,
    Name,
    Rate,
    Seconds,
    Secret,
    Section,
    TeamSlug,
    Url,
    Weight,
)
from gateway.config.litellm import LitellmSection
from gateway.config.responses import ResponsesSection
from gateway.config.retention import ContentSection, RepetitionSection, RetentionSection
from gateway.config.snapshot import (
    BANDS,
    EXTERNAL,
    MILESTONES,
    PACE,
    AdmissionSpec,
    BackendLimits,
    BandSpec,
    BoardsSpec,
    Capabilities,
    Capacity,
    DataCollection,
    DecisionsSpec,
    Kind,
    OnDisconnect,
    Pace,
    TeamVisibility,
    Timeouts,
    Visibility,
)
from gateway.types.dialect import Dialect
from gateway.types.money import LongContext, Rates, ServiceTier
from gateway.types.priority import Priority

OperationName = Literal["chat", "completions", "embeddings", "rerank"]
OPERATIONS: Final[tuple[OperationName, ...]] = get_args(OperationName)
NativeDialect = Literal[Dialect.MESSAGES, Dialect.RESPONSES]


class RatesSection(Section):
    """Money per token, in USD per million tokens as decimal text, and per request."""

    prompt: Rate = Field(description="Prompt tokens, USD per million.", examples=['"0.10"'])
    completion: Rate = Field(
        description='Completion tokens, USD per million; "0" for a model that makes none.',
        examples=['"0.30"'],
    )
    cache_read: Rate | None = Field(None, description="Prompt tokens read from a cache; else as prompt.")
    cache_write: Rate | None = Field(None, description="Prompt tokens written to a cache; else as prompt.")
    reasoning: Rate | None = Field(None, description="Reasoning tokens; else as completion.")
    audio_prompt: Rate | None = Field(None, description="Audio tokens of the prompt; else as prompt.")
    audio_completion: Rate | None = Field(None, description="Audio tokens made; else as completion.")
    image_prompt: Rate | None = Field(None, description="Image tokens of the prompt; else as prompt.")
    image_completion: Rate | None = Field(None, description="Image tokens made; else as completion.")
    request: Amount = Field(0, description="USD for each request, beside its tokens.")

    def plain(self) -> Rates:
        """Return the section's own rates as integers, without tiers."""
        return Rates(**{name: getattr(self, name) for name in RatesSection.model_fields})


class TierSection(RatesSection):
    """Rates of requests with a long input; they replace every rate for the whole request."""

    above: Count = Field(
        description="Input tokens, of all classes together, above which these rates hold.", examples=["200000"]
    )


class ServiceTierSection(RatesSection):
    """Rates of a service tier; they replace every rate of requests that ask for it in `service_tier`."""

    tiers: tuple[TierSection, ...] | None = Field(
        None,
        max_length=16,
        description="Its rates for long inputs; needed, be it as [], where the price itself has tiers.",
    )

    def tiered(self) -> Rates:
        """Return the section as integer rates with its tiers."""
        return replace_rates(self.plain(), tiers=_long_contexts(self.tiers or ()))


class ServiceTiersSection(Section):
    """Service tiers that have rates of their own; requests for another one are served and charged as the default."""

    flex: ServiceTierSection | None = Field(None, description="Slower and cheaper.")
    priority: ServiceTierSection | None = Field(None, description="Faster and dearer.")
    batch: ServiceTierSection | None = Field(None, description="When there is time.")


class PriceSection(RatesSection):
    """Money per token and per request, with tiers; a tier names every class that the price itself names."""

    tiers: tuple[TierSection, ...] = Field(
        (),
        max_length=16,
        description="Rates for long inputs, by rising `above`; keys as of the price itself, and `above`.",
    )
    service_tiers: ServiceTiersSection = Field(
        ServiceTiersSection(),
        description="Rates of service tiers, by the request's `service_tier`; keys as of the price itself.",
    )

    def rates(self) -> Rates:
        """Return the section as integer rates."""
        named = {name: section for name, section in dict(self.service_tiers).items() if section is not None}
        return replace_rates(
            self.plain(),
            tiers=_long_contexts(self.tiers),
            service_tiers=tuple(ServiceTier(name, section.tiered()) for name, section in named.items()),
        )

    @property
    def variants(self) -> list[tuple[tuple[str | int, ...], RatesSection]]:
        """Every tier with the keys that lead to it from here, in the order of the file."""
        found: list[tuple[tuple[str | int, ...], RatesSection]] = [
            (("tiers", index), tier) for index, tier in enumerate(self.tiers)
        ]
        for name, section in dict(self.service_tiers).items():
            if section is not None:
                found.append((("service_tiers", name), section))
                tiers = enumerate(section.tiers or ())
                found += [(("service_tiers", name, "tiers", index), tier) for index, tier in tiers]
        return found


def _long_contexts(tiers: Sequence[TierSection]) -> tuple[LongContext, ...]:
    return tuple(LongContext(tier.above, tier.plain()) for tier in tiers)


class CapacitySection(Section):
    """What one replica can hold at once."""

    max_running: Count | None = Field(None, description="Requests generated side by side.")
    kv_tokens: Count | None = Field(None, description="Tokens that fit the KV cache.")
    prefill_tokens_per_s: Annotated[float, Field(gt=0, le=1e12)] | None = Field(
        None, description="Prompt tokens read per second."
    )

    def values(self) -> Capacity:
        """Return the section as a plain value."""
        return Capacity(**dict(self))


class LimitsSection(Section):
    """What may be sent to a backend."""

    rpm: Count | None = Field(None, description="Requests in any 60 seconds.")
    tpm: Count | None = Field(None, description="Tokens in any 60 seconds.")
    concurrent: Count | None = Field(None, description="Requests in flight.")

    def values(self) -> BackendLimits:
        """Return the section as a plain value."""
        return BackendLimits(**dict(self))


class ApiKeySection(Section):
    """One of several keys of a backend."""

    key: Secret = Field(
        description='The key: "${NAME}" of the environment, or {file: path}.', examples=['"${FIRST_KEY}"']
    )
    name: Name | None = Field(None, description="What metrics and messages call it. Default: its place, from 1.")
    weight: Weight = Field(1, description="Its share of requests beside the others.")
    limits: LimitsSection = Field(
        LimitsSection(), description="What may be asked with it. Each worker of a host keeps an even part."
    )


class TimeoutsSection(Section):
    """Limits of one attempt, in seconds."""

    connect: Seconds = Field(5.0, description="Seconds to connect.")
    first_byte: Seconds = Field(600.0, description="Seconds to the first byte of the answer.")
    idle: Seconds = Field(120.0, description="Seconds between two reads of an answer.")

    def values(self) -> Timeouts:
        """Return the section as a plain value."""
        return Timeouts(**dict(self))


class BackendSection(Section):
    """One server that answers requests."""

    name: Name = Field(description="Unique name of this replica.", examples=["gpu-a"])
    kind: Kind = Field(description="The engine it runs.", examples=["vllm"])
    url: Url = Field(
        description="Where it is: the server's root; for kinds openai and anthropic with or without /v1 at its end.",
        examples=["http://10.0.0.11:8000"],
    )
    provider: Name | None = Field(None, description="Who runs it; groups replicas. Default: its name.")
    region: Name | None = Field(None, description="Where it stands, such as eu.")
    api_key: Secret | None = Field(
        None, description='Key it wants, presented as its kind does: "${NAME}" of the environment, or {file: path}.'
    )
    api_keys: tuple[ApiKeySection, ...] = Field(
        (),
        max_length=64,
        description="Several keys in place of api_key; requests take them in turn, by weight, and one that is refused "
        "rests for a while.",
    )
    usd_per_hour: Amount | None = Field(None, description="USD it costs per hour, as decimal text.")
    gpu: Line | None = Field(None, description="Its hardware, such as 2xH100.")
    capacity: CapacitySection = Field(CapacitySection(), description="What it can hold at once.")
    limits: LimitsSection = Field(
        LimitsSection(),
        description="What may be sent to it. Each worker of a host keeps an even part; hosts do not share.",
    )
    on_disconnect: OnDisconnect | None = Field(
        None,
        description="What becomes of a request whose caller left: cancel; count (cancel, and whole answers are "
        "streamed from the backend, so that what was made of one is counted and charged); or drain (read on, for an "
        "API that bills on; 64 at once in a worker, 120 s each). Default: cancel, drain for profiles that bill on.",
    )
    profile: ProfileName | None = Field(
        None,
        description="Which external API it is, for kind openai: " + ", ".join(EXTERNAL_APIS) + ", or none of them; "
        "see docs/upstreams.md. Default: by the host of its URL.",
    )
    litellm: LitellmSection | None = Field(None, description="What only backends of kind litellm have.")
    timeouts: TimeoutsSection = Field(TimeoutsSection(), description="Time limits of one attempt.")
    data_collection: DataCollection | None = Field(
        None,
        description="Whether it may store prompts or train on them: allow or deny. "
        "Default: deny, for kinds openai and anthropic allow.",
    )
    zdr: bool | None = Field(
        None,
        description="Whether it keeps nothing of a request (zero data retention). "
        "Default: true, false for kinds openai and anthropic and with data_collection: allow.",
    )
    tags: tuple[Name, ...] = Field((), description="Free words for policies.")
    dialects: tuple[NativeDialect, ...] = Field(
        (),
        description="What it understands besides the dialect of its kind: messages (`/v1/messages`), responses "
        "(`/v1/responses`). Requests that speak one of them go there as they are.",
    )

    @property
    def group(self) -> str:
        """The provider it belongs to."""
        return self.provider or self.name

    @property
    def api(self) -> str:
        """The profile in force, ``""`` for none."""
        if self.kind != "openai":
            return ""
        return inferred(self.url) if self.profile is None else self.profile.replace("none", "")

    @property
    def when_left(self) -> OnDisconnect:
        """What becomes of a request whose caller left."""
        if self.on_disconnect is not None:
            return self.on_disconnect
        api = EXTERNAL_APIS.get(self.api)
        return "drain" if api is not None and api.bills_on else "cancel"

    @property
    def collects(self) -> bool:
        """Whether it may store prompts or train on them; an external API of which nothing is said may."""
        if self.data_collection is None:
            return self.kind in EXTERNAL and not self.zdr
        return self.data_collection == "allow"

    @property
    def retains_nothing(self) -> bool:
        """Whether it has zero data retention."""
        return (self.kind not in EXTERNAL and not self.collects) if self.zdr is None else self.zdr


class CapabilitiesSection(Section):
    """What can be asked for; a key that is left out takes the default."""

    tools: bool | None = Field(None, description="Tool calls. Default: true, false with embeddings.")
    vision: bool | None = Field(None, description="Images in the prompt. Default: false.")
    audio: bool | None = Field(None, description="Audio in the prompt. Default: false.")
    json_schema: bool | None = Field(
        None, description="Answers bound to a JSON schema. Default: true, false with embeddings."
    )
    logprobs: bool | None = Field(None, description="Log probabilities. Default: true, false with embeddings.")
    embeddings: bool | None = Field(None, description="It is an embedding model. Default: false.")

    def over(self, base: Capabilities) -> Capabilities:
        """Return ``base`` with what this section says in its place."""
        said = {name: value for name, value in dict(self).items() if value is not None}
        return replace(base, **said)

    def base(self) -> Capabilities:
        """Return a model's capabilities: the defaults with what this section says in their place."""
        return self.upon(("embeddings",) if self.embeddings else ("chat", "completions"))

    def upon(self, operations: Sequence[OperationName]) -> Capabilities:
        """Return the capabilities of a model that has these ``operations``."""
        makes = "chat" in operations or "completions" in operations
        offered = {name: name in operations for name in OPERATIONS}
        return replace(self.over(Capabilities(tools=makes, json_schema=makes, logprobs=makes)), **offered)


class EndpointSection(Section):
    """One backend that serves the model."""

    backend: str = Field(description="Name of the backend.", examples=["gpu-a"])
    model: Line | None = Field(None, description="The model's name on that backend. Default: its id here.")
    quantization: Name | None = Field(None, description="Weights as served, such as fp8.")
    cost: PriceSection | None = Field(None, description="What the owner pays; never shown to callers.")
    price: PriceSection | None = Field(
        None, description="What teams are charged here, instead of the whole price of the model."
    )
    context_length: Count | None = Field(None, description="Tokens of prompt and answer. Default: the model's.")
    max_output: Count | None = Field(None, description="Longest answer in tokens. Default: the model's.")
    capabilities: CapabilitiesSection = Field(
        CapabilitiesSection(), description="What differs from the model's capabilities here."
    )
    supported_parameters: tuple[Name, ...] | None = Field(
        None, description="Request parameters it supports, by their names in the catalogue. Default: its engine's."
    )
    tool_quality: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="How well it calls tools, 0 to 1, such as a benchmark's score; requests with tools prefer more.",
    )


class ModelLimitsSection(Section):
    """How long a model may keep its callers waiting, in seconds."""

    ttft: Seconds | None = Field(
        None, description="Seconds to the first token of an attempt. Default: the backend's timeouts.first_byte."
    )
    inter_token: Seconds | None = Field(
        None, description="Seconds between two chunks of an answer. Default: the backend's timeouts.idle."
    )


class ModelSection(Section):
    """A model that callers can name."""

    id: ModelId = Field(description="What callers write as the model.", examples=["qwen/qwen3-32b"])
    name: Line | None = Field(None, description="What people read. Default: the id.")
    description: str = Field("", max_length=4000, description="A paragraph for the catalogue.")
    created: Annotated[int, Field(ge=0, le=10**11)] = Field(
        0, description="When the model came out, in seconds since 1970."
    )
    context_length: Count = Field(description="Tokens of prompt and answer together.", examples=["40960"])
    max_output: Count | None = Field(None, description="Longest answer in tokens. Default: the context.")
    price: PriceSection | None = Field(
        None, description="What teams are charged; needed unless every endpoint has its own."
    )
    endpoints: tuple[EndpointSection, ...] = Field(
        min_length=1, description="The backends that serve it.", examples=["[{backend: gpu-a}]"]
    )
    capabilities: CapabilitiesSection = Field(CapabilitiesSection(), description="What it can be asked for.")
    operations: tuple[OperationName, ...] | None = Field(
        None,
        min_length=1,
        description="What it does: chat, completions, embeddings, rerank; asked for anything else it is not found. "
        "Default: chat and completions, with capabilities.embeddings embeddings alone.",
    )
    limits: ModelLimitsSection = Field(
        ModelLimitsSection(), description="How long it may keep its callers waiting, where backends may keep longer."
    )
    hedge_after: Seconds | None = Field(
        None,
        description="Seconds without a first token after which a second own backend is asked as well; the first to "
        "begin answers. Default: never.",
    )

    @property
    def can(self) -> Capabilities:
        """What it can be asked for, its operations included."""
        return self.capabilities.base() if self.operations is None else self.capabilities.upon(self.operations)

    @property
    def pace(self) -> Pace:
        """Its limits as a plain value."""
        return Pace(self.limits.ttft, self.limits.inter_token, self.hedge_after)


class DecisionsSection(Section):
    """Which routing decisions are kept."""

    share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01,
        description="Share of all decisions that is kept for `weir route replay`; those of requests that failed over "
        "are kept besides. 0 keeps none.",
    )
    per_second: Annotated[float, Field(ge=1, le=1_000)] = Field(
        2.0, description="How many each worker keeps per second at most; each takes about a millisecond of its time."
    )
    days: Annotated[float, Field(gt=0, le=3_650)] = Field(7.0, description="Days that they are kept.")
    most: Annotated[int, Field(ge=1, le=100_000_000)] = Field(100_000, description="How many are kept at most.")

    def values(self) -> DecisionsSpec:
        """Return the section as a plain value."""
        return DecisionsSpec(**dict(self))


class RoutingSection(Section):
    """The defaults of routing."""

    default: str = Field("balanced", description="The preset used unless a request names another.")
    decisions: DecisionsSection = Field(DecisionsSection(), description="Which routing decisions are kept.")


class BandSection(Section):
    """One priority band; a key that is left out takes the band's default."""

    ceiling: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Share of a model's replicas that the band may fill. Default: 1.0, 0.9, 0.7 "
        "(interactive, standard, batch).",
    )
    deadline: Seconds | None = Field(
        None, description="Seconds a request waits at most, then 429. Default: 10, 60, 60."
    )
    goal: Seconds | None = Field(
        None,
        description="Seconds to the first token that are good enough (1 s more per 8,000 prompt tokens); who waited "
        "longer than half of it yields to those who can still meet it. Default: 2, 2, none.",
    )
    shed: bool | None = Field(
        None,
        description="Whether new requests are refused at random while the replicas are fuller than the ceiling. "
        "Default: false, false, true.",
    )

    def over(self, base: BandSpec) -> BandSpec:
        """Return ``base`` with what this section says in its place."""
        return replace(base, **{name: value for name, value in dict(self).items() if value is not None})


class BandsSection(Section):
    """The priority bands."""

    interactive: BandSection = Field(BandSection(), description="Somebody is watching.")
    standard: BandSection = Field(BandSection(), description="What a request is unless it says otherwise.")
    batch: BandSection = Field(BandSection(), description="Nobody waits.")


class QueueSection(Section):
    """How much may wait, per model and process."""

    requests: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        2_000, description="Requests that may wait; with 0 none waits."
    )
    bytes: Annotated[int, Field(ge=0, le=10**12)] = Field(
        268_435_456, description="Bytes of request bodies that may wait."
    )


class AdmissionSection(Section):
    """How requests wait for a turn when the replicas of their model are full."""

    enabled: bool = Field(True, description="Whether they wait here; if not, they go on and wait in the engines.")
    queue: QueueSection = Field(QueueSection(), description="How much may wait, per model and process.")
    pace: Seconds = Field(
        PACE,
        description="Seconds between two tokens of an answer beyond which a replica counts as full; for one that is "
        "slow by itself, twice what a single answer takes.",
    )
    half_life: Seconds = Field(
        60.0, description="Seconds in which what a team was served loses half of its weight in fair sharing."
    )
    bands: BandsSection = Field(BandsSection(), description="The priority bands.")
    weights: dict[TeamSlug, Annotated[float, Field(ge=0.001, le=1000)]] = Field(
        default_factory=dict, description="Shares of teams by slug; 1 for those not named."
    )

    def values(self) -> AdmissionSpec:
        """Return the section as a plain value."""
        return AdmissionSpec(
            enabled=self.enabled,
            queue_requests=self.queue.requests,
            queue_bytes=self.queue.bytes,
            pace=self.pace,
            half_life=self.half_life,
            bands={band: getattr(self.bands, band.value).over(BANDS[band]) for band in Priority},
            weights=self.weights,
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
