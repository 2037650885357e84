"""Answers in OpenAI's Responses form, whole and streamed, understood as the chat form for the meter.

Every event and the whole answer go along as they are under ``NATIVE``, for the caller. Nothing here raises: what is
against the API's own rules, or says that it failed, is a ``Failure``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from gateway.engines.openai import OPENAI
from gateway.types.chunk import Chunk
from gateway.types.dialect import NATIVE
from gateway.types.failure import Cause, Failure
from gateway.upstream.openai import failure_from

_STATUSES: Final[Mapping[str, int]] = {
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "vector_store_timeout": 504,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "insufficient_quota": 402,
}
"""The status that goes with the code of an error inside a 200."""
_CUT_SHORT: Final[Mapping[str, str]] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_DELTAS: Final[Mapping[str, str]] = {
    "response.output_text.delta": "content",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
}
_ENDS: Final = frozenset({"response.completed", "response.incomplete"})
_SILENT: Final = frozenset({"message", "reasoning"})
"""Items whose beginning says nothing yet."""
_SPOKEN: Final = frozenset({"message", "function_call"})
"""Items that are said by their deltas; of the others the meter is told that there was something."""
_SHAPELESS: Final = Failure(Cause.MALFORMED, "an event of the backend is not one of its API", 200)
_NO_ANSWER: Final = Failure(Cause.MALFORMED, "the backend's answer has the wrong shape", 200)


class ResponsesTranslator:
    """See ``gateway.upstream.speech.Translator``."""

    __slots__ = ("_calls", "_id", "_waiting", "ended")

    def __init__(self) -> None:
        self._id = ""
        self._calls: dict[int, int] = {}
        self._waiting: list[dict[str, Any]] = []
        self.ended = False

    def event(self, document: dict[str, Any]) -> list[Chunk] | Failure:
        """Return the chunk that an event is."""
        try:
            chunk = self._said(document)
        except (KeyError, TypeError, AttributeError):
            return _SHAPELESS
        if isinstance(chunk, Failure):
            return chunk
        self._waiting.append(document)
        if chunk is None:
            return []  # what says nothing yet waits: a stream that breaks before it does can be begun anew elsewhere
        chunk[NATIVE], self._waiting = self._waiting, []
        return [chunk]

    def answer(self, document: dict[str, Any]) -> dict[str, Any] | Failure:
        """Return the canonical form of a whole answer."""
        if document.get("error") is not None or document.get("status") == "failed":
            return _failure(document)
        try:
            answer = _whole(document)
        except (KeyError, TypeError, AttributeError):
            return _NO_ANSWER
        answer[NATIVE] = document
        return answer

    def _said(self, document: dict[str, Any]) -> dict[str, Any] | Failure | None:
        kind = document.get("type") or ("error" if "error" in document else document["type"])
        name = _DELTAS.get(kind)
        if name is not None:
            return self._chunk({name: _text(document["delta"])})
        if kind == "response.function_call_arguments.delta":
            call = {"index": self._calls[document["output_index"]]}
            return self._chunk({"tool_calls": [{**call, "function": {"arguments": _text(document["delta"])}}]})
        if kind == "response.output_item.added":
            return self._begun(document["item"], document["output_index"])
        if kind == "response.created":
            self._id = _text(document["response"]["id"])
            return self._chunk({"role": "assistant", "content": ""})
        if kind in _ENDS:
            self.ended = True
            return self._end(document["response"])
        if kind in {"error", "response.failed"}:
            return _failure(document)
        if kind in {"response.in_progress", "response.queued", "response.content_part.added"}:
            return None
        if kind == "response.output_item.done" and document["item"]["type"] not in _SPOKEN:
            return self._chunk({"server_tool": document["item"]["type"]})
        if isinstance(document.get("delta"), str):
            return self._chunk({"content": document["delta"]})  # pieces of what has no name in the chat form
        return {"id": self._id, "choices": []}

    def _begun(self, item: Mapping[str, Any], place: int) -> dict[str, Any] | None:
        kind = item["type"]
        if kind == "function_call":
            index = self._calls[place] = len(self._calls)
            function = {"name": _text(item["name"]), "arguments": _text(item.get("arguments") or "")}
            call = {"index": index, "id": _text(item["call_id"]), "type": "function", "function": function}
            return self._chunk({"tool_calls": [call]})
        return None if kind in _SILENT else self._chunk({"server_tool": kind})

    def _end(self, response: Mapping[str, Any]) -> dict[str, Any]:
        choice = {"index": 0, "delta": {}, **_ending(response)}
        return {"id": self._id, "choices": [choice], "usage": usage_of(response.get("usage"))}

    def _chunk(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"id": self._id, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def _whole(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chat answer that says what the response ``document`` says, as far as it can."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    message: dict[str, Any] = {"role": "assistant", "content": None}
    for item in document["output"]:
        kind = item["type"]
        if kind == "message":
            for part in item["content"]:
                if part["type"] == "refusal":
                    message["refusal"] = _text(part["refusal"])
                else:
                    texts.append(_text(part["text"]))
        elif kind == "reasoning":
            thoughts += [_text(part["text"]) for part in (*(item.get("summary") or ()), *(item.get("content") or ()))]
        elif kind == "function_call":
            function = {"name": _text(item["name"]), "arguments": _text(item["arguments"])}
            calls.append({"id": _text(item["call_id"]), "type": "function", "function": function})
        else:
            message["server_tool"] = kind
    if texts:
        message["content"] = "".join(texts)
    if thoughts:
        message["reasoning"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return {
        "id": _text(document["id"]),
        "created": int(time.time()),
        "choices": [{"index": 0, "message": message, "logprobs": None, **_ending(document)}],
        "usage": usage_of(document.get("usage")),
        "system_fingerprint": None,
    }


def _ending(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a choice that say why it ended. Raises ``TypeError`` for a response that has not."""
    status = response["status"]
    if type(response["output"]) is not list:
        raise TypeError
    if status == "completed":
        called = any(item["type"] == "function_call" for item in response["output"])
        return {"finish_reason": "tool_calls" if called else "stop", "native_finish_reason": status}
    if status != "incomplete":
        raise TypeError
    reason = (response.get("incomplete_details") or {}).get("reason")
    return {"finish_reason": _CUT_SHORT.get(str(reason), "length"), "native_finish_reason": str(reason or status)}


def usage_of(usage: object) -> dict[str, Any]:
    """Return ``usage`` of a response in the chat form."""
    counts = usage if isinstance(usage, dict) else {}
    said = {
        "prompt_tokens": counts.get("input_tokens"),
        "completion_tokens": counts.get("output_tokens"),
        "total_tokens": counts.get("total_tokens"),
    }
    for name, details in (("prompt", "input"), ("completion", "output")):
        found = counts.get(f"{details}_tokens_details")
        if isinstance(found, dict):
            said[f"{name}_tokens_details"] = found
    return said


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _failure(document: Mapping[str, Any]) -> Failure:
    """Translate an ``error`` event, a response that failed, or an error body."""
    inner = document.get("response")
    error = inner.get("error") if isinstance(inner, dict) else document.get("error")
    shown = error if isinstance(error, dict) else document
    code = shown.get("code")
    status = _STATUSES.get(code, 500) if isinstance(code, str) else 500
    return failure_from(OPENAI, status, None, {"error": dict(shown)})
