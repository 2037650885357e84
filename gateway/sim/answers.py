"""What a simulated engine will say to one request, decided whole before the first token leaves.

One piece is one token and one streamed chunk, so the count of an answer is known exactly at every moment. A tool call
starts with one piece that carries its name; the arguments follow piece by piece. The engine calls a tool when the
request has ``tools`` and ``tool_choice`` asks for one, or when the last user message contains the word "tool".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import msgspec

from gateway.sim import text
from gateway.sim.config import SimConfig
from gateway.sim.instances import instance
from gateway.sim.requests import ChatRequest, CompletionRequest, Function, Generation
from gateway.sim.text import Prompt


@dataclass(slots=True)
class ToolCall:
    """The head of a tool call; its arguments are the pieces of the choice after the first."""

    id: str
    name: str


@dataclass(slots=True)
class Choice:
    """One of the answers to a request.

    Attributes:
        index: its place in ``choices``.
        pieces: its tokens.
        finish: "stop", "length" or "tool_calls".
        stop_reason: the stop string that ended it, if one did.
        reasoning: how many of the first pieces are reasoning.
        tool: the call it makes, or None for text.
    """

    index: int
    pieces: Sequence[str]
    finish: str
    stop_reason: str | None = None
    reasoning: int = 0
    tool: ToolCall | None = None
    _encoded: list[bytes] | None = None

    def encoded(self) -> list[bytes]:
        """Return the pieces as JSON strings."""
        if self._encoded is None:
            self._encoded = [msgspec.json.encode(piece) for piece in self.pieces]
        return self._encoded

    @property
    def content(self) -> str:
        """The text, or the arguments of the tool call, without the reasoning."""
        return "".join(self.pieces[self.reasoning :])

    @property
    def thoughts(self) -> str:
        """The reasoning text."""
        return "".join(self.pieces[: self.reasoning])


@dataclass(slots=True)
class Answer:
    """Everything there is to say about one generation request.

    ``prompt_sizes`` are the tokens of each prompt, ``prompt_tokens`` is their sum. ``cached_tokens`` is known once the
    request has left the queue. ``top`` is the number of alternatives per token, None when log-probabilities were not
    asked for. ``rendered`` is the ``choices`` of a whole answer as JSON, where it is known already.
    """

    id: str
    created: int
    model: str
    chat: bool
    choices: list[Choice]
    prompt_tokens: int
    prompt_sizes: Sequence[int]
    cached_tokens: int = 0
    top: int | None = None
    rendered: msgspec.Raw | None = None

    def own_prompt(self, choice: Choice) -> int:
        """Return the tokens of the prompt that ``choice`` answers; every prompt has as many choices."""
        return self.prompt_sizes[choice.index * len(self.prompt_sizes) // len(self.choices)]

    def produced(self, steps: int) -> int:
        """Return the completion tokens of all choices after ``steps`` decode steps."""
        if len(self.choices) == 1:
            length = len(self.choices[0].pieces)
            return min(steps, length)
        return sum([min(len(choice.pieces), steps) for choice in self.choices])

    def reasoned(self, steps: int) -> int:
        """Return how many of those were reasoning."""
        if len(self.choices) == 1:
            length = self.choices[0].reasoning
            return min(steps, length)
        return sum([min(choice.reasoning, steps) for choice in self.choices])


def compose(request: ChatRequest | CompletionRequest, prompts: Sequence[Prompt], config: SimConfig) -> list[Choice]:
    """Return the choices for ``request``; raises BadRequest when a named tool does not exist."""
    choices: list[Choice] = []
    for prompt in prompts:
        begun = isinstance(request, ChatRequest) and request.begun
        asked = request.before() if begun and isinstance(request, ChatRequest) else prompt
        digest = asked.digest(config.seed ^ (request.seed or 0))
        room = max(1, config.context_length - prompt.tokens)
        limit = room if request.limit is None else min(room, request.limit)
        function = request.wanted_function() if isinstance(request, ChatRequest) else None
        for number in range(request.choices):
            own = digest if number == 0 else crc32(number.to_bytes(4, "big"), digest)
            index = len(choices)
            if function is not None:
                choices.append(_call(function, index, own, limit))
            else:
                choices.append(_words(request, index, own, limit, config))
    return choices


def _call(function: Function, index: int, digest: int, limit: int) -> Choice:
    value = instance(function.parameters) if function.parameters else {}
    pieces = ("", *text.split(msgspec.json.encode(value).decode()))
    finish = "tool_calls" if len(pieces) <= limit else "length"
    return Choice(index, pieces[:limit], finish, tool=ToolCall(f"call_{digest:08x}{index:04x}", function.name))


def _words(request: Generation, index: int, digest: int, limit: int, config: SimConfig) -> Choice:
    begun = request.begun if isinstance(request, ChatRequest) else ""
    reasoning = config.reasoning_tokens if isinstance(request, ChatRequest) and not begun else 0
    if request.response_format is not None and request.response_format.is_json:
        content: Sequence[str] = text.split(msgspec.json.encode(_structured(request, digest)).decode())
    else:
        room = limit - reasoning + (text.count(begun) if begun else 0)
        content = _after(begun, text.pieces(digest, _natural(request, digest, room, config)))
    stopped = _stopped(content, request.stops)
    pieces = tuple(text.pieces(digest + 1, reasoning)) + tuple(stopped[0])
    if len(pieces) > limit:
        return Choice(index, pieces[:limit], "length", reasoning=min(reasoning, limit))
    if stopped[1] is None and request.ignore_eos and len(pieces) == limit:
        return Choice(index, pieces, "length", reasoning=reasoning)
    return Choice(index, pieces, "stop", stopped[1], reasoning=reasoning)


def _after(begun: str, pieces: Sequence[str]) -> Sequence[str]:
    """Return what of ``pieces`` comes behind ``begun``; all of them when it does not begin so."""
    whole = "".join(pieces)
    if not begun or not whole.startswith(begun):
        return pieces
    left = len(begun)
    for place, piece in enumerate(pieces):
        if left < len(piece):
            return (piece[left:], *pieces[place + 1 :])
        left -= len(piece)
    return ()


def _natural(request: Generation, digest: int, limit: int, config: SimConfig) -> int:
    """Return the tokens of plain text the model would write; one more than ``limit`` stands for any beyond it."""
    if request.ignore_eos:
        return max(0, limit)
    length = config.answer_tokens
    if config.answer_tokens_max is not None:
        length += digest % (config.answer_tokens_max - config.answer_tokens + 1)
    return max(0, min(max(length, request.min_tokens or 0), limit + 1))


def _structured(request: Generation, digest: int) -> object:
    wanted = request.response_format
    if wanted is None or wanted.schema is None:
        return {"answer": "".join(text.pieces(digest, 6))}
    return instance(wanted.schema)


def _stopped(pieces: Sequence[str], stops: Sequence[str]) -> tuple[Sequence[str], str | None]:
    """Return the pieces up to the first stop string and that string; the token that completes it counts as produced."""
    if not stops:
        return pieces, None
    whole = "".join(pieces)
    found = [(at, stop) for stop in stops if (at := whole.find(stop)) >= 0]
    if not found:
        return pieces, None
    at, stop = min(found)
    kept: list[str] = []
    before = 0
    for piece in pieces:
        kept.append(piece[: max(0, at - before)])
        before += len(piece)
        if before >= at + len(stop):
            break
    return kept, stop
