"""The API that vLLM, TGI, SGLang, llama.cpp and most external providers speak, read strictly and mended once.

What leaves this module is canonical: the shape OpenAI documents, without the nulls and gaps that strict clients
reject (``reference`` names in ``docs/compatibility.md``). Errors of engines become ``Failure``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.engines.kind import Engine
from gateway.types.call import Operation
from gateway.types.failure import Cause, Failure

FINISH_REASONS: Final[Mapping[str, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
    "function_call": "tool_calls",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "abort": "error",
    "timeout": "error",
}
"""Finish reasons of engines, as OpenAI and OpenRouter name them; others are passed on as they are."""

_decoder: Final = msgspec.json.Decoder()
_NUMBER: Final = re.compile(r"\d+")
_RETRY_STATUSES: Final = frozenset({408, 409, 425, 429})


def decode(payload: bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``payload``, or None when it is not one."""
    try:
        value = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if type(value) is dict else None


def is_error(body: Mapping[str, Any]) -> bool:
    """Whether a decoded answer or event is an error in disguise."""
    return body.get("error") is not None or (body.get("object") == "error" and "message" in body)


def mend_chunk(chunk: dict[str, Any], operation: Operation) -> bool:
    """Bring a stream chunk into canonical form, in place. Returns False when it is not a chunk at all."""
    choices = chunk.get("choices")
    if type(choices) is not list:
        return False
    if chunk.get("system_fingerprint", "") is None:
        del chunk["system_fingerprint"]
    if chunk.get("usage", "") is None:
        del chunk["usage"]
    chat = operation is Operation.CHAT
    for choice in choices:
        if type(choice) is not dict:
            return False
        choice.setdefault("index", 0)
        if chat:
            delta = choice.get("delta")
            if type(delta) is not dict:
                delta = choice["delta"] = {}
            _drop_nulls(delta, streamed=True)
        elif type(choice.get("text")) is not str:
            choice["text"] = ""
        reason = choice.setdefault("finish_reason", None)
        if reason is not None:
            choice["finish_reason"] = FINISH_REASONS.get(reason, reason)
            choice["native_finish_reason"] = reason
    return True


def mend_answer(answer: dict[str, Any], operation: Operation) -> bool:
    """Bring a whole answer into canonical form, in place. Returns False when it is not an answer at all."""
    if operation is Operation.EMBEDDINGS:
        answer["object"] = "list"
        return type(answer.get("data")) is list
    choices = answer.get("choices")
    if type(choices) is not list or not choices:
        return False
    for name in [name for name, value in answer.items() if value is None]:
        del answer[name]
    answer["system_fingerprint"] = answer.get("system_fingerprint")
    for index, choice in enumerate(choices):
        if type(choice) is not dict:
            return False
        for name in [name for name, value in choice.items() if value is None]:
            del choice[name]
        choice.setdefault("index", index)
        choice.setdefault("logprobs", None)
        if operation is Operation.CHAT:
            message = choice.get("message")
            if type(message) is not dict:
                return False
            message.setdefault("role", "assistant")
            message.setdefault("content", None)
            _drop_nulls(message, streamed=False)
        elif type(choice.get("text")) is not str:
            choice["text"] = ""
        reason = choice.setdefault("finish_reason", None)
        if reason is not None:
            choice["finish_reason"] = FINISH_REASONS.get(reason, reason)
            choice["native_finish_reason"] = reason
    return True


def _drop_nulls(message: dict[str, Any], *, streamed: bool) -> None:
    """Leave out null members that clients reject; ``content`` and ``refusal`` may be null."""
    if None in message.values():
        for name in [name for name, value in message.items() if value is None and name not in {"content", "refusal"}]:
            del message[name]
    calls = message.get("tool_calls")
    if calls is not None:
        if type(calls) is not list or not calls:
            del message["tool_calls"]
            return
        for index, call in enumerate(calls):
            if type(call) is dict:
                if streamed:
                    call.setdefault("index", index)
                _drop_call_nulls(call)


def _drop_call_nulls(call: dict[str, Any]) -> None:
    for name in [name for name, value in call.items() if value is None]:
        del call[name]
    function = call.get("function")
    if type(function) is dict:
        for name in [name for name, value in function.items() if value is None]:
            del function[name]


def failure_of(engine: Engine, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Failure:
    """Translate an engine's error answer (any status but 200, or an error inside a 200)."""
    document = decode(body) or {}
    message, detail = _engine_error(document, body)
    retry_after = _retry_after(headers)
    if status == 200:
        status = _status_inside(document)
    if status in engine.overload_statuses:
        return Failure(Cause.OVERLOADED, message or "the backend is full", status, retry_after, detail=detail)
    if 400 <= status < 500 and status not in _RETRY_STATUSES:
        if status in {401, 403, 404, 405, 407}:
            # Our credentials or our configuration are wrong there, not the caller's request.
            return Failure(Cause.ERROR, message or "the backend refused the gateway", status, detail=detail)
        lowered = message.lower()
        if any(words in lowered for words in engine.context_error) or "exceed_context" in str(detail.get("type")):
            detail["error_type"] = "context_length_exceeded"
            detail.setdefault("numbers", [int(number) for number in _NUMBER.findall(message)][:4])
        return Failure(Cause.REFUSED, message or "the backend refused the request", status, detail=detail)
    return Failure(Cause.ERROR, message or f"the backend answered {status}", status, retry_after, detail=detail)


def error_event(engine: Engine, body: dict[str, Any]) -> Failure:
    """Translate an error that came as a stream event or as the body of a 200."""
    return failure_of(engine, 200, [], msgspec.json.encode(body))


def _engine_error(document: Mapping[str, Any], body: bytes) -> tuple[str, dict[str, Any]]:
    """Return the engine's message and the facts worth passing on; engines differ in where they put them."""
    error = document.get("error", document)
    if isinstance(error, str):
        kind = document.get("error_type")
        return error[:2000], {"type": kind} if isinstance(kind, str) else {}
    if not isinstance(error, Mapping):
        return "", {}
    message = error.get("message") or error.get("detail") or ""
    if not document and body:
        message = ""  # not JSON: an HTML page or a proxy's text is of no use to a caller
    detail = {
        name: error[name]
        for name in ("type", "param", "n_prompt_tokens", "n_ctx")
        if isinstance(error.get(name), str | int)
    }
    return (message if isinstance(message, str) else str(message))[:2000], detail


def _status_inside(document: Mapping[str, Any]) -> int:
    """Return the status an error inside a 200 claims, 500 when it claims none."""
    error = document.get("error", document)
    code = error.get("code") if isinstance(error, Mapping) else None
    if isinstance(code, str) and code.isdigit():
        code = int(code)
    return code if isinstance(code, int) and 400 <= code <= 599 else 500


def _retry_after(headers: list[tuple[bytes, bytes]]) -> float | None:
    for name, value in headers:
        if name == b"retry-after" and value.isdigit():
            return float(min(int(value), 3600))
    return None
