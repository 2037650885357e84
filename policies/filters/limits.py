"""Drops external APIs whose limits leave no room for the request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Drop, NoParams, Refusal, RouteRequest


class LimitsFilter:
    """Drops what would refuse the request for its volume.

    Limits are the backend's ``limits`` in the configuration (requests and tokens a minute, requests at once), shared
    evenly by the workers of this host, and what the API itself said in the headers of its answers.
    """

    name: ClassVar[str] = "limits"
    parameters: ClassVar[type[msgspec.Struct]] = NoParams
    refusal: ClassVar[Refusal] = Refusal.UNAVAILABLE
    only_hindered: ClassVar[bool] = True

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def applies(self, request: RouteRequest) -> bool:  # noqa: ARG002 - the same for every request
        """Always: any backend may have limits."""
        return True

    def keep(self, request: RouteRequest, candidates: Sequence[Candidate], drops: list[Drop]) -> Sequence[Candidate]:
        """Return the candidates that have room."""
        for candidate in candidates:
            if candidate.load.quota.limited:
                break
        else:
            return candidates
        tokens, now = request.prompt_tokens + request.expected_tokens, request.now
        kept = []
        for candidate in candidates:
            reason = candidate.load.quota.refusal(tokens, now)
            if reason and candidate.endpoint.provider not in request.own:
                drops.append(Drop(candidate, self.name, f"at its limit: {reason}"))
            else:
                kept.append(candidate)
        return kept if len(kept) < len(candidates) else candidates
