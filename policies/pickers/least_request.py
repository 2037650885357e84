"""Takes the replica with the fewest requests in flight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import NoParams, Random, RouteRequest


class LeastRequestPicker:
    """Orders by requests in flight from here, the fewest first; equals by chance. Scores do not count."""

    name: ClassVar[str] = "least_request"
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
        keys = [(candidate.replica.load.in_flight, rng.random()) for candidate in candidates]
        return sorted(range(len(candidates)), key=keys.__getitem__)
