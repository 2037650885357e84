"""Takes the less loaded of two replicas drawn at random: the power of two choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import NoParams, Random, RouteRequest


class TwoChoicesPicker:
    """Draws an order at random and puts the one of its first two that has fewer requests in flight from here first.

    Scores do not count. Envoy's ``least_request`` with equal weights does the same.
    """

    name: ClassVar[str] = "p2c"
    parameters: ClassVar[type[msgspec.Struct]] = NoParams

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def order(
        self,
        request: RouteRequest,  # noqa: ARG002 - the same for every request
        candidates: Sequence[Candidate],
        scores: Sequence[float],  # noqa: ARG002 - requests in flight alone count
        rng: Random,
    ) -> Sequence[int]:
        """Return every index once."""
        order = list(range(len(candidates)))
        rng.shuffle(order)
        if len(order) > 1:
            one, other = (candidates[index].replica.load.in_flight for index in order[:2])
            if other < one:
                order[0], order[1] = order[1], order[0]
        return order
