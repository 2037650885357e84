"""Folding stream chunks into a whole answer, and unfolding a whole answer into chunks.

Needed where the caller and the engine differ: llama.cpp is always streamed because a cancelled whole answer would run
on, and some engines answer a stream request with JSON. Both directions keep text, tool calls, log probabilities,
refusals and reasons exactly; unknown members of the last chunk or answer are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.types.call import Operation
from gateway.types.chunk import Chunk, TextChunk
from gateway.types.dialect import NATIVE

_FOLDED: Final = frozenset({"index", "delta", "text", "logprobs", "message"})
"""Members of a chunk's choice that are put together; a ``message``, which some send at the end, says them again."""

_APART: Final = frozenset({"choices", "usage", NATIVE})
"""Members of an answer that no chunk of it has as they are."""


_CALLED: Final = frozenset({"function", "custom"})
"""Members of a tool call of which each chunk says a piece: arguments as JSON, or a custom tool's input as it is."""
_PARTLY: Final[Mapping[str, frozenset[str]]] = {
    "function_call": frozenset({"name", "arguments"}),
    "audio": frozenset({"data", "transcript"}),
}
"""Members of a message that are objects, and what of them grows; the rest is said anew, like the id of audio."""


class _Pieces(list[str]):
    """Text that grows; joined once, at the end, since adding to a long text copies it each time."""


_TEXT_MEMBERS: Final = ("content", "reasoning_content", "reasoning", "refusal")


class Folder:
    """Collects canonical chunks of one answer."""

    __slots__ = ("_choices", "_last", "_operation")

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._choices: dict[int, dict[str, Any]] = {}
        self._last: dict[str, Any] = {}

    def feed(self, chunks: list[Chunk]) -> None:
        """Take chunks in the order they came."""
        for part in chunks:
            chunk = _members(part) if isinstance(part, TextChunk) else part
            self._last = {**self._last, **{name: value for name, value in chunk.items() if name != "choices"}}
            for piece in chunk["choices"]:
                choice = self._choices.setdefault(piece["index"], {"index": piece["index"]})
                if self._operation is Operation.CHAT:
                    _fold_delta(choice.setdefault("message", {"role": "assistant", "content": None}), piece["delta"])
                else:
                    choice["text"] = _grown(choice.get("text"), piece["text"])
                _fold_logprobs(choice, piece.get("logprobs"))
                for name, value in piece.items():
                    if name not in _FOLDED and value is not None:
                        choice[name] = value

    def answer(self) -> dict[str, Any]:
        """Return the whole answer in OpenAI's shape."""
        chat = self._operation is Operation.CHAT
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            choice.setdefault("finish_reason", None)
            choice.setdefault("logprobs", None)
            _join(choice)
            message = choice.get("message", {})
            for members in (message, *(message.get(name) for name in _PARTLY)):
                _join(members)
            for call in message.get("tool_calls", ()):
                _complete_call(call)
        self._last.pop("usage", None)
        self._last.pop(NATIVE, None)
        return {
            **self._last,
            "object": "chat.completion" if chat else "text_completion",
            "choices": choices,
            "system_fingerprint": self._last.get("system_fingerprint"),
        }


def _members(chunk: TextChunk) -> dict[str, Any]:
    """Return a text chunk as the dictionary that says the same."""
    choice = chunk.choices[0]
    head = {"id": chunk.id, "created": chunk.created, "system_fingerprint": chunk.system_fingerprint}
    members: dict[str, Any] = {name: value for name, value in head.items() if value}
    members["choices"] = [{"index": choice.index, "delta": msgspec.to_builtins(choice.delta)}]
    return members


def _fold_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            _fold_calls(message.setdefault("tool_calls", []), value)
        elif name in _TEXT_MEMBERS and (value is None or isinstance(value, str)):
            known = message.get(name)
            if value is not None:
                message[name] = _grown(known, value)
        elif name == "role":
            message["role"] = value or "assistant"
        elif name in _PARTLY and isinstance(value, dict) and isinstance(whole := message.setdefault(name, {}), dict):
            for member, text in value.items():
                whole[member] = _grown(whole.get(member), text) if member in _PARTLY[name] else text
        elif isinstance(value, list) and isinstance(message.get(name), list):
            message[name] = message[name] + value
        else:
            message[name] = value


def _grown(known: Any, value: Any) -> Any:
    """Return ``known`` with ``value`` behind it where both are text, else ``value``."""
    if not isinstance(value, str) or not isinstance(known, str | _Pieces):
        return value
    pieces = known if isinstance(known, _Pieces) else _Pieces((known,))
    pieces.append(value)
    return pieces


def _join(members: Any) -> None:
    """Make texts of the pieces in an object, in place."""
    for name, value in members.items() if isinstance(members, dict) else ():
        if type(value) is _Pieces:
            members[name] = "".join(value)


def _fold_calls(calls: list[dict[str, Any]], parts: list[dict[str, Any]]) -> None:
    for part in parts:
        call = next((call for call in calls if call["index"] == part["index"]), None)
        if call is None:
            call = {"index": part["index"], "id": "", "type": "function"}
            calls.append(call)
        for name, value in part.items():
            if name in _CALLED and isinstance(value, dict):
                called = call.setdefault(name, {})
                for member, text in value.items():
                    called[member] = _grown(called.get(member), text)
            elif name != "index":
                call[name] = value


def _complete_call(call: dict[str, Any]) -> None:
    """Make a whole call of one that was put together, in place; a function has a name and arguments, if empty ones."""
    call.pop("index", None)
    if call["type"] == "function":
        call["function"] = {"name": "", "arguments": "", **call.get("function", {})}
    for name in _CALLED & call.keys():
        _join(call[name])


def _fold_logprobs(choice: dict[str, Any], logprobs: Any) -> None:
    if not isinstance(logprobs, dict):
        return
    known = choice.get("logprobs")
    if not isinstance(known, dict):
        choice["logprobs"] = dict(logprobs)
        return
    for name, value in logprobs.items():
        if isinstance(value, list) and isinstance(known.get(name), list):
            known[name].extend(value)
        elif known.get(name) is None:
            known[name] = value


def unfold(answer: dict[str, Any], operation: Operation) -> list[Chunk]:
    """Return the chunks of a stream that says what a whole canonical ``answer`` says."""
    chat = operation is Operation.CHAT
    head = {name: value for name, value in answer.items() if name not in _APART and value is not None}
    head["object"] = "chat.completion.chunk" if chat else "text_completion"
    chunks: list[Chunk] = []
    for choice in answer["choices"]:
        last = {name: value for name, value in choice.items() if name not in {"message", "text", "logprobs"}}
        part = {"index": choice["index"], "finish_reason": None}
        if choice.get("logprobs") is not None:
            part["logprobs"] = choice["logprobs"]
        if chat:
            delta = dict(choice["message"])
            if "tool_calls" in delta:
                delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(delta["tool_calls"])]
            chunks.append({**head, "choices": [{**part, "delta": delta}]})
            chunks.append({**head, "choices": [{**last, "delta": {}}]})
        else:
            chunks.append({**head, "choices": [{**part, **last, "text": choice["text"]}]})
    if answer.get("usage"):
        chunks.append({**head, "choices": [], "usage": answer["usage"]})
    return chunks
