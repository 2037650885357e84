"""The shape of the configuration file, one model per section.

Strict: an unknown key, a value of the wrong type, an empty text is refused. Only what one value shows by
itself is judged here; what several say together is judged in ``gateway.config.check``. Every field has a
description, and a required one an example, because the messages are made from them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator

from gateway.config.egress import Network, backend_url, network
from gateway.config.problem import RefusedError
from gateway.config.snapshot import (
    BANDS,
    PACE,
    AdmissionSpec,
    BackendLimits,
    BandSpec,
    Capabilities,
    Capacity,
    DataCollection,
    Kind,
    OnDisconnect,
    Pace,
    Timeouts,
)
from gateway.types.money import MoneyError, Rates, nano_from_usd, rate_from_usd_per_million
from gateway.types.priority import Priority

_ENVIRONMENT: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Where a secret is kept: in the environment variable ``name`` or in the file ``path``, never both."""

    name: str | None = None
    path: str | None = None


def secret_reference(value: object) -> SecretReference:
    """Return what ``value`` refers to. Raises ``RefusedError`` for anything but a reference."""
    match value:
        case str() if found := _ENVIRONMENT.fullmatch(value):
            return SecretReference(name=found[1])
        case {"file": str(path), **rest} if path and not rest:
            return SecretReference(path=path)
    raise RefusedError(
        "is not a reference; secrets never stand in this file",
        'write "${NAME}" for an environment variable or {file: path} for a file that holds it',
    )


def _money(parse: Callable[[object], int]) -> PlainValidator:
    def validate(value: object) -> int:
        try:
            return parse(value)
        except MoneyError as error:
            raise RefusedError(error.message, error.mend) from None

    return PlainValidator(validate)


def _words(pattern: str, message: str, mend: str) -> AfterValidator:
    allowed = re.compile(pattern)

    def validate(value: str) -> str:
        if not allowed.fullmatch(value):
            raise RefusedError(message, mend)
        return value

    return AfterValidator(validate)


def _line(value: str) -> str:
    if not value.isprintable() or not value.strip() or len(value) > 300:
        raise RefusedError("is empty, longer than 300 characters, or more than one line", "write one line of text")
    return value


Name = Annotated[
    str,
    _words(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "is not a name",
        "use up to 64 letters, digits, dots, hyphens and underscores, a letter or digit first",
    ),
]
TeamSlug = Annotated[
    str,
    _words(
        r"[a-z0-9][a-z0-9-]{0,63}",
        "is not a slug",
        "use up to 64 lower-case letters, digits and hyphens, a letter or digit first",
    ),
]
ModelId = Annotated[
    str,
    _words(
        r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}",
        "is not a model id",
        "use letters, digits and . _ : / @ + -, a letter or digit first, at most 200",
    ),
]
Line = Annotated[str, AfterValidator(_line)]
Url = Annotated[str, AfterValidator(backend_url)]
Rate = Annotated[int, _money(rate_from_usd_per_million)]
Amount = Annotated[int, _money(nano_from_usd)]
Count = Annotated[int, Field(ge=1, le=10**15)]
Weight = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Secret = Annotated[SecretReference, PlainValidator(secret_reference)]
AllowedNetwork = Annotated[Network, PlainValidator(network)]


class Section(BaseModel):
    """What all sections share: unknown keys are refused, values are not converted, nothing can be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class PriceSection(Section):
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

    def rates(self) -> Rates:
        """Return the section as integer rates."""
        return Rates(**dict(self))


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
        description="Where it is: the server's root; for kind openai the part before /chat/completions.",
        examples=["http://10.0.0.11:8000"],
    )
    provider: Name | None = Field(None, description="Who runs it; groups replicas. Default: its name.")
    region: Name | None = Field(None, description="Where it stands, such as eu.")
    api_key: Secret | None = Field(
        None, description='Key it wants as a bearer token: "${NAME}" of the environment, or {file: path}.'
    )
    usd_per_hour: Amount | None = Field(None, description="USD it costs per hour, as decimal text.")
    gpu: Line | None = Field(None, description="Its hardware, such as 2xH100.")
    capacity: CapacitySection = Field(CapacitySection(), description="What it can hold at once.")
    limits: LimitsSection = Field(
        LimitsSection(),
        description="What may be sent to it. Each worker of a host keeps an even part; hosts do not share.",
    )
    on_disconnect: OnDisconnect = Field(
        "cancel",
        description="What becomes of a request whose caller left: cancel, or drain (read on, for an API that bills on; "
        "64 at once in a worker, 120 s each).",
    )
    timeouts: TimeoutsSection = Field(TimeoutsSection(), description="Time limits of one attempt.")
    data_collection: DataCollection | None = Field(
        None,
        description="Whether it may store prompts or train on them: allow or deny. "
        "Default: deny, for kind openai allow.",
    )
    zdr: bool | None = Field(
        None,
        description="Whether it keeps nothing of a request (zero data retention). "
        "Default: true, false for kind openai and with data_collection: allow.",
    )
    tags: tuple[Name, ...] = Field((), description="Free words for policies.")

    @property
    def group(self) -> str:
        """The provider it belongs to."""
        return self.provider or self.name

    @property
    def collects(self) -> bool:
        """Whether it may store prompts or train on them; an external API of which nothing is said may."""
        if self.data_collection is None:
            return self.kind == "openai" and not self.zdr
        return self.data_collection == "allow"

    @property
    def retains_nothing(self) -> bool:
        """Whether it has zero data retention."""
        return (self.kind != "openai" and not self.collects) if self.zdr is None else self.zdr


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
        chat = not self.embeddings
        return self.over(Capabilities(tools=chat, json_schema=chat, logprobs=chat))


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
    limits: ModelLimitsSection = Field(
        ModelLimitsSection(), description="How long it may keep its callers waiting, where backends may keep longer."
    )
    hedge_after: Seconds | None = Field(
        None,
        description="Seconds without a first token after which a second own backend is asked as well; the first to "
        "begin answers. Default: never.",
    )

    @property
    def pace(self) -> Pace:
        """Its limits as a plain value."""
        return Pace(self.limits.ttft, self.limits.inter_token, self.hedge_after)


class RoutingSection(Section):
    """The defaults of routing."""

    default: str = Field("balanced", description="The preset used unless a request names another.")


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
