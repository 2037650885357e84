"""The API that vLLM, TGI, SGLang, llama.cpp and most external providers speak, read strictly and mended once.

What leaves this module is canonical: the shape OpenAI documents, without the nulls and gaps that strict clients
reject. Errors of engines become ``Failure``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.engines.kind import Engine
from gateway.telemetry.redaction import redact
from gateway.types.call import Operation
from gateway.types.chunk import TextChunk
from gateway.types.failure import Cause, Failure
from gateway.upstream import halves
from gateway.upstream.blame import lacks_model, lacks_path, refusal, status_inside
from gateway.upstream.call_numbers import complete_call

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

_NULLED: Final = ("usage", "system_fingerprint", "service_tier", "error")
"""Members of a chunk that engines send as null and strict clients reject."""
_decoder: Final = msgspec.json.Decoder()
decode_text: Final = msgspec.json.Decoder(TextChunk).decode
"""Returns the chunk in a payload that holds a piece of text and nothing to mend; raises one of ``UNREADABLE`` else."""
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_STATUS: Final = re.compile("[45][0-9][0-9]")
_COMPLAINTS: Final = 8
"""Complaints of an error that are told; one malformed request can have thousands."""
_CREDENTIALS: Final = frozenset({401, 403, 407})
_ADDRESS: Final = re.compile(
    r"""(?ix)
    (?:\b[a-z][a-z0-9+.-]{0,15}://)? (?:
        (?<![\d.]) \d{1,3} (?:\.\d{1,3}){3} (?![\d.])
        | \[[0-9a-f:.]*:[0-9a-f:.]*\]
        | (?<![\w.-]) (?:localhost | [\w-]+ (?:\.[\w-]+)* \.(?:internal|local|lan|svc(?:\.[\w.-]+)?)) (?![\w-])
    ) (?::\d{1,5})? (?:(?<=\d)/[^\s"'<>)]*)?
    """
)
"""Where a machine of the operator's is: addresses, and names that only the operator's network knows."""
_RETRY_STATUSES: Final = frozenset({408, 409, 424, 425, 429})
"""Statuses of what may go well elsewhere, or later; with 424 TGI says that a generation failed."""
OURS: Final = frozenset({401, 402, 403, 404, 405, 407})
"""Statuses that concern the gateway's standing with a backend."""


def decode(payload: bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``payload``, or None when it is not one."""
    try:
        value = _decoder.decode(payload)
    except UNREADABLE:
        return None
    return value if type(value) is dict else None


def decode_mended(payload: bytes) -> dict[str, Any] | None:
    """As ``decode``, also where half a character makes it no text; see ``gateway.upstream.halves``."""
    value = decode(payload)
    return value if value is not None else halves.whole(payload)


def decode_ranking(payload: bytes) -> dict[str, Any] | None:
    """As ``decode``, of a ranking, which SGLang sends as a bare list of results."""
    try:
        value = _decoder.decode(payload)
    except UNREADABLE:
        return None
    if type(value) is list:
        return {"results": value}
    return value if type(value) is dict else None


def is_error(body: Mapping[str, Any]) -> bool:
    """Whether a decoded answer or event is an error in disguise."""
    return body.get("error") is not None or (body.get("object") == "error" and "message" in body)


def mend_chunk(chunk: dict[str, Any], operation: Operation) -> bool:
    """Bring a stream chunk into canonical form, in place. Returns False when it is not a chunk at all."""
    choices = chunk.get("choices")
    if type(choices) is not list:
        return _mend_report(chunk)
    for name in _NULLED:
        if chunk.get(name, "") is None:
            del chunk[name]
    if "x_groq" in chunk and "usage" not in chunk:
        _mend_usage(chunk)
    chat = operation is Operation.CHAT
    for choice in choices:
        if type(choice) is not dict:
            return False
        index = choice.get("index")
        if type(index) is not int:
            if index is not None:
                return False
            choice["index"] = 0
        if chat:
            delta = choice.get("delta")
            if type(delta) is not dict:
                delta = choice["delta"] = {}
            if not _mend_message(delta, streamed=True):
                return False
        else:
            if type(choice.get("text")) is not str:
                choice["text"] = ""
            choice.pop("delta", None)
        reason = choice.setdefault("finish_reason", None)
        if reason is not None:
            if type(reason) is not str:
                return False
            choice["finish_reason"] = FINISH_REASONS.get(reason, reason)
            choice["native_finish_reason"] = reason
    return True


def _mend_report(chunk: dict[str, Any]) -> bool:
    """Give a chunk that has usage and null for its choices none. Returns False when it is anything else."""
    if chunk.get("choices") is not None or type(chunk.get("usage")) is not dict:
        return False
    chunk["choices"] = []
    return True


def _mend_usage(chunk: dict[str, Any]) -> None:
    """Put usage where it belongs that Groq sends elsewhere when nobody asks for it."""
    inner = chunk["x_groq"]
    usage = inner.get("usage") if type(inner) is dict else None
    if type(usage) is dict:
        chunk["usage"] = usage


def mend_answer(answer: dict[str, Any], operation: Operation) -> bool:
    """Bring a whole answer into canonical form, in place. Returns False when it is not an answer at all."""
    if operation is Operation.EMBEDDINGS:
        answer["object"] = "list"
        answer.pop("choices", None)
        return type(answer.get("data")) is list
    if operation is Operation.RERANK:
        return _mend_ranking(answer)
    choices = answer.get("choices")
    if type(choices) is not list or not choices:
        return False
    if None in answer.values():
        for name in [name for name, value in answer.items() if value is None]:
            del answer[name]
    answer.setdefault("system_fingerprint", None)
    for index, choice in enumerate(choices):
        if type(choice) is not dict or not _mend_choice(choice, index, operation):
            return False
    return True


def _mend_ranking(answer: dict[str, Any]) -> bool:
    """Bring a ranking into the form of Cohere and Jina: an index and a score each, and tokens if counted."""
    results = answer.get("results")
    if type(results) is not list:
        return False
    for result in results:
        if type(result) is not dict:
            return False
        score = result.setdefault("relevance_score", result.get("score"))
        if type(result.get("index")) is not int or result["index"] < 0 or type(score) not in {int, float}:
            return False
    usage = answer.get("usage")
    if type(usage) is dict and "prompt_tokens" not in usage and "total_tokens" in usage:
        usage["prompt_tokens"] = usage["total_tokens"]
    return True


def _mend_choice(choice: dict[str, Any], index: int, operation: Operation) -> bool:
    if None in choice.values():
        for name in [name for name, value in choice.items() if value is None]:
            del choice[name]
    if type(choice.setdefault("index", index)) is not int:
        return False
    choice.setdefault("logprobs", None)
    if operation is Operation.CHAT:
        message = choice.get("message")
        if type(message) is not dict:
            return False
        message.setdefault("role", "assistant")
        message.setdefault("content", None)
        if not _mend_message(message, streamed=False):
            return False
    else:
        if type(choice.get("text")) is not str:
            choice["text"] = ""
        choice.pop("message", None)
    reason = choice.setdefault("finish_reason", None)
    if reason is not None:
        if type(reason) is not str:
            return False
        choice["finish_reason"] = FINISH_REASONS.get(reason, reason)
        choice["native_finish_reason"] = reason
    return True


def _mend_message(message: dict[str, Any], *, streamed: bool) -> bool:
    """Leave out null members that clients reject (``content`` and ``refusal`` may be null), and mend tool calls.

    Returns False when a tool call is not one.
    """
    if None in message.values():
        for name in [name for name, value in message.items() if value is None and name not in {"content", "refusal"}]:
            del message[name]
    if type(message.get("content")) is list:
        _mend_content(message)
    calls = message.get("tool_calls")
    if calls is None:
        return True
    if type(calls) is not list or not calls:
        del message["tool_calls"]
        return True
    for index, call in enumerate(calls):
        if type(call) is not dict or not _mend_call(call):
            return False
        if not streamed:
            complete_call(call)
        elif type(call.setdefault("index", index)) is not int:
            return False
    return True


def _mend_content(message: dict[str, Any]) -> None:
    """Write content that came in parts, as Mistral's models do that think, as text, and thinking as reasoning."""
    text, thought, others = _said(message["content"])
    if others:
        return  # images and the like have no other form
    message["content"] = text
    if thought:
        message.setdefault("reasoning_content", thought)


def _said(parts: list[Any]) -> tuple[str, str, bool]:
    """Return the text and the thinking of content in parts, and whether there is anything else in it."""
    text, thought = [], []
    for part in parts:
        if type(part) is not dict:
            return "", "", True
        if part.get("type") == "text" and type(part.get("text")) is str:
            text.append(part["text"])
        elif part.get("type") == "thinking" and type(part.get("thinking")) is list:
            thought.append(_said(part["thinking"])[0])
        else:
            return "", "", True
    return "".join(text), "".join(thought), False


def _mend_call(call: dict[str, Any]) -> bool:
    """Leave out nulls, and write arguments that came as an object as the text they should be."""
    for part in (call, call.get("function"), call.get("custom")):
        if type(part) is dict:
            for name in [name for name, value in part.items() if value is None]:
                del part[name]
    function = call.get("function")
    if function is None:
        return type(call.get("custom", {})) is dict
    if type(function) is not dict:
        return False
    arguments = function.get("arguments", "")
    if type(arguments) is dict:
        function["arguments"] = msgspec.json.encode(arguments).decode()
    elif type(arguments) is not str:
        return False
    return type(function.get("name", "")) is str


def failure_of(
    engine: Engine,
    status: int,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    operation: Operation = Operation.CHAT,
) -> Failure:
    """Translate an engine's error answer to ``operation``: any status but 200."""
    # What is not JSON, an HTML page or a proxy's text, is of no use to a caller.
    return failure_from(engine, status, _retry_after(headers), decode_mended(body) or {}, operation)


def error_event(engine: Engine, body: dict[str, Any]) -> Failure:
    """Translate an error that came as a stream event or as the body of a 200."""
    return failure_from(engine, _status_inside(body), None, body)


def failure_from(
    engine: Engine,
    status: int,
    retry_after: float | None,
    document: Mapping[str, Any],
    operation: Operation = Operation.CHAT,
) -> Failure:
    """Translate an error whose body was decoded to ``document``."""
    message, detail = _engine_error(document)
    refused = refusal(engine, operation, status, document, message)
    if refused is not None:
        detail["error_type"] = refused.kind
        if refused.reasons:
            detail["reasons"] = list(refused.reasons)
        return Failure(Cause.REFUSED, refused.message, refused.status, elsewhere=True, detail=detail)
    lowered = message.lower()
    gone = lacks_model(status, document, lowered)
    lacks = gone or lacks_path(operation, status, document, lowered)
    if status in engine.overload_statuses:
        return Failure(Cause.OVERLOADED, message or "the backend is full", status, retry_after, detail=detail)
    if 400 <= status < 500 and status not in _RETRY_STATUSES:
        too_long = any(words in lowered for words in engine.context_error)
        if gone or (status in OURS and not (too_long and status in engine.length_statuses)):
            # Our credentials, our credit or our configuration are wrong there, not the caller's request.
            if status in _CREDENTIALS:
                message = ""  # such words quote the key, or say whose it is
            return Failure(
                Cause.ERROR, message or "the backend refused the gateway", status, lacks=lacks, detail=detail
            )
        if too_long or "exceed_context" in str(detail.get("type")):
            detail["error_type"] = "context_length_exceeded"
            detail.setdefault("numbers", [int(number) for number in _NUMBER.findall(message)][:4])
            status = 400
        return Failure(Cause.REFUSED, message or "the backend refused the request", status, detail=detail)
    return Failure(
        Cause.ERROR, message or f"the backend answered {status}", status, retry_after, lacks=lacks, detail=detail
    )


def _engine_error(document: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the engine's message and the facts worth passing on; engines differ in where they put them."""
    error = document.get("error", document)
    if isinstance(error, str):
        kind = document.get("error_type")
        return _decent(error), {"type": kind} if isinstance(kind, str) else {}
    if not isinstance(error, Mapping):
        return "", {}
    message = error.get("message") or error.get("detail") or ""
    detail = {
        name: error[name]
        for name in ("type", "param", "n_prompt_tokens", "n_ctx")
        if isinstance(error.get(name), str | int)
    }
    complaints = message if isinstance(message, list) else [message]
    return _decent("; ".join(filter(None, map(_complaint, complaints[:_COMPLAINTS])))), detail


def _complaint(item: Any) -> str:
    """Return what an error says, or one of several, as servers made with FastAPI list them: what, and where.

    They quote what they complain about, too: the caller's own words, which are left out.
    """
    if isinstance(item, str | int | float):
        return str(item)
    words = item.get("msg") if isinstance(item, Mapping) else None
    if not isinstance(words, str):
        return ""
    place = item.get("loc")
    steps = [str(step) for step in place if isinstance(step, str | int)] if isinstance(place, list) else []
    return f"{'.'.join(steps)}: {words}" if steps else words


def _decent(message: str) -> str:
    """Return an engine's words without keys and addresses, which are no business of callers."""
    return _ADDRESS.sub("[address]", redact(message[:2000]))


def _status_inside(document: Mapping[str, Any]) -> int:
    """Return the status an error inside a 200 claims, 500 when it claims none."""
    error = document.get("error", document)
    code = (error.get("code") or error.get("http_status_code")) if isinstance(error, Mapping) else None
    if isinstance(code, str):
        code = int(code) if _STATUS.fullmatch(code) else None
    return code if isinstance(code, int) and 400 <= code <= 599 else status_inside(document) or 500


def _retry_after(headers: list[tuple[bytes, bytes]]) -> float | None:
    for name, value in headers:
        if name == b"retry-after" and value.isdigit():
            return float(min(int(value[:9]), 3600))
    return None
