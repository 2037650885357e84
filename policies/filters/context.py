"""Drops endpoints whose context is too short, when the prompt's length is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Drop, NoParams, Refusal, RouteRequest


class ContextFilter:
    """Drops what has no room for the prompt and the answer asked for.

    Only an exact count drops: an estimate may be wrong, and the engine, which counts for itself, refuses what really
    does not fit and says by how much. The answer counts with the length asked for, at most the endpoint's longest
    answer, and with one token when no length was asked for.
    """

    name: ClassVar[str] = "context"
    parameters: ClassVar[type[msgspec.Struct]] = NoParams
    refusal: ClassVar[Refusal] = Refusal.TOO_LONG

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def applies(self, request: RouteRequest) -> bool:
        """Whether the prompt was counted."""
        return request.prompt_tokens_exact

    def keep(self, request: RouteRequest, candidates: Sequence[Candidate], drops: list[Drop]) -> Sequence[Candidate]:
        """Return the candidates with room."""
        prompt, wanted = request.prompt_tokens, request.max_tokens or 1
        kept = []
        for candidate in candidates:
            endpoint = candidate.endpoint
            answer = wanted if endpoint.max_output is None else min(wanted, endpoint.max_output)
            if prompt + answer <= endpoint.context_length:
                kept.append(candidate)
                continue
            reason = f"{prompt} prompt and {answer} answer tokens exceed its context of {endpoint.context_length}"
            drops.append(Drop(candidate, self.name, reason))
        return kept if len(kept) < len(candidates) else candidates
