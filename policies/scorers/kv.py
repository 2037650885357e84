"""Prefers replicas whose KV cache has room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import NoParams, RouteRequest


class KvScorer:
    """Scores the share of the KV cache that is free: the smaller of what our books and the engine's gauge say.

    A replica of which neither is known scores 1.
    """

    name: ClassVar[str] = "kv"
    parameters: ClassVar[type[msgspec.Struct]] = NoParams

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def score(
        self,
        request: RouteRequest,  # noqa: ARG002 - room is room for every request
        candidates: Sequence[Candidate],
    ) -> Sequence[float]:
        """Return the share that is free."""
        scores = []
        for candidate in candidates:
            load = candidate.replica.load
            used = load.kv_usage or 0.0
            if load.kv_tokens:
                used = max(used, load.context / load.kv_tokens)
            scores.append(max(0.0, 1.0 - used))
        return scores
