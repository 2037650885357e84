"""One accepted configuration: immutable values that the rest of the gateway reads.

A snapshot is built only from a file that was checked whole, so a reader needs no check of its own. Snapshots
with equal content are equal; ``version``, ``digest`` and ``sources`` do not take part in the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, get_args

from gateway.config.cors import NO_ORIGINS, CorsSpec
from gateway.config.egress import Egress
from gateway.config.people import NO_CONSOLE_SAID
from gateway.config.people import ConsoleSpec as ConsoleSpec
from gateway.config.people import OidcSpec as OidcSpec
from gateway.config.secret import Secret as Secret
from gateway.config.source import SourceFile
from gateway.types.dialect import Dialect
from gateway.types.money import Rates
from gateway.types.priority import Priority

Kind = Literal["vllm", "tgi", "sglang", "llamacpp", "openai", "anthropic", "litellm"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
EXTERNAL: Final = frozenset({"openai", "anthropic", "litellm"})
"""Kinds that somebody else runs and bills (``gateway.engines.kind.Engine.external``)."""
OnDisconnect = Literal["cancel", "count", "drain"]
DataCollection = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica can hold at once, as far as the owner says; None when unknown.

    Attributes:
        max_running: requests generated side by side.
        kv_tokens: tokens that fit the KV cache.
        prefill_tokens_per_s: prompt tokens read per second.
    """

    max_running: int | None = None
    kv_tokens: int | None = None
    prefill_tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class BackendLimits:
    """What may be sent to a backend; None means no limit.

    Attributes:
        rpm: requests in any 60 seconds.
        tpm: tokens in any 60 seconds.
        concurrent: requests in flight.
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class KeySpec:
    """One of several keys of a backend.

    Attributes:
        name: what people and metrics call it.
        secret: the key.
        weight: its share of requests.
        limits: what may be asked with it.
    """

    name: str
    secret: Secret
    weight: int = 1
    limits: BackendLimits = BackendLimits()


@dataclass(frozen=True, slots=True)
class LitellmSpec:
    """What only backends of kind litellm have; see ``gateway.config.litellm``.

    Attributes:
        provider: the library's name of the provider.
        own_url: whether requests go to the backend's URL.
        credentials: beside the key, by the library's names.
        settings: what else it has to know, by the library's names.
    """

    provider: str
    own_url: bool = True
    credentials: Mapping[str, Secret] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one attempt, in seconds: to connect, to the first byte of the answer, between two reads."""

    connect: float = 5.0
    first_byte: float = 600.0
    idle: float = 120.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a model may keep its callers waiting, in seconds; None leaves it to the timeouts of the backend.

    Attributes:
        ttft: to the first token of an attempt, after which another replica is asked.
        inter_token: between two chunks of an answer, after which it counts as stalled.
        hedge_after: to the first token, after which a second replica is asked beside the first; None never does.
    """

    ttft: float | None = None
    inter_token: float | None = None
    hedge_after: float | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can be asked for. Endpoints may say otherwise than their model.

    ``chat``, ``completions``, ``embeddings`` and ``rerank`` are the operations it has.
    """

    tools: bool = True
    vision: bool = False
    audio: bool = False
    json_schema: bool = True
    logprobs: bool = True
    embeddings: bool = False
    chat: bool = True
    completions: bool = True
    rerank: bool = False


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """One replica: where it is and what it is.

    Attributes:
        name: unique name.
        kind: the engine, one of ``KINDS``.
        url: root URL without a slash at its end.
        provider: groups replicas; the name when the file gives none.
        region: where it stands, or None.
        api_key: bearer key it wants, or None.
        usd_per_hour: nano-USD the owner pays per hour, or None when it is not rented by time.
        gpu: description such as ``2xH100``, or None.
        on_disconnect: a request whose caller left is stopped (``cancel``) or read to its end (``drain``); ``count``
            stops it and streams whole answers too, so that what was made of one is known.
        tags: free words for policies.
        collects: whether it may store prompts or train on them.
        zdr: whether it keeps nothing of a request.
        dialects: what it understands besides the dialect of its kind; callers who speak one of them are passed on.
        profile: the external API it is (``gateway.engines.profiles``), or ``""``.
        litellm: what only a backend of that kind has.
        api_keys: several keys between which requests are shared out; ``api_key`` is then the first of them.
    """

    name: str
    kind: Kind
    url: str
    provider: str
    region: str | None = None
    api_key: Secret | None = None
    usd_per_hour: int | None = None
    gpu: str | None = None
    capacity: Capacity = Capacity()
    limits: BackendLimits = BackendLimits()
    on_disconnect: OnDisconnect = "cancel"
    timeouts: Timeouts = Timeouts()
    tags: tuple[str, ...] = ()
    collects: bool = False
    zdr: bool = True
    dialects: frozenset[Dialect] = frozenset()
    profile: str = ""
    api_keys: tuple[KeySpec, ...] = ()
    litellm: LitellmSpec | None = None


class EndpointGroup(NamedTuple):
    """What an endpoint is; the specs that share it are its replicas."""

    model_id: str
    provider: str
    quantization: str | None
    region: str | None

    @property
    def slug(self) -> str:
        """Provider, quantization and region, as far as they are known; unique within the model."""
        quantization = f"/{self.quantization}" if self.quantization else ""
        region = f"@{self.region}" if self.region else ""
        return f"{self.provider}{quantization}{region}"


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One model on one backend, with everything resolved.

    Attributes:
        model_id: our id of the model.
        backend: name of the backend.
        upstream_model: the model's name on that backend.
        provider, region: those of the backend.
        quantization: such as ``fp8``, or None.
        price: what teams are charged; the endpoint's own, else the model's.
        cost: what the owner pays per token, or None when the backend is not billed by token.
        context_length: tokens of prompt and answer together.
        max_output: longest answer in tokens, or None when only the context bounds it.
        supported_parameters: request parameters it supports by their names in the catalogue, or None for its engine's.
        tool_quality: how well it calls tools, 0 to 1, or None when nobody said.
        own_price: whether ``price`` is the endpoint's own.
        team_prices: what teams with terms of their own are charged, by team.
    """

    model_id: str
    backend: str
    upstream_model: str
    provider: str
    region: str | None
    quantization: str | None
    price: Rates
    cost: Rates | None
    context_length: int
    max_output: int | None
    capabilities: Capabilities
    supported_parameters: tuple[str, ...] | None = None
    tool_quality: float | None = None
    own_price: bool = False
    team_prices: Mapping[str, Rates] = field(default_factory=dict)

    @property
    def group(self) -> EndpointGroup:
        """The endpoint that this is a replica of."""
        return EndpointGroup(self.model_id, self.provider, self.quantization, self.region)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that callers can name.

    Attributes:
        id: what callers write.
        name: what people read.
        description: one paragraph, or ``""``.
        created: seconds since 1970, 0 when unknown.
        context_length: tokens of prompt and answer together.
        max_output: longest answer in tokens, or None.
        price: the model's own; without one, that of its cheapest endpoint (prompt and completion together).
        endpoints: at least one, in the order of the file.
        pace: how long it may keep its callers waiting.
        own_price: whether ``price`` is the model's own.
    """

    id: str
    name: str
    description: str
    created: int
    context_length: int
    max_output: int | None
    capabilities: Capabilities
    price: Rates
    endpoints: tuple[EndpointSpec, ...]
    pace: Pace = Pace()
    own_price: bool = True


@dataclass(frozen=True, slots=True)
class RepetitionSpec:
    """Answers that are given again.

    Attributes:
        lifetime_s: seconds that the answer to an idempotency key is kept.
        largest: bytes of the largest answer that is kept.
        most_bytes: bytes of such answers that are kept for an inference key.
        cache: whether callers may use the response cache.
        cache_bytes: bytes of cached answers for an inference key.
    """

    lifetime_s: float = 86_400.0
    largest: int = 8 * 2**20
    most_bytes: int = 256 * 2**20
    cache: bool = True
    cache_bytes: int = 64 * 2**20


@dataclass(frozen=True, slots=True)
class ContentSpec:
    """Storing what was asked and answered.

    Attributes:
        store: whether that of teams is stored of which nothing else was said.
        days: that it is kept.
        largest: bytes of the largest prompt and answer together.
    """

    store: bool = False
    days: int = 30
    largest: int = 8 * 2**20


@dataclass(frozen=True, slots=True)
class ResponsesSpec:
    """Answers of the Responses API that are kept.

    Attributes:
        store: whether they are kept at all.
        lifetime_s: seconds that they are kept.
        most_bytes: bytes of them that are kept for an inference key.
    """

    store: bool = True
    lifetime_s: float = 30 * 86_400.0
    most_bytes: int = 1024 * 2**20


@dataclass(frozen=True, slots=True)
class RetentionSpec:
    """How many days books are kept.

    Attributes:
        ledger_days: of the ledger.
        hour_days: of the hourly rollup; the daily one stays for ever.
        quarantine_days: that a segment stays in quarantine; None for ever.
    """

    ledger_days: int = 400
    hour_days: int = 400
    quarantine_days: int | None = None


@dataclass(frozen=True, slots=True)
class DecisionsSpec:
    """Which routing decisions are kept, to be looked at and made again.

    Attributes:
        share: of all decisions, 0 to 1; those of requests that failed over are kept besides, unless it is 0.
        per_second: how many a process keeps per second at most.
        days: that they are kept.
        most: how many are kept.
    """

    share: float = 0.01
    per_second: float = 2.0
    days: float = 7.0
    most: int = 100_000


@dataclass(frozen=True, slots=True)
class RoutingSpec:
    """How requests are routed unless they ask for something else.

    Attributes:
        default: name of a preset.
        decisions: which decisions are kept.
    """

    default: str
    decisions: DecisionsSpec = DecisionsSpec()


@dataclass(frozen=True, slots=True)
class BandSpec:
    """The rules of one priority band.

    Attributes:
        ceiling: share of a pool that the band may fill, 0 to 1.
        deadline: seconds a request waits at most.
        goal: seconds to the first token of an empty prompt that requests should meet, or None when they have no hurry.
        shed: whether new requests are refused at random while the pool is fuller than ``ceiling``.
    """

    ceiling: float
    deadline: float
    goal: float | None = None
    shed: bool = False


BANDS: Final[Mapping[Priority, BandSpec]] = MappingProxyType(
    {
        Priority.INTERACTIVE: BandSpec(ceiling=1.0, deadline=10.0, goal=2.0),
        Priority.STANDARD: BandSpec(ceiling=0.9, deadline=60.0, goal=2.0),
        Priority.BATCH: BandSpec(ceiling=0.7, deadline=60.0, shed=True),
    }
)
"""The bands as long as the file does not say otherwise."""
PACE: Final = 0.06
"""Seconds between two tokens: faster than people read."""


@dataclass(frozen=True, slots=True)
class AdmissionSpec:
    """How requests wait for a turn when the replicas of their model are full.

    Attributes:
        enabled: whether they wait here at all.
        queue_requests: requests that may wait per model.
        queue_bytes: bytes of prompts that may wait per model.
        pace: seconds between two tokens beyond which a replica counts as full.
        half_life: seconds in which a team's service loses half of its weight in fair sharing.
        bands: rules by band, all of them.
        weights: shares of teams by slug; 1 for those not named.
    """

    enabled: bool = True
    queue_requests: int = 2_000
    queue_bytes: int = 268_435_456
    pace: float = PACE
    half_life: float = 60.0
    bands: Mapping[Priority, BandSpec] = field(default_factory=lambda: BANDS)
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TeamSpec:
    """A team that exists from the start."""

    slug: str
    name: str


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """A budget that exists from the start; ``""`` in a part of its scope stands for all.

    Attributes:
        limit_nano: nano-USD per window.
        hard: whether requests that do not fit are refused.
        alerts: percentages of the limit at which an alert goes out.
    """

    key: str
    team: str
    model: str
    window: Literal["daily", "weekly", "monthly", "total"]
    limit_nano: int
    hard: bool
    alerts: tuple[int, ...]


Visibility = Literal["public", "team", "private"]
TeamVisibility = Literal["team", "private"]
MILESTONES: Final = tuple(10**power for power in range(9, 14))
"""The lines as long as the file does not say otherwise: a billion to ten trillion tokens a day."""


@dataclass(frozen=True, slots=True)
class BoardsSpec:
    """Leaderboards.

    Attributes:
        model, author, app, endpoint, team: who sees the board: ``public`` all of it by any key, ``team`` each team its
            own part, ``private`` the owner alone.
        keyless: whether public boards are shown without a key.
        milestones: tokens of one model in one UTC day, ascending.
        new_apps_per_day: apps that nobody approved that a key may name in a UTC day.
        per_minute: how often a key may ask in any minute.
        per_day: how often the keys of a team may ask in a UTC day.
    """

    model: Visibility = "public"
    author: Visibility = "public"
    app: Visibility = "public"
    endpoint: Visibility = "private"
    team: TeamVisibility = "private"
    keyless: bool = False
    milestones: tuple[int, ...] = MILESTONES
    new_apps_per_day: int = 20
    per_minute: int = 30
    per_day: int = 500


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """Where exports of closed periods go; see ``gateway.config.billing.SinkSection`` for what each field means."""

    name: str
    kind: Literal["folder", "s3", "webhook", "stripe"]
    exports: tuple[str, ...] = ("focus", "statement")
    format: str = "csv"
    path: str | None = None
    bucket: str | None = None
    region: str = "us-east-1"
    prefix: str = ""
    path_style: bool = False
    url: str | None = None
    access_key: Secret | None = None
    secret_key: Secret | None = None
    secret: Secret | None = None
    api_key: Secret | None = None
    event: str = "weir_usage"
    unit: Literal["micro_usd", "tokens"] = "micro_usd"
    customers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BillingSpec:
    """Statements and closed periods.

    Attributes:
        issuer: who charges.
        close_after_s: seconds after its end when a period is closed by itself, or None for never.
        sinks: where exports of closed periods go.
    """

    issuer: str = "Weir"
    close_after_s: float | None = None
    sinks: tuple[SinkSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class ByokSpec:
    """Requests that go with a team's own key for a provider.

    Attributes:
        fee: basis points of the list price that they are charged.
    """

    fee: int = 0


@dataclass(frozen=True, slots=True)
class ConfigSnapshot:
    """Everything the file says, checked.

    Attributes:
        version: grows by one with every accepted change in this process.
        digest: SHA-256 of the content as hexadecimal digits; values of secrets are left out.
        backends: by name.
        models: by id.
        aliases: alias to ``(model id, weight)`` pairs; weights are positive integers.
        routing: the defaults of routing.
        egress: where backends may be.
        teams: teams that exist from the start.
        sources: the files this was read from.
        admission: how requests wait for a turn.
        billing: statements and closed periods.
        boards: who sees leaderboards, and what counts there.
        budgets: budgets that exist from the start.
        retention: how long books are kept.
        console: who may sign in, and for how long.
        cors: web pages that may call from a browser.
        byok: requests that go with a team's own key.
    """

    version: int = field(compare=False)
    digest: str = field(compare=False)
    backends: Mapping[str, BackendSpec]
    models: Mapping[str, ModelSpec]
    aliases: Mapping[str, tuple[tuple[str, int], ...]]
    routing: RoutingSpec
    egress: Egress
    teams: tuple[TeamSpec, ...]
    sources: tuple[SourceFile, ...] = field(compare=False)
    admission: AdmissionSpec = AdmissionSpec()
    boards: BoardsSpec = BoardsSpec()
    budgets: tuple[BudgetSpec, ...] = ()
    billing: BillingSpec = BillingSpec()
    retention: RetentionSpec = RetentionSpec()
    repetition: RepetitionSpec = RepetitionSpec()
    content: ContentSpec = ContentSpec()
    responses: ResponsesSpec = ResponsesSpec()
    console: ConsoleSpec = NO_CONSOLE_SAID
    cors: CorsSpec = NO_ORIGINS
    byok: ByokSpec = ByokSpec()
