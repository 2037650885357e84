"""Keeps a prompt where its prefix is cached, until that place is saturated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest
from gateway.routing.outlook import outlook
from gateway.types.priority import Priority


class AffinityParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as cached, and what it may cost to stay."""

    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    tokens: Annotated[int, msgspec.Meta(ge=1)] = 4_096
    penalty_s: Annotated[float, msgspec.Meta(ge=0)] = 3.0
    batch_penalty_s: Annotated[float, msgspec.Meta(ge=0)] = 14.0


class AffinityTier:
    """Tier 0 for replicas that have most of the prompt, 1 for the others, as long as staying does not cost too much.

    A replica has most of it with ``share`` of the prompt or ``tokens`` tokens. Affinity is off when the best of them
    would take more than ``penalty_s`` longer to the first token than the best of the others (``batch_penalty_s`` for
    batch requests): sticky until saturated.
    """

    name: ClassVar[str] = "affinity"
    parameters: ClassVar[type[msgspec.Struct]] = AffinityParams
    reads_prompts: ClassVar[bool] = True

    def __init__(self, params: AffinityParams) -> None:
        """Keep the parameters."""
        self._params = params

    def applies(self, request: RouteRequest) -> bool:
        """Whether anything is known of the prompt's blocks."""
        return bool(request.blocks)

    def ranks(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return 0 or 1 for each."""
        params, view = self._params, outlook(request, candidates)
        if not any(view.cached):
            return [0.0] * len(candidates)
        enough = min(params.share * request.prompt_tokens, params.tokens)
        if min(view.cached) >= enough or max(view.cached) < enough:  # all of them have it, or none
            return [0.0] * len(candidates)
        sticky = other = float("inf")
        for cached, ttft in zip(view.cached, view.ttft, strict=True):
            if cached >= enough:
                if ttft < sticky:
                    sticky = ttft
            elif ttft < other:
                other = ttft
        penalty = params.batch_penalty_s if request.priority is Priority.BATCH else params.penalty_s
        if sticky - other > penalty or sticky == float("inf"):
            return [0.0] * len(candidates)
        return [0.0 if cached >= enough else 1.0 for cached in view.cached]
