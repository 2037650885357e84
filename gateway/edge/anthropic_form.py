"""What a whole answer, its end and its errors look like in Anthropic's messages.

Pure. Usage follows Anthropic's rule: ``input_tokens`` are those that neither came from a cache nor went into one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.edge.errors import waiting_lines
from gateway.edge.exchange import Exchange
from gateway.types import ids
from gateway.types.call import Call, Need
from gateway.types.errors import NotFound, Unavailable, UpstreamFailed, WeirError
from gateway.types.messages import REASONING_FORMAT, STOP_REASONS, input_of
from gateway.types.money import usd_json
from gateway.types.reply import Bill
from gateway.types.tokens import Usage

JSON: Final = b"content-type: application/json\r\n"
ERROR_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Anthropic's word for an error by its status; others are ``invalid_request_error`` below 500, else ``api_error``."""
_encode: Final = msgspec.json.Encoder().encode


def content_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the content blocks that say a canonical message: thoughts, text, then calls of tools."""
    blocks = _thinking(message)
    for name in ("content", "refusal"):
        if isinstance(message.get(name), str) and message[name]:
            blocks.append({"type": "text", "text": message[name]})
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        blocks.append(
            {
                "type": "tool_use",
                "id": call.get("id") or "",
                "name": function.get("name") or "",
                "input": input_of(function.get("arguments") or ""),
            }
        )
    return blocks


def _thinking(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the blocks of thought; details tell more than the bare text, as far as they have any."""
    blocks: list[dict[str, Any]] = []
    details = message.get("reasoning_details")
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        kind = detail.get("type")
        if kind in ("reasoning.text", "reasoning.summary"):
            ours = kind == "reasoning.text" and detail.get("format") in (REASONING_FORMAT, None)
            thought = _text(detail.get("text" if kind == "reasoning.text" else "summary"))
            signature = _text(detail.get("signature")) if ours else ""
            blocks.append({"type": "thinking", "thinking": thought, "signature": signature})
        elif kind == "reasoning.encrypted" and detail.get("format") == REASONING_FORMAT:
            blocks.append({"type": "redacted_thinking", "data": _text(detail.get("data"))})
    text = _text(message.get("reasoning") or message.get("reasoning_content"))
    if not blocks and text:
        blocks.append({"type": "thinking", "thinking": text, "signature": ""})
    return blocks


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def stop_of(choice: Mapping[str, Any], stops: Sequence[str], *, called: bool) -> tuple[str, str | None]:
    """Return why a canonical choice ended and which stop sequence did it, in Anthropic's words.

    Args:
        choice: with its finish reasons; engines name the sequence ``stop_reason`` or ``matched_stop``.
        stops: the sequences that were asked for.
        called: whether it called tools, which some engines end with a plain ``stop``.
    """
    reason, native = choice.get("finish_reason"), choice.get("native_finish_reason")
    if native in ("pause_turn", "model_context_window_exceeded"):
        return native, None
    if reason == "stop" or reason not in STOP_REASONS:
        for name in ("stop_reason", "matched_stop"):
            matched = choice.get(name)
            if isinstance(matched, str) and matched in stops:
                return "stop_sequence", matched
        if native == "stop_sequence" and stops:
            return "stop_sequence", stops[0] if len(stops) == 1 else None
        if called:
            return "tool_use", None
    return STOP_REASONS.get(str(reason), "end_turn"), None


def usage_form(bill: Bill, known: object = None) -> dict[str, Any]:
    """Return ``usage`` with what it costs; ``known`` is what the API itself said, of which the rest is kept."""
    usage = bill.usage
    read, written = min(usage.cache_read, usage.prompt), usage.cache_write
    written = min(written, usage.prompt - read)
    said: dict[str, Any] = {
        "cache_creation": _kept(written, usage.cache_write_1h) if written else None,
        "inference_geo": None,
        "server_tool_use": None,
        "service_tier": "standard",
        **(known if isinstance(known, dict) else {}),
        "input_tokens": usage.prompt - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.completion,
        "cost": msgspec.Raw(usd_json(bill.total)),
        "is_byok": bill.byok,
        "cost_details": {
            **({"upstream_inference_cost": msgspec.Raw(usd_json(bill.upstream))} if bill.byok else {}),
            "upstream_inference_prompt_cost": msgspec.Raw(usd_json(bill.prompt)),
            "upstream_inference_completions_cost": msgspec.Raw(usd_json(bill.completion)),
        },
    }
    if not said.get("output_tokens_details"):
        said["output_tokens_details"] = _details(usage)
    if bill.continuations:
        said["continuation"] = {"count": bill.continuations, "replayed_tokens": bill.replayed}
    return said


def _kept(written: int, hour: int) -> dict[str, int]:
    """Return for how long tokens that were written to a cache are kept there."""
    hour = min(hour, written)
    return {"ephemeral_5m_input_tokens": written - hour, "ephemeral_1h_input_tokens": hour}


def _details(usage: Usage) -> dict[str, int] | None:
    return {"thinking_tokens": usage.reasoning} if usage.reasoning else None


def error_form(error: WeirError, request_id: str, call: Call | None = None) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of an error.

    A full gateway and a full backend are one thing to these callers: 529, ``overloaded_error``. What no endpoint can
    answer, because only messages can say it and none speaks them, is the request's fault: 400 with its place.
    """
    status, message = error.code, error.message
    if isinstance(error, Unavailable) or error.kind == "provider_overloaded":
        status = 529
    elif call is not None and call.unsaid and Need.MESSAGES in call.needs and type(error) is NotFound:
        if error.param != "model":
            status, message = 400, f"{call.unsaid}, which no endpoint of this model can be asked"
    elif error.param and not message.startswith(error.param):
        message = f"{error.param}: {message}"
    kind = ERROR_TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")
    shown: dict[str, Any] = {"type": kind, "message": message, "error_type": error.kind}
    if isinstance(error, UpstreamFailed) and error.metadata.get("provider_name"):
        shown["provider_name"] = error.metadata["provider_name"]
    if "details" in error.metadata:
        shown["details"] = error.metadata["details"]
    return status, {"type": "error", "error": shown, "request_id": request_id}


def head_lines(identity: str) -> bytes:
    """Return the header lines that name the request."""
    encoded = identity.encode("ascii")
    return b"request-id: %s\r\nx-request-id: %s\r\nx-generation-id: %s\r\n" % (encoded, encoded, encoded)


def respond_error(
    exchange: Exchange,
    error: WeirError,
    headers: bytes = b"",
    explained: dict[str, Any] | None = None,
    call: Call | None = None,
) -> None:
    """Send an error as a whole response; before the request was read there is no reply to ask."""
    identity = ids.text(exchange.request_id)
    status, body = error_form(error, identity, call)
    if explained is not None:
        body["openrouter_metadata"] = explained
    headers += waiting_lines(error)
    if status == 401:
        headers += b"www-authenticate: Bearer\r\n"
    elif status == 405:
        headers += b"allow: POST\r\n"
    exchange.respond(status, JSON + headers + head_lines(identity), _encode(body))
