"""Prefers replicas with room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest


class QueueParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as full."""

    assumed_running: Annotated[int, msgspec.Meta(ge=1)] = 64
    queued_is_full: Annotated[int, msgspec.Meta(ge=1)] = 5


class QueueScorer:
    """Scores 1 for an idle replica and 0 for a full one.

    Load is the larger of two shares: requests on the engine (our own exactly, others' as last scraped) of what it can
    run at once, and requests it reported as queued of ``queued_is_full``. What a replica can run at once is its
    configured ``capacity.max_running``, else ``assumed_running``.
    """

    name: ClassVar[str] = "queue"
    parameters: ClassVar[type[msgspec.Struct]] = QueueParams

    def __init__(self, params: QueueParams) -> None:
        """Keep the parameters."""
        self._assumed = params.assumed_running
        self._queued = params.queued_is_full

    def score(
        self,
        request: RouteRequest,  # noqa: ARG002 - room is room for every request
        candidates: Sequence[Candidate],
    ) -> Sequence[float]:
        """Return the share of room left."""
        assumed, queued_is_full = self._assumed, self._queued
        scores = []
        for candidate in candidates:
            replica = candidate.replica
            load = replica.load
            room = 1.0 - (load.in_flight + load.foreign) / (replica.backend.capacity.max_running or assumed)
            queued = load.waiting
            if queued:
                room = min(room, 1.0 - queued / queued_is_full)
            scores.append(room)
        return scores
