"""Prefers endpoints whose answers come quickly once they have begun."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import NoParams, RouteRequest


class ThroughputScorer:
    """Scores an endpoint's median throughput of the last five minutes over that of the best.

    Throughput is completion tokens over the whole time of an answer, as callers see it. What was not measured counts as
    the best, so that it will be; with fewer than two endpoints that were, all are alike.
    """

    name: ClassVar[str] = "throughput"
    parameters: ClassVar[type[msgspec.Struct]] = NoParams

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def score(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return 1 for the quickest and less for the slower ones."""
        now = request.now
        speeds: dict[int, float | None] = {}
        for candidate in candidates:
            track = candidate.endpoint.track
            if id(track) not in speeds:
                found = track.speeds(now).throughput
                speeds[id(track)] = found["p50"] if found else None
        known = [speed for speed in speeds.values() if speed]
        if len(known) < 2:
            return ()
        best = max(known)
        return [(speeds[id(candidate.endpoint.track)] or best) / best for candidate in candidates]
