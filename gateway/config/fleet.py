"""What the configuration says of backends, endpoints and models.

Parts of ``gateway.config.snapshot.ConfigSnapshot``: immutable, and checked before they are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, get_args

from gateway.config.secret import Secret
from gateway.types.dialect import Dialect
from gateway.types.money import Rates

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
        ttft: to the first token of an attempt that streams, after which another replica is asked.
        inter_token: between two chunks of an answer, after which it counts as stalled.
        hedge_after: to the first token of a stream, after which a second replica is asked too; None never does.
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
