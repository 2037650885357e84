"""Puts replicas that would probably miss the request's time limits behind those that would keep them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest
from gateway.routing.outlook import outlook


class SloParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of requests that name none."""

    ttft_s: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    ttft_s_per_1k_uncached: Annotated[float, msgspec.Meta(ge=0)] = 0.125
    itl_s: Annotated[float, msgspec.Meta(gt=0)] = 0.06
    margin: Annotated[float, msgspec.Meta(gt=0, le=2)] = 0.9


class SloTier:
    """Tier 0 for candidates that will probably keep the limits, 1 for those that will miss one.

    The limits are the caller's (``x-slo-ttft-ms``, ``x-slo-tpot-ms``); a request without them gets the preset's, with
    more time to the first token for every thousand prompt tokens that must be read. A prediction counts as kept when it
    is within ``margin`` of the limit.
    """

    name: ClassVar[str] = "slo"
    parameters: ClassVar[type[msgspec.Struct]] = SloParams

    def __init__(self, params: SloParams) -> None:
        """Keep the parameters."""
        self._ttft = params.ttft_s
        self._per_token = params.ttft_s_per_1k_uncached / 1_000.0
        self._itl = params.itl_s
        self._margin = params.margin

    def applies(self, request: RouteRequest) -> bool:
        """Whether the caller set a limit."""
        return request.slo_ttft is not None or request.slo_itl is not None

    def ranks(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return 0 or 1 for each."""
        view, margin = outlook(request, candidates), self._margin
        itl_most = margin * (self._itl if request.slo_itl is None else request.slo_itl)
        if request.slo_ttft is None:
            base, per_token = margin * self._ttft, margin * self._per_token
        else:
            base, per_token = margin * request.slo_ttft, 0.0
        prompt = request.prompt_tokens
        return [
            0.0 if ttft <= base + per_token * (prompt - cached) and itl <= itl_most else 1.0
            for ttft, itl, cached in zip(view.ttft, view.itl, view.cached, strict=True)
        ]
