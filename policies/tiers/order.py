"""Tries the endpoints that the caller listed first, in the caller's order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import NoParams, RouteRequest


class OrderTier:
    """Obeys ``provider.order``; what is not in it comes after all that is."""

    name: ClassVar[str] = "order"
    obeys_preferences: ClassVar[bool] = True
    parameters: ClassVar[type[msgspec.Struct]] = NoParams

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def applies(self, request: RouteRequest) -> bool:
        """Whether the caller has an order."""
        wishes = request.preferences
        return wishes is not None and bool(wishes.order)

    def ranks(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return the place of the first slug of the order that means the candidate."""
        order = request.preferences.order if request.preferences is not None else ()
        return [
            next((place for place, slug in enumerate(order) if slug in candidate.names), len(order))
            for candidate in candidates
        ]
