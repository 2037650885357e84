"""Takes replicas in turn, whatever their load: what the simplest balancers do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import NoParams, Random, RouteRequest


class RoundRobinPicker:
    """Orders by how long ago a replica was last sent a request from here, the longest first. Scores do not count."""

    name: ClassVar[str] = "round_robin"
    parameters: ClassVar[type[msgspec.Struct]] = NoParams

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def order(
        self,
        request: RouteRequest,  # noqa: ARG002 - the same for every request
        candidates: Sequence[Candidate],
        scores: Sequence[float],  # noqa: ARG002 - the turn alone counts
        rng: Random,  # noqa: ARG002 - nothing is left to chance
    ) -> Sequence[int]:
        """Return every index once."""
        return sorted(range(len(candidates)), key=lambda index: candidates[index].replica.load.turn)
