"""Prefers endpoints that answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest


class UptimeScorerParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much must be known of an endpoint."""

    attempts: Annotated[int, msgspec.Meta(ge=1)] = 20


class UptimeScorer:
    """Scores the share of an endpoint's attempts of the last half hour that ended well.

    With fewer than ``attempts`` of them it scores 1. What callers did wrong and what was merely full does not count.
    """

    name: ClassVar[str] = "uptime"
    parameters: ClassVar[type[msgspec.Struct]] = UptimeScorerParams

    def __init__(self, params: UptimeScorerParams) -> None:
        """Keep the parameter."""
        self._attempts = params.attempts

    def score(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return the share for each."""
        now, known = request.now, dict[int, float]()
        for candidate in candidates:
            track = candidate.endpoint.track
            if id(track) not in known:
                good, bad = track.uptime(now)
                known[id(track)] = good / (good + bad) if good + bad >= self._attempts else 1.0
        return [known[id(candidate.endpoint.track)] for candidate in candidates]
