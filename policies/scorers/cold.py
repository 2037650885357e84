"""Spreads prompts that no replica has cached, so that the caches of all fill up evenly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import NoParams, RouteRequest
from gateway.routing.outlook import outlook


class ColdScorer:
    """Scores replicas by how long ago they were last sent a prompt that they had nothing of: 1 the longest, 0 the last.

    A prompt of which any replica has something, or of which nothing is known, finds all alike.
    """

    name: ClassVar[str] = "cold"
    parameters: ClassVar[type[msgspec.Struct]] = NoParams
    reads_prompts: ClassVar[bool] = True

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def score(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return a score for each; replicas that never were sent one are alike."""
        if not request.blocks or len(candidates) < 2 or any(outlook(request, candidates).cached):
            return ()
        turns = [candidate.load.cold_turn for candidate in candidates]
        places = {turn: place for place, turn in enumerate(sorted(set(turns)))}
        last = len(places) - 1
        return [1.0 - places[turn] / last for turn in turns] if last else ()
