"""Tries endpoints that have just failed after those that have not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest


class OutageParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as an outage."""

    seconds: Annotated[float, msgspec.Meta(ge=10, le=600)] = 30.0
    failures: Annotated[int, msgspec.Meta(ge=1)] = 2
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5


class OutageTier:
    """Puts endpoints with a significant outage last.

    That is when in ``seconds`` at least ``failures`` attempts failed, and at least ``share`` of all. They stay in the
    plan, as a way to fail over.
    """

    name: ClassVar[str] = "outage"
    parameters: ClassVar[type[msgspec.Struct]] = OutageParams

    def __init__(self, params: OutageParams) -> None:
        """Keep the parameters."""
        self._params = params

    def applies(self, request: RouteRequest) -> bool:
        """Whether the caller leaves the order to the gateway."""
        wishes = request.preferences
        return wishes is None or not wishes.sorted

    def ranks(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return 1 for endpoints that are out and 0 for the others."""
        params, now = self._params, request.now
        ranks = []
        for candidate in candidates:
            good, bad = candidate.endpoint.track.outage(now, params.seconds)
            out = bad >= params.failures and bad >= params.share * (good + bad)
            ranks.append(1.0 if out else 0.0)
        return ranks
