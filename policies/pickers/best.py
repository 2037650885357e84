"""Takes the best score, and the less loaded of two when several are about as good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Random, RouteRequest


class BestParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as a tie, and how often another one is tried."""

    near: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.05
    explore: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0


class BestPicker:
    """Orders by score; the first is the better of two drawn from the near-ties of the best.

    Candidates within ``near`` of the best score are as good as equal: two of them are drawn at random and the one with
    fewer requests goes first (power of two choices), so that several gateways that see the same scores do not all
    run to one replica. The rest are fallbacks, best first. A share ``explore`` of requests goes to any candidate by
    chance, so that what is believed of those that lose is put to the test.
    """

    name: ClassVar[str] = "best"
    parameters: ClassVar[type[msgspec.Struct]] = BestParams

    def __init__(self, params: BestParams) -> None:
        """Keep the shares."""
        self._share = 1.0 - params.near
        self._explore = params.explore

    def order(
        self,
        request: RouteRequest,  # noqa: ARG002 - the scores hold all there is to say of it
        candidates: Sequence[Candidate],
        scores: Sequence[float],
        rng: Random,
    ) -> Sequence[int]:
        """Return every index once."""
        count = len(scores)
        if count == 1:
            return (0,)
        order = sorted(range(count), key=scores.__getitem__, reverse=True)
        # One draw for everything: what it says of one question is taken off before the next.
        draw, explore = rng.random(), self._explore
        if draw < explore:
            order.insert(0, order.pop(int(draw / explore * count)))
            return order
        least = scores[order[0]] * self._share
        ties = count
        while scores[order[ties - 1]] < least:
            ties -= 1
        if ties == 1:
            return order
        first, second = divmod(int((draw - explore) / (1.0 - explore) * (ties * ties - ties)), ties - 1)
        if second >= first:
            second += 1
        one, other = candidates[order[first]].load, candidates[order[second]].load
        depth, other_depth = one.in_flight + one.foreign, other.in_flight + other.foreign
        if other_depth < depth or (other_depth == depth and other.waiting_tokens < one.waiting_tokens):
            first = second
        if first:
            order.insert(0, order.pop(first))
        return order
