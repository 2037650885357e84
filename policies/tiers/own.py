"""Puts external APIs behind own replicas that have room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest


class OwnParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When an own replica is full."""

    full: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.9


class OwnTier:
    """Tier 0 for own replicas with a saturation below ``full``, 1 for external APIs, 2 for own replicas that are full.

    A backend of kind ``openai``, or one that is billed by token, is external.
    """

    name: ClassVar[str] = "own"
    parameters: ClassVar[type[msgspec.Struct]] = OwnParams

    def __init__(self, params: OwnParams) -> None:
        """Keep the parameter."""
        self._full = params.full

    def applies(self, request: RouteRequest) -> bool:  # noqa: ARG002 - the same for every request
        """Always: it is the owner's wish, not the caller's."""
        return True

    def ranks(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return 0, 1 or 2 for each."""
        now, full = request.now, self._full
        return [
            1.0 if not candidate.own else 0.0 if candidate.load.has_room(now, full) else 2.0 for candidate in candidates
        ]
