"""One accepted configuration: immutable values that the rest of the gateway reads.

A snapshot is built only from a file that was checked whole, so a reader needs no check of its own. Snapshots
with equal content are equal; ``version``, ``digest`` and ``sources`` do not take part in the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, get_args

from gateway.config.egress import Egress
from gateway.config.source import SourceFile
from gateway.types.money import Rates
from gateway.types.priority import Priority

Kind = Literal["vllm", "tgi", "sglang", "llamacpp", "openai"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
OnDisconnect = Literal["cancel", "drain"]
DataCollection = Literal["allow", "deny"]


class Secret:
    """A secret text that no ``repr``, log or encoder shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself, to be sent to its backend and nowhere else."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


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
    """What a model can be asked for. Endpoints may say otherwise than their model."""

    tools: bool = True
    vision: bool = False
    audio: bool = False
    json_schema: bool = True
    logprobs: bool = True
    embeddings: bool = False


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
        on_disconnect: a request whose caller left is stopped (``cancel``) or read to its end (``drain``).
        tags: free words for policies.
        collects: whether it may store prompts or train on them.
        zdr: whether it keeps nothing of a request.
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


class EndpointGroup(NamedTuple):
    """What an endpoint is; the specs that share it are its replicas."""

    model_id: str
    provider: str
    quantization: str | None
    region: str | None


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


@dataclass(frozen=True, slots=True)
class RoutingSpec:
    """How requests are routed unless they ask for something else.

    Attributes:
        default: name of a preset.
    """

    default: str


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
