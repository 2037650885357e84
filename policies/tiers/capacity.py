"""Puts replicas without room behind those with room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest


class CapacityParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as room."""

    kv_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9
    longest_wait_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 3.0


class CapacityTier:
    """Tier 0 for replicas with room for the request, tier 1 for the others.

    Room means: one more request stays within what the replica runs at once (configured or learned), its prompt and
    expected answer fit ``kv_share`` of the KV cache beside what is held there, and the prompts that wait are read
    within ``longest_wait_s``. Where nobody says how large the cache is, it counts as large enough.
    """

    name: ClassVar[str] = "capacity"
    parameters: ClassVar[type[msgspec.Struct]] = CapacityParams

    def __init__(self, params: CapacityParams) -> None:
        """Keep the parameters."""
        self._share = params.kv_share
        self._wait = params.longest_wait_s

    def applies(self, request: RouteRequest) -> bool:  # noqa: ARG002 - the same for every request
        """Always: any replica may be full."""
        return True

    def ranks(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return 0 or 1 for each."""
        now, share, wait = request.now, self._share, self._wait
        need = request.prompt_tokens + request.expected_tokens
        ranks = []
        for candidate in candidates:
            load = candidate.replica.load
            depth = load.in_flight + load.foreign
            if not depth:
                ranks.append(0.0)
                continue
            room = load.kv_tokens
            full = (
                depth + 1 > load.ceiling.at(now) > 0
                or (room is not None and load.context + need > share * room)
                or load.backlog(now) * load.estimate.token > wait
            )
            ranks.append(1.0 if full else 0.0)
        return ranks
