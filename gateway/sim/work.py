"""What a request body comes to: the prompt to read and the answer to give, before anything is said of time.

Equal bodies come to equal work, so work is kept and used again; nothing in it changes after it was made. Bodies that
are not requests raise ``BadRequest`` every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from gateway.sim.answers import Choice, compose
from gateway.sim.config import SimConfig
from gateway.sim.messages import MESSAGES
from gateway.sim.requests import (
    CHAT,
    COMPLETION,
    EMBEDDING,
    BadRequest,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    decode,
)
from gateway.sim.responses import RESPONSES, ResponsesRequest
from gateway.sim.text import Prompt

_MOST_KEPT = 256
_LONGEST_KEPT = 16_384
_LARGEST_VECTOR = 65_536


@dataclass(slots=True)
class Work:
    """One request, understood.

    Attributes:
        model: the model asked for.
        prompts: what is to be read; ``prompt`` is all of it as one, ``longest`` the tokens of the longest.
        choices: what will be said; none for an embedding.
        limit: completion tokens the caller wants at most.
        top: alternatives per token; None when log-probabilities were not asked for.
        embedding: the request itself when it is for embeddings.
        rendered: the ``choices`` of a whole answer as JSON, once somebody made it.
        asked: the request itself when it is for a response.
    """

    model: str
    prompts: Sequence[Prompt]
    choices: list[Choice]
    chat: bool = False
    stream: bool = False
    asked_usage: bool = False
    continuous_usage: bool = False
    limit: int | None = None
    top: int | None = None
    embedding: EmbeddingRequest | None = None
    rendered: msgspec.Raw | None = None
    asked: ResponsesRequest | None = None
    prompt: Prompt = field(init=False)
    longest: int = field(init=False)
    steps: int = field(init=False)

    def __post_init__(self) -> None:
        texts, tokens = [prompt.text for prompt in self.prompts], [prompt.tokens for prompt in self.prompts]
        self.prompt = Prompt("\n".join(texts), sum(tokens))
        self.longest = max(tokens)
        self.steps = max((len(choice.pieces) for choice in self.choices), default=0)


class Works:
    """Reads request bodies; ``paths`` are the paths it knows."""

    def __init__(self, config: SimConfig, *, embeddings: bool, messages: bool = False, responses: bool = False) -> None:
        self._config = config
        self._kept: dict[tuple[str, bytes], Work] = {}
        self.paths = frozenset({"/v1/chat/completions", "/v1/completions", *(["/v1/embeddings"] if embeddings else [])})
        if messages:
            self.paths = frozenset({"/v1/messages"})
        elif responses:
            self.paths |= {"/v1/responses"}

    def read(self, path: str, raw: bytes) -> Work:
        """Return what ``raw``, sent to one of ``paths``, comes to; raises BadRequest."""
        work = self._kept.get((path, raw))
        if work is None:
            work = self._understood(path, raw)
            if len(raw) <= _LONGEST_KEPT:
                if len(self._kept) >= _MOST_KEPT:
                    self._kept.clear()
                self._kept[path, raw] = work
        return work

    def _understood(self, path: str, raw: bytes) -> Work:
        if path == "/v1/embeddings":
            embedding = decode(EMBEDDING, raw)
            _check_vector(embedding)
            return Work(embedding.model, _some(embedding.prompts()), [], embedding=embedding)
        request: ChatRequest | CompletionRequest
        asked: ResponsesRequest | None = None
        if path == "/v1/responses":
            asked = decode(RESPONSES, raw)
            request = asked.chat()
        elif path == "/v1/messages":
            request = decode(MESSAGES, raw).chat()
        else:
            request = decode(CHAT, raw) if path == "/v1/chat/completions" else decode(COMPLETION, raw)
        prompts = _some(request.prompts())
        options = request.stream_options
        return Work(
            request.model,
            prompts,
            compose(request, prompts, self._config),
            chat=isinstance(request, ChatRequest),
            stream=bool(request.stream),
            asked_usage=options is not None and bool(options.include_usage),
            continuous_usage=options is not None and bool(options.continuous_usage_stats),
            limit=request.limit,
            top=request.top,
            asked=asked,
        )


def _some(prompts: list[Prompt]) -> list[Prompt]:
    if not prompts:
        raise BadRequest("the list of inputs is empty", "prompt")
    return prompts


def _check_vector(body: EmbeddingRequest) -> None:
    if body.dimensions is not None and not 1 <= body.dimensions <= _LARGEST_VECTOR:
        raise BadRequest(f"dimensions must be between 1 and {_LARGEST_VECTOR}, got {body.dimensions}.", "dimensions")
    if body.encoding_format not in {None, "float", "base64"}:
        raise BadRequest("encoding_format must be 'float' or 'base64'", "encoding_format")
