"""Answers in Anthropic's messages, whole and streamed, understood as the chat form.

Text, thoughts with their signatures, tool calls, stop reasons and usage by class become their canonical counterparts;
``DROPPED`` names what has none. For a caller who speaks messages too, every event and the whole answer go along as
they are under ``NATIVE``. Nothing here raises: what is against the API's own rules is a ``Failure``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.engines.anthropic import ANTHROPIC
from gateway.types.chunk import Chunk, TextChoice, TextChunk, TextDelta
from gateway.types.dialect import NATIVE
from gateway.types.failure import Cause, Failure
from gateway.types.messages import FINISH_REASONS, REASONING_FORMAT
from gateway.upstream.openai import failure_from

DROPPED: Final[Mapping[str, str]] = {
    "citations": "answers of the chat form have no place for passages of documents",
    "server_tool_use": "tools that the provider runs are asked for in messages only, as are their results",
    "container": "what tools of the provider left behind",
    "pause_turn": "it is said as `stop`, with `pause_turn` as the native reason",
    "stop_details": "the chat form has no details of a refusal",
    "usage.server_tool_use": "the chat form counts no uses of tools",
}
"""What an answer can say and the chat form cannot; callers who speak messages get it all."""

_STATUSES: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status that goes with an error's type, for errors that come inside a 200."""
_SHAPELESS: Final = Failure(Cause.MALFORMED, "an event of the backend is not one of its API", 200)
_NO_ANSWER: Final = Failure(Cause.MALFORMED, "the backend's answer has the wrong shape", 200)
_NO_CHUNKS: Final[list[Chunk]] = []
_encode: Final = msgspec.json.Encoder().encode


class MessagesTranslator:
    """See ``gateway.upstream.speech.Translator``.

    Args:
        native: whether the caller speaks messages, too, and gets the original.
        hides: whether the caller wants no reasoning.
    """

    __slots__ = (
        "_block",
        "_calls",
        "_hides",
        "_id",
        "_native",
        "_silent_call",
        "_thoughts",
        "_usage",
        "_waiting",
        "ended",
    )

    def __init__(self, *, native: bool, hides: bool) -> None:
        self._native = native
        self._hides = hides
        self._id = ""
        self._usage: dict[str, Any] = {}
        self._block: Any = None
        self._calls = -1
        self._thoughts = -1
        self._silent_call = False
        self._waiting: list[dict[str, Any]] = []
        self.ended = False

    def event(self, document: dict[str, Any]) -> list[Chunk] | Failure:
        """Return the chunks that an event is."""
        try:
            chunks = self._said(document)
        except (KeyError, TypeError, AttributeError):
            return _SHAPELESS
        return self._with_original(chunks, document) if self._native and not isinstance(chunks, Failure) else chunks

    def answer(self, document: dict[str, Any]) -> dict[str, Any] | Failure:
        """Return the canonical form of a whole answer."""
        if document.get("type") == "error" or "error" in document:
            return _failure(document)
        try:
            answer = self._whole(document)
        except (KeyError, TypeError, AttributeError):
            return _NO_ANSWER
        if self._native:
            answer[NATIVE] = document
        return answer

    def _said(self, document: dict[str, Any]) -> list[Chunk] | Failure:
        kind = document["type"]
        if kind == "content_block_delta":
            return self._delta(document["delta"])
        if kind == "content_block_start":
            return self._start(document["content_block"])
        if kind == "content_block_stop":
            silent, self._silent_call = self._silent_call, False
            return [self._call({"arguments": "{}"})] if silent else _NO_CHUNKS
        if kind == "message_start":
            message = document["message"]
            identity = message.get("id")
            self._id = identity if isinstance(identity, str) else ""
            self._count(message.get("usage"))
            opening = self._chunk({"role": "assistant", "content": ""})
            opening["usage"] = {**usage_of(self._usage), "completion_tokens": 0}
            return [opening]
        if kind == "message_delta":
            self._count(document.get("usage"))
            return [self._end(document["delta"])]
        if kind == "message_stop":
            self.ended = True
        elif kind == "error":
            return _failure(document)
        elif type(kind) is not str:
            raise TypeError
        return _NO_CHUNKS  # a ping, or what was not there when this was written

    def _delta(self, delta: dict[str, Any]) -> list[Chunk]:
        kind = delta["type"]
        if kind == "text_delta":
            text = delta["text"]
            if type(text) is not str:  # no call, as this is the event there are most of
                raise TypeError
            if self._native:
                return [self._chunk({"content": text})]
            return [TextChunk((TextChoice(TextDelta(content=text)),), self._id)]
        if kind == "input_json_delta":
            text = _text(delta["partial_json"])
            if not text or self._block != "tool_use":
                return _NO_CHUNKS  # the tools of the provider are no calls for the caller to make
            self._silent_call = False
            return [self._call({"arguments": text})]
        if kind == "thinking_delta":
            text = _text(delta["thinking"])
            return self._thought({"type": "reasoning.text", "text": text}, text)
        if kind == "signature_delta":
            return self._thought({"type": "reasoning.text", "signature": _text(delta["signature"])}, None)
        return _NO_CHUNKS

    def _start(self, block: dict[str, Any]) -> list[Chunk]:
        kind = self._block = block["type"]
        if kind == "tool_use":
            self._calls += 1
            given = block.get("input")
            self._silent_call = not given
            function = {"name": _text(block["name"]), "arguments": _encode(given).decode() if given else ""}
            return [self._call(function, {"id": _text(block["id"]), "type": "function"})]
        if kind == "thinking":
            self._thoughts += 1
            text = block.get("thinking")
            return self._thought({"type": "reasoning.text", "text": _text(text)}, text) if text else _NO_CHUNKS
        if kind == "redacted_thinking":
            self._thoughts += 1
            return self._thought({"type": "reasoning.encrypted", "data": _text(block["data"])}, None)
        if kind == "text" and block.get("text"):
            return [self._chunk({"content": str(block["text"])})]
        return _NO_CHUNKS

    def _thought(self, detail: dict[str, Any], text: str | None) -> list[Chunk]:
        if self._hides:
            return _NO_CHUNKS
        detail["format"] = REASONING_FORMAT
        detail["index"] = self._thoughts
        delta: dict[str, Any] = {"reasoning_details": [detail]}
        if text:
            delta["reasoning"] = text
        return [self._chunk(delta)]

    def _call(self, function: dict[str, Any], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        call = {"index": self._calls, **(more or {}), "function": function}
        return self._chunk({"tool_calls": [call]})

    def _chunk(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"id": self._id, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}

    def _end(self, delta: Mapping[str, Any]) -> dict[str, Any]:
        choice = {"index": 0, "delta": {}, **_ending(delta)}
        return {"id": self._id, "choices": [choice], "usage": usage_of(self._usage)}

    def _count(self, usage: object) -> None:
        """Take a report of usage: each is of all so far, and leaves out what it does not know."""
        if isinstance(usage, dict):
            self._usage |= {name: value for name, value in usage.items() if value is not None}

    def _with_original(self, chunks: list[Chunk], document: dict[str, Any]) -> list[Chunk]:
        """Give the event to the first of its chunks; a block that says nothing yet waits until it does.

        So a stream that breaks before it says anything can be begun anew elsewhere.
        """
        document.pop(NATIVE, None)
        self._waiting.append(document)
        if not chunks:
            block = document.get("content_block")
            if isinstance(block, dict) and block.get("type") in ("text", "thinking"):
                return chunks
            chunks = [{"id": self._id, "choices": []}]
        first = chunks[0]
        assert isinstance(first, dict)
        first[NATIVE], self._waiting = self._waiting, []
        return chunks

    def _whole(self, document: dict[str, Any]) -> dict[str, Any]:
        texts: list[str] = []
        details: list[dict[str, Any]] = []
        calls: list[dict[str, Any]] = []
        for block in document["content"]:
            kind = block["type"]
            if kind == "text":
                texts.append(_text(block["text"]))
            elif kind == "thinking":
                detail = {"type": "reasoning.text", "text": _text(block["thinking"])}
                if block.get("signature"):
                    detail["signature"] = _text(block["signature"])
                details.append({**detail, "format": REASONING_FORMAT, "index": len(details)})
            elif kind == "redacted_thinking":
                detail = {"type": "reasoning.encrypted", "data": _text(block["data"])}
                details.append({**detail, "format": REASONING_FORMAT, "index": len(details)})
            elif kind == "tool_use":
                function = {"name": _text(block["name"]), "arguments": _encode(block["input"]).decode()}
                calls.append({"id": _text(block["id"]), "type": "function", "function": function})
        message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
        if details and not self._hides:
            thoughts = "".join(detail["text"] for detail in details if "text" in detail)
            if thoughts:
                message["reasoning"] = thoughts
            message["reasoning_details"] = details
        if calls:
            message["tool_calls"] = calls
        ending = _ending(document)
        if ending["finish_reason"] is None:
            raise TypeError
        return {
            "id": document.get("id"),
            "created": int(time.time()),
            "choices": [{"index": 0, "message": message, "logprobs": None, **ending}],
            "usage": usage_of(document.get("usage")),
            "system_fingerprint": None,
        }


def _ending(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a choice that say why it ended."""
    reason = document.get("stop_reason")
    if reason is None:
        return {"finish_reason": None}
    ending = {"finish_reason": FINISH_REASONS.get(reason, "stop"), "native_finish_reason": reason}
    if isinstance(document.get("stop_sequence"), str):
        ending["stop_reason"] = document["stop_sequence"]
    return ending


def usage_of(usage: object) -> dict[str, Any]:
    """Return ``usage`` in the chat form, where the tokens of the cache are part of the prompt."""
    counts = usage if isinstance(usage, dict) else {}
    read, written = _number(counts.get("cache_read_input_tokens")), _number(counts.get("cache_creation_input_tokens"))
    prompt = _number(counts.get("input_tokens")) + read + written
    completion = _number(counts.get("output_tokens"))
    said: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if read or written:
        said["prompt_tokens_details"] = {"cached_tokens": read, "cache_write_tokens": written}
        kept = counts.get("cache_creation")
        if isinstance(kept, dict) and (hour := _number(kept.get("ephemeral_1h_input_tokens"))):
            said["prompt_tokens_details"]["cache_write_1h_tokens"] = hour
    details = counts.get("output_tokens_details")
    if isinstance(details, dict):
        thoughts = _number(details.get("thinking_tokens")) or _number(details.get("reasoning_tokens"))
        if thoughts:
            said["completion_tokens_details"] = {"reasoning_tokens": thoughts}
    return said


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _number(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


def _failure(document: Mapping[str, Any]) -> Failure:
    error = document.get("error")
    kind = error.get("type") if isinstance(error, dict) else None
    return failure_from(ANTHROPIC, _STATUSES.get(kind, 500) if isinstance(kind, str) else 500, None, document)
