"""Backends in the configuration file: where an engine or an API is, what it can take, and how long it may take."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.external import EXTERNAL_APIS, ProfileName, inferred
from gateway.config.field import (
    Amount,
    Count,
    Line,
    Name,
    Seconds,
    Secret,
    Section,
    Url,
    Weight,
)
from gateway.config.fleet import EXTERNAL, BackendLimits, Capacity, DataCollection, Kind, OnDisconnect, Timeouts
from gateway.config.litellm import LitellmSection
from gateway.types.dialect import Dialect

NativeDialect = Literal[Dialect.MESSAGES, Dialect.RESPONSES]


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
        LimitsSection(),
        description="What may be asked with it. Each worker of a host keeps an even part, of requests at least one.",
    )


class TimeoutsSection(Section):
    """Limits of one attempt, in seconds."""

    connect: Seconds = Field(5.0, description="Seconds to connect, the look-up of the name included.")
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
        description="What may be sent to it. Each worker of a host keeps an even part, of requests at least one; "
        "hosts do not share.",
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
