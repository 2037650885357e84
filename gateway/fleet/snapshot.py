"""The fleet as policies see it: models, their endpoints, the replicas behind them.

The structure is immutable and rebuilt whole when the configuration changes; only ``Replica.load`` is live (see
``gateway.fleet.load``). A *candidate* is one (endpoint, replica) pair that could serve a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.config.snapshot import BackendSpec, Capabilities, Pace
from gateway.engines.kind import Engine
from gateway.fleet.keychain import UpstreamKey
from gateway.fleet.load import ReplicaLoad
from gateway.fleet.track import Track
from gateway.types.money import Rates


@dataclass(frozen=True, slots=True, eq=False)
class Replica:
    """One backend: where it is, which engine it runs, what is known of its load."""

    name: str
    backend: BackendSpec
    engine: Engine
    load: ReplicaLoad = field(default_factory=ReplicaLoad)


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """One (model, provider, quantization, region): what callers choose between and are charged for.

    What its replicas differ in is promised as far as every one of them can keep it.

    Attributes:
        slug: ``provider``, with ``/quantization`` and ``@region`` where they are known; unique within its model.
        price: what teams are charged.
        price_id: id of ``price`` for the journal.
        context_length: tokens of prompt and answer together.
        max_output: longest answer in tokens, or None when only the context bounds it.
        parameters: request parameters it supports, by their names in the catalogue.
        tool_quality: how well it calls tools, 0 to 1, or None when nobody said.
        track: what requests have met here; live.
        pace: how long its model may keep callers waiting.
        team_prices: what teams with terms of their own are charged, and the id of that, by team.
    """

    slug: str
    model_id: str
    provider: str
    quantization: str | None
    region: str | None
    price: Rates
    price_id: int
    context_length: int
    max_output: int | None
    capabilities: Capabilities
    parameters: frozenset[str] = frozenset()
    tool_quality: float | None = None
    track: Track = field(default_factory=Track)
    pace: Pace = field(default_factory=Pace)
    team_prices: Mapping[str, tuple[Rates, int]] = field(default_factory=dict)

    def sold_to(self, team: str) -> tuple[Rates, int]:
        """Return what ``team`` is charged here, and the id of that for the journal."""
        return self.team_prices.get(team) or (self.price, self.price_id)

    def sells(self, tier: str) -> bool:
        """Whether the service tier has rates of its own here; requests for any other one get the default one's."""
        return any(each.name == tier for each in self.price.service_tiers)


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A replica that could serve a model at an endpoint.

    Attributes:
        upstream_model: the model's name on that backend.
        cost: what the owner pays per token, or None when the backend is not billed by token.
        cost_id: id of ``cost`` for the journal, 0 when there is none, ``OWN_KEY`` with a team's own key.
        slug: endpoint slug and backend name, the narrowest name of this candidate.
        names: every slug by which callers may mean it, case-folded: from its provider to its replica.
        key: the team's own key that it is asked with, or None.
        load: its replica's.
        own: whether it runs on a GPU of the owner's, so that its time is what it costs.
        hourly: nano-USD that an hour of it costs, or None when nobody says.
    """

    endpoint: Endpoint
    replica: Replica
    upstream_model: str
    cost: Rates | None
    cost_id: int
    slug: str
    names: frozenset[str] = frozenset()
    key: UpstreamKey | None = None
    load: ReplicaLoad = field(init=False)
    own: bool = field(init=False)
    hourly: int | None = field(init=False)

    def __post_init__(self) -> None:
        """Look up what decisions read most."""
        object.__setattr__(self, "load", self.replica.load)
        object.__setattr__(self, "own", self.cost is None and not self.replica.engine.external)
        object.__setattr__(self, "hourly", self.replica.backend.usd_per_hour)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model that callers can name, with every candidate that serves it; ``chats`` when each of them has chat."""

    id: str
    name: str
    description: str
    created: int
    context_length: int
    max_output: int | None
    capabilities: Capabilities
    price: Rates
    endpoints: tuple[Endpoint, ...]
    candidates: tuple[Candidate, ...]
    chats: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """Everything that can be routed to, at one version of the configuration.

    Attributes:
        version: grows with every accepted configuration.
        aliases: alias to ``(model id, weight)`` pairs.
        default_preset: name of the routing preset for requests that name none.
        chats: whether every model has chat at every endpoint.
    """

    version: int
    models: Mapping[str, Model]
    replicas: Mapping[str, Replica]
    aliases: Mapping[str, tuple[tuple[str, int], ...]]
    default_preset: str
    chats: bool = True
