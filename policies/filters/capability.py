"""Drops endpoints that cannot do what the answer depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import msgspec

from gateway.fleet.snapshot import Candidate, Endpoint
from gateway.routing.interface import Drop, NoParams, Refusal, RouteRequest
from gateway.types.call import Need, Operation
from gateway.types.dialect import Dialect

_FLAGS: Final[tuple[tuple[int, str, str], ...]] = (
    (Need.TOOLS.value, "tools", "tool use"),
    (Need.JSON_SCHEMA.value, "json_schema", "structured output"),
    (Need.IMAGES.value, "vision", "image input"),
    (Need.AUDIO.value, "audio", "audio input"),
    (Need.LOGPROBS.value, "logprobs", "logprobs"),
    (Need.EMBEDDINGS.value, "embeddings", "embeddings"),
    (Need.RERANK.value, "rerank", "reranking"),
    (Need.COMPLETIONS.value, "completions", "text completions"),
    (Need.CHAT.value, "chat", "chat"),
)
"""Need, the capability of an endpoint that meets it, and its name in a reason. Integers, as flags are slow to test."""
_ONLY: Final[tuple[tuple[int, Dialect, str], ...]] = (
    (Need.MESSAGES.value, Dialect.MESSAGES, "what only Anthropic's messages can say"),
    (Need.RESPONSES.value, Dialect.RESPONSES, "what only OpenAI's responses can say"),
)
"""Need, the dialect that alone can say it, and words for a reason."""
_NONE: Final = Need.NONE
_EMBEDDINGS: Final = Need.EMBEDDINGS.value
_COMPLETIONS: Final = Need.COMPLETIONS.value
_RERANK: Final = Need.RERANK.value
_GIVEN: Final[tuple[tuple[int, str, str], ...]] = (
    (Need.MANY_CHOICES.value, "n", "more than one choice"),
    (Need.LOGPROBS.value, "logprobs", "logprobs at its backend"),
)
"""Need, the field that asks an engine for it, and words for a reason."""


class CapabilityFilter:
    """Drops what cannot serve the request at all.

    An endpoint must be configured with every capability the request needs, and its engine must have the API asked for,
    and give more than one choice, or log probabilities, where they are asked for. What only one dialect can say goes
    where it is spoken. Plain chat needs nothing, and then this filter is skipped.
    """

    name: ClassVar[str] = "capability"
    parameters: ClassVar[type[msgspec.Struct]] = NoParams
    refusal: ClassVar[Refusal] = Refusal.UNSUPPORTED

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def applies(self, request: RouteRequest) -> bool:
        """Whether the request needs more than plain chat."""
        return request.needs != _NONE

    def keep(self, request: RouteRequest, candidates: Sequence[Candidate], drops: list[Drop]) -> Sequence[Candidate]:
        """Return the candidates that can do everything the request needs."""
        needs = int(request.needs)
        flags = [(flag, words) for need, flag, words in _FLAGS if needs & need]
        operation = Operation.CHAT
        if needs & _EMBEDDINGS:
            operation = Operation.EMBEDDINGS
        elif needs & _COMPLETIONS:
            operation = Operation.COMPLETIONS
        elif needs & _RERANK:
            operation = Operation.RERANK
        only = next(((dialect, words) for need, dialect, words in _ONLY if needs & need), None)
        kept: list[Candidate] = []
        endpoint: Endpoint | None = None
        known: object = None
        reason = ""
        for candidate in candidates:
            # Replicas of one endpoint stand side by side and mostly run one engine: one verdict serves them all.
            engine = candidate.replica.engine
            if candidate.endpoint is not endpoint or engine is not known or only is not None:
                endpoint, known = candidate.endpoint, engine
                lacking = [words for flag, words in flags if not getattr(endpoint.capabilities, flag)]
                if operation not in engine.paths:
                    lacking.append(f"the {operation.value} API")
                else:
                    lacking += [
                        words for need, name, words in _GIVEN if need & needs and name not in engine.fields[operation]
                    ]
                if (
                    only is not None
                    and only[0] is not engine.speaks
                    and only[0] not in candidate.replica.backend.dialects
                ):
                    lacking.append(only[1])
                reason = f"no support for {', '.join(lacking)}" if lacking else ""
            if reason:
                drops.append(Drop(candidate, self.name, reason))
            else:
                kept.append(candidate)
        return kept if len(kept) < len(candidates) else candidates
