"""Models in the configuration file: what they can do, where they are served, and at which price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from gateway.config.field import (
    Count,
    Line,
    ModelId,
    Name,
    Seconds,
    Section,
)
from gateway.config.fleet import Capabilities, Pace
from gateway.config.prices import PriceSection

OperationName = Literal["chat", "completions", "embeddings", "rerank"]
OPERATIONS: Final[tuple[OperationName, ...]] = get_args(OperationName)


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
        None, description="Seconds to the first token of a stream. Default: the backend's timeouts.first_byte."
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
        description="Seconds without a first token of a stream after which a second own backend is asked as well; the "
        "first to begin answers. Default: never.",
    )

    @property
    def can(self) -> Capabilities:
        """What it can be asked for, its operations included."""
        return self.capabilities.base() if self.operations is None else self.capabilities.upon(self.operations)

    @property
    def pace(self) -> Pace:
        """Its limits as a plain value."""
        return Pace(self.limits.ttft, self.limits.inter_token, self.hedge_after)
