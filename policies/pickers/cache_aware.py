"""Follows the longest cached prefix while the fleet is balanced, and the fewest requests when it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Random, RouteRequest


class CacheAwareParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a match counts, and when the fleet is out of balance."""

    match: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    absolute: Annotated[int, msgspec.Meta(ge=0)] = 32
    relative: Annotated[float, msgspec.Meta(ge=1)] = 1.1


class CacheAwarePicker:
    """Orders by the share of the prompt that was sent to a replica before; scores do not count.

    When the most requests in flight exceed the fewest by more than ``absolute`` and ``relative`` times, or the best
    share is not above ``match``, the fewest requests go first. SGLang's and vLLM's routers decide so.
    """

    name: ClassVar[str] = "cache_aware"
    parameters: ClassVar[type[msgspec.Struct]] = CacheAwareParams
    reads_prompts: ClassVar[bool] = True

    def __init__(self, params: CacheAwareParams) -> None:
        """Keep the parameters."""
        self._params = params

    def order(
        self,
        request: RouteRequest,
        candidates: Sequence[Candidate],
        scores: Sequence[float],  # noqa: ARG002 - matches and requests in flight alone count
        rng: Random,
    ) -> Sequence[int]:
        """Return every index once."""
        params, blocks = self._params, request.blocks
        flights = [candidate.replica.load.in_flight for candidate in candidates]
        keys: list[tuple[float, float]] = [(flight, rng.random()) for flight in flights]
        fewest, most = min(flights), max(flights)
        if blocks and not (most - fewest > params.absolute and most > params.relative * fewest):
            matches = [candidate.replica.load.prefix.match(blocks) for candidate in candidates]
            if max(matches) > params.match * len(blocks):
                keys = [(-match, key[0]) for match, key in zip(matches, keys, strict=True)]
        return sorted(range(len(candidates)), key=keys.__getitem__)
