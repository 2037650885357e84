"""Routing in the configuration file: its preset, the decisions that are kept, and admission."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from gateway.config.field import (
    Seconds,
    Section,
    TeamSlug,
)
from gateway.config.snapshot import (
    BANDS,
    PACE,
    AdmissionSpec,
    BandSpec,
    DecisionsSpec,
)
from gateway.types.priority import Priority


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
        description="Seconds between two tokens of an answer that no replica shall exceed: one is full at 0.9 of it; "
        "where all are slow by themselves, at twice what a single answer takes on the quickest.",
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
