"""Errors in the caller's shape: OpenAI's and OpenRouter's at once.

``error.code`` is the integer HTTP status (the official SDKs refuse a string), ``error.type`` is OpenAI's word,
``error.metadata.error_type`` OpenRouter's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from gateway.types.errors import WeirError

_encoder: Final = msgspec.json.Encoder()
STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
}


def error_object(error: WeirError) -> dict[str, Any]:
    """Return the ``error`` member of an error body."""
    shown: dict[str, Any] = {
        "message": error.message,
        "type": error.api_type,
        "param": error.param,
        "code": error.code,
        "metadata": {"error_type": error.kind, **error.metadata},
    }
    availability = shown["metadata"].pop("availability", None)
    if availability is not None:
        shown["availability"] = availability
    return shown


def error_body(error: WeirError, request_id: str, explained: dict[str, Any] | None = None) -> bytes:
    """Return a whole error body, with what a caller who asked for it is told of routing."""
    body: dict[str, Any] = {"error": error_object(error), "request_id": request_id}
    if explained is not None:
        body["openrouter_metadata"] = explained
    return _encoder.encode(body)


def error_lines(error: WeirError, request_id: str) -> bytes:
    """Return the header lines of an error to a request."""
    identity = request_id.encode("ascii")
    lines = waiting_lines(error) + b"x-generation-id: %s\r\nx-request-id: %s\r\n" % (identity, identity)
    if error.code == 401:
        return lines + b"www-authenticate: Bearer\r\n"
    return lines + b"allow: POST\r\n" if error.code == 405 else lines


def waiting_lines(error: WeirError) -> bytes:
    """Return the header lines that say when to ask again, and what of a limit is left."""
    return "".join(f"{name}: {value}\r\n" for name, value in waiting_headers(error)).encode("ascii")


def waiting_headers(error: WeirError) -> Sequence[tuple[str, str]]:
    """Return the headers that say when to ask again, and what of a limit is left."""
    wait = retry_after(error)
    found = [(name.lower(), value) for name, value in error.headers.items()]
    return found if wait is None else [("retry-after", str(wait)), *found]


def retry_after(error: WeirError) -> int | None:
    """Return whole seconds for ``Retry-After``, rounded up, or None."""
    return None if error.retry_after is None else max(1, math.ceil(error.retry_after))


def status_line(status: int) -> bytes:
    """Return the HTTP/1.1 status line, also for a status an upstream made up."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status
