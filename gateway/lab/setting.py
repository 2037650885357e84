"""What is simulated: the fleet behind the gateways, external APIs, prices, faults.

Frozen values, and how they become the very fleet objects that policies see in the gateway. What makes no sense raises
``ValueError`` when it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import Final

from gateway.config.egress import Egress
from gateway.config.snapshot import (
    BackendLimits,
    BackendSpec,
    Capabilities,
    Capacity,
    ConfigSnapshot,
    EndpointSpec,
    ModelSpec,
    RoutingSpec,
)
from gateway.fleet.egress import EgressGuard
from gateway.fleet.health import Health
from gateway.fleet.registry import FleetRegistry
from gateway.stepmodel import Profile
from gateway.types.money import NANO_PER_USD, Rates

MODEL: Final = "qwen/qwen3-32b"
CONTEXT_LENGTH: Final = 262_144
"""Tokens of prompt and answer of the simulated model: longer than any request of the traces there are."""
_OUTSIDE_COST: Final = Rates(160_000, 640_000)
_OUTSIDE_PRICE: Final = Rates(200_000, 800_000)
_SELL: Final = Rates(100_000, 300_000, 20_000)
"""What teams pay at the own replicas: 0.10, 0.30 and 0.02 USD per million tokens."""


@dataclass(frozen=True, slots=True)
class External:
    """An external API.

    Attributes:
        cost: what the owner pays per token.
        price: what teams pay there.
        ttft_s: median seconds to the first token of an empty prompt; ``prefill_tokens_per_s`` adds the prompt's.
        prefill_tokens_per_s: prompt tokens read per second.
        itl_s: median seconds between tokens.
        spread: standard deviation of the logarithm of both latencies.
        rpm, tpm, concurrent: its limits; what goes beyond is answered 429.
    """

    cost: Rates = _OUTSIDE_COST
    price: Rates = _OUTSIDE_PRICE
    ttft_s: float = 0.5
    prefill_tokens_per_s: float = 30_000.0
    itl_s: float = 0.018
    spread: float = 0.3
    rpm: int = 6_000
    tpm: int = 30_000_000
    concurrent: int = 1_000


FAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "slow": "the first replica takes three times as long for every step, from beginning to end",
        "death": "the first replica dies after a third of the time and comes back empty after two thirds",
        "frozen": "for 30 s after a third of the time all metrics pages show what they showed then",
        "silent": "for 30 s after a third of the time no metrics page answers",
        "outage": "for 30 s after a third of the time every replica is dead",
    }
)
"""The faults there are, by name, in words."""
SLOWNESS: Final = 3.0
FAULT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Setting:
    """One simulated world.

    Attributes:
        profile: the engine every replica runs.
        replicas: own GPU replicas.
        usd_per_hour: nano-USD the owner pays per replica and hour.
        external: an external API beside them, or None.
        gateways: gateways over the one fleet; they do not talk to one another and get requests in turn.
        faults: names out of ``FAULTS``.
        admission: whether a bounded queue with fair sharing stands before the fleet.
    """

    profile: Profile
    replicas: int = 4
    usd_per_hour: int = 4_600_000_000
    external: External | None = None
    gateways: int = 1
    faults: tuple[str, ...] = ()
    admission: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.faults if name not in FAULTS]
        if unknown:
            raise ValueError(f"there is no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
        if self.replicas < 1 and self.external is None:
            raise ValueError("there must be a replica or an external API")
        if self.gateways < 1:
            raise ValueError("there must be a gateway")

    def registry(self, clock: Callable[[], float], rng: Random) -> tuple[FleetRegistry, Health]:
        """Return the fleet as one gateway knows it, with books and a breaker of its own."""
        known: dict[Rates, int] = {}
        health = Health()
        registry = FleetRegistry(
            self._snapshot(),
            price_id=lambda rates: known.setdefault(rates, len(known) + 1),
            guard=EgressGuard(Egress(())),
            health=health,
            rng=rng,
            clock=clock,
        )
        return registry, health

    def _snapshot(self) -> ConfigSnapshot:
        """Return the configuration of the fleet."""
        profile = self.profile
        own = BackendSpec(
            name="",
            kind="vllm",
            url="",
            provider="own",
            usd_per_hour=self.usd_per_hour,
            capacity=Capacity(profile.max_running, profile.kv_tokens, profile.prefill_tokens_per_s),
        )
        backends = [
            replace(own, name=f"gpu-{number}", url=f"http://gpu-{number}.invalid") for number in range(self.replicas)
        ]
        if self.external is not None:
            outside = self.external
            backends.append(
                BackendSpec(
                    name="api",
                    kind="openai",
                    url="http://api.invalid",
                    provider="api",
                    limits=BackendLimits(outside.rpm, outside.tpm, outside.concurrent),
                )
            )
        endpoints = tuple(self._endpoint(spec) for spec in backends)
        model = ModelSpec(
            MODEL, MODEL, "", 0, CONTEXT_LENGTH, None, Capabilities(), endpoints[0].price, endpoints=endpoints
        )
        return ConfigSnapshot(
            version=1,
            digest="",
            backends=MappingProxyType({spec.name: spec for spec in backends}),
            models=MappingProxyType({MODEL: model}),
            aliases=MappingProxyType({}),
            routing=RoutingSpec(""),
            egress=Egress(()),
            teams=(),
            sources=(),
        )

    def own_usd(self, seconds: float) -> float:
        """Return what the replicas cost in ``seconds``, busy or not, in USD."""
        return self.replicas * self.usd_per_hour / NANO_PER_USD * seconds / 3600.0

    def _endpoint(self, spec: BackendSpec) -> EndpointSpec:
        outside = self.external if spec.provider == "api" else None
        return EndpointSpec(
            model_id=MODEL,
            backend=spec.name,
            upstream_model=MODEL,
            provider=spec.provider,
            region=None,
            quantization=None,
            price=_SELL if outside is None else outside.price,
            cost=None if outside is None else outside.cost,
            context_length=CONTEXT_LENGTH,
            max_output=None,
            capabilities=Capabilities(),
        )
