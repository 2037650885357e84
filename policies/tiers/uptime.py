"""Tries endpoints that mostly answer before those that often do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class UptimeParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tiers, and how many attempts it takes to tell."""

    good: Share = 0.95
    fair: Share = 0.80
    attempts: Annotated[int, msgspec.Meta(ge=1)] = 100


class UptimeTier:
    """Puts endpoints in three tiers by the share of attempts of the last half hour that ended well.

    From ``good`` on an endpoint is like any other, from ``fair`` on it comes later, below it is used when nothing else
    is left. An endpoint with fewer than ``attempts`` attempts is good. What callers did wrong and what was merely full
    does not count.
    """

    name: ClassVar[str] = "uptime"
    parameters: ClassVar[type[msgspec.Struct]] = UptimeParams

    def __init__(self, params: UptimeParams) -> None:
        """Keep the parameters."""
        self._params = params

    def applies(self, request: RouteRequest) -> bool:
        """Whether the caller leaves the order to the gateway."""
        wishes = request.preferences
        return wishes is None or not wishes.sorted

    def ranks(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return 0, 1 or 2."""
        params, now = self._params, request.now
        known: dict[int, float] = {}
        ranks = []
        for candidate in candidates:
            track = candidate.endpoint.track
            rank = known.get(id(track))
            if rank is None:
                good, bad = track.uptime(now)
                total = good + bad
                if total < params.attempts or good >= params.good * total:
                    rank = 0.0
                else:
                    rank = 1.0 if good >= params.fair * total else 2.0
                known[id(track)] = rank
            ranks.append(rank)
        return ranks
