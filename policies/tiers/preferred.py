"""Tries endpoints that are as quick as the caller prefers before those that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import NoParams, RouteRequest
from gateway.types.preferences import Cutoffs


class PreferredTier:
    """Obeys ``provider.preferred_min_throughput`` and ``provider.preferred_max_latency``.

    Both are measured here, over the last five minutes of each endpoint. An endpoint that misses a cutoff comes later;
    it is never left out. One without measurements is given the benefit of the doubt.
    """

    name: ClassVar[str] = "preferred"
    obeys_preferences: ClassVar[bool] = True
    parameters: ClassVar[type[msgspec.Struct]] = NoParams

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def applies(self, request: RouteRequest) -> bool:
        """Whether the caller prefers a speed."""
        wishes = request.preferences
        return wishes is not None and (wishes.min_throughput is not None or wishes.max_latency is not None)

    def ranks(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return 0 for what is quick enough and 1 for what is not."""
        wishes = request.preferences
        if wishes is None:
            return [0.0] * len(candidates)
        ranks = []
        for candidate in candidates:
            speeds = candidate.endpoint.track.speeds(request.now)
            slow = _misses(wishes.min_throughput, speeds.throughput, least=True) or _misses(
                wishes.max_latency, speeds.latency, least=False
            )
            ranks.append(1.0 if slow else 0.0)
        return ranks


def _misses(cutoffs: Cutoffs | None, measured: Mapping[str, float] | None, *, least: bool) -> bool:
    """Return whether a percentile is on the wrong side of its cutoff."""
    if cutoffs is None or measured is None:
        return False
    for name, value in measured.items():
        limit: float | None = getattr(cutoffs, name)
        if limit is not None and (value < limit if least else value > limit):
            return True
    return False
