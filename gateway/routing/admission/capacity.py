"""The room of a model's replicas, from the live fleet: the capacity estimate that releases the gateway's queue.

Each replica says how full it is (``ReplicaLoad.saturation``); one that said itself that it is full counts as full until
it has cooled off, and so does one whose next request would slow all of its answers below the pace that they shall keep.
A pool is as full as its emptiest replica: routing gathers what cannot be answered in time where it harms fewest, and
that place being full says nothing of the room elsewhere. Only of requests over what is run side by side the mean
counts, where all have such a limit: what would wait in engines anyway waits here, where it can still be ordered. What
cannot be sent anything does not count at all. An endpoint without any limit makes a pool that is never full: where
requests shall wait for own replicas before they go to an external API, that API needs ``limits``.
"""

from __future__ import annotations

from typing import Final

from gateway.config.snapshot import PACE
from gateway.fleet.load import GROWTH, ITL, LONGEST_WAIT, ReplicaLoad
from gateway.fleet.registry import FleetRegistry
from gateway.routing.admission.pool import Room

UNLIMITED: Final = Room(0.0, float("inf"), float("inf"))
SLOWDOWN: Final = 2.0
"""Where even the quickest replica is slow by itself, none is full before its answers take this many times as long as
an answer takes alone there."""
MARGIN: Final = 0.9
"""Share of the pace at which a replica is full: where routing begins to give answers up, nobody must be let in any
more, or both would work against each other (see the scorer ``time``)."""
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

    __slots__ = ("_registry", "pace")

    def __init__(self, registry: FleetRegistry, pace: float = PACE) -> None:
        self._registry = registry
        self.pace = pace

    def __call__(self, pool: str, now: float) -> Room | None:
        """See ``gateway.routing.admission.pool.Capacity``."""
        model = self._registry.fleet.models.get(pool)
        if model is None:
            return None
        used, requests, beside, tokens, held, known = 1.0, 0.0, 0.0, 0.0, 0, True
        alone = min([_alone(candidate.load) for candidate in model.candidates], default=0.0)
        pace = max(MARGIN * self.pace, SLOWDOWN * alone)
        for candidate in model.candidates:
            load = candidate.replica.load
            cooling = load.cooling_until > now
            if not load.ready or load.draining or load.ejected_until > now or (cooling and load.cooling_asked):
                continue
            weight = load.ceiling.at(now)
            if not weight:
                if not load.quota.limited:
                    return UNLIMITED
                weight, known = ASSUMED_REQUESTS, False
            held += load.depth
            full = 1.0 if cooling else max(load.saturation(now), _slowed(load, now, pace))
            used = full if full < used else used
            beside += weight
            # What a request takes is its share of the scarcest, which may be what its owner or its API allows.
            requests += (min(weight, load.quota.most(now)) or 1.0) if load.quota.limited else weight
            tokens += load.estimate.rate * LONGEST_WAIT
        if not requests:
            return None
        return Room(max(used, held / beside) if known else used, requests, tokens)


def _alone(load: ReplicaLoad) -> float:
    """Return the seconds between two tokens of an answer that is alone on the replica."""
    return load.estimate.step + load.estimate.per_request


def _slowed(load: ReplicaLoad, now: float, pace: float) -> float:
    """Return how far one more request would slow the answers of a replica: 1 when a token takes ``pace`` seconds.

    The time between tokens is the one that routing expects there. A replica that cannot keep the pace at all is full as
    soon as it does anything: that there is room on it is of no use to whom it would be too slow.
    """
    if not load.depth:
        return 0.0
    facts = load.outlook(now)
    return (facts[ITL] + facts[GROWTH] * load.mean_context) / pace
