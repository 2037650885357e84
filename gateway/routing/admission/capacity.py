"""The room of a model's replicas, from the live fleet: the capacity estimate that releases the gateway's queue.

Each replica says how full it is (``ReplicaLoad.saturation``); one that said itself that it is full counts as full until
it has cooled off, and so does one whose next request would slow all of its answers below the pace that they shall keep.
A pool is as full as its emptiest replica: routing gathers what cannot be answered in time where it harms fewest, and
that place being full says nothing of the room elsewhere. What cannot be sent anything does not count at all. An
endpoint without any limit makes a pool that is never full: where requests shall wait for own replicas before they go
to an external API, that API needs ``limits``.
"""

from __future__ import annotations

from math import exp
from typing import Final

from gateway.config.snapshot import PACE
from gateway.fleet.account import STEADY_SECONDS
from gateway.fleet.load import LONGEST_WAIT, ReplicaLoad
from gateway.fleet.registry import FleetRegistry
from gateway.routing.admission.pool import Room

UNLIMITED: Final = Room(0.0, float("inf"), float("inf"))
SLOWDOWN: Final = 2.0
"""A replica that is slow by itself is not full before its answers take this many times what they took at best."""
MOST_GROWN: Final = 1.3
"""How far the pace of a smaller load says anything of a greater one."""
ASSUMED_REQUESTS: Final = 64.0
"""Requests that an external API with limits weighs."""


class FleetCapacity:
    """Estimates the room of models.

    Args:
        registry: holds the fleet.
        pace: seconds between two tokens that running answers shall not exceed.

    Attributes:
        pace: as in the arguments.
    """

    __slots__ = ("_best", "_registry", "pace")

    def __init__(self, registry: FleetRegistry, pace: float = PACE) -> None:
        self._registry = registry
        self._best: dict[str, float] = {}
        self.pace = pace

    def __call__(self, pool: str, now: float) -> Room | None:
        """See ``gateway.routing.admission.pool.Capacity``."""
        model = self._registry.fleet.models.get(pool)
        if model is None:
            return None
        used, requests, tokens = 1.0, 0.0, 0.0
        for candidate in model.candidates:
            load = candidate.replica.load
            cooling = load.cooling_until > now
            if not load.ready or load.draining or load.ejected_until > now or (cooling and load.cooling_asked):
                continue
            weight = load.ceiling.at(now)
            if not weight:
                if not load.quota.limited:
                    return UNLIMITED
                weight = ASSUMED_REQUESTS
            full = 1.0 if cooling else max(load.saturation(now), self._slowed(candidate.replica.name, load, now))
            used = full if full < used else used
            requests += weight
            tokens += load.estimate.rate * LONGEST_WAIT
        return Room(used, requests, tokens) if requests else None

    def _slowed(self, name: str, load: ReplicaLoad, now: float) -> float:
        """Return how far the answers of the replica ``name`` are slowed: 1 when a token takes ``pace`` seconds.

        Measured pace is that of the last half minute; it is scaled by how the load has changed since.
        """
        itl, depth = load.itl, load.depth
        if itl is None or not depth:
            return 0.0
        best = self._best.get(name)
        if best is None or itl < best:
            best = self._best[name] = itl
        left = exp((load.averaged_at - now) / STEADY_SECONDS)
        usual = left * load.mean_depth + (1.0 - left) * depth
        grown = min(depth / usual, MOST_GROWN) if usual > 0.0 else MOST_GROWN
        return (itl - best) * grown / (max(self.pace, SLOWDOWN * best) - best)
