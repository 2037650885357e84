"""Errors of the paths beside inference, in the callers' shape, whatever answers them."""

from __future__ import annotations

from typing import Final

from gateway.edge.errors import error_body, waiting_headers
from gateway.telemetry import logs
from gateway.types import ids
from gateway.types.errors import Internal, Unauthorized, WeirError

Answer = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers and body."""

_log: Final = logs.logger(__name__)
_ids: Final = ids.RequestIds()


def defect(error: Exception, path: str) -> Answer:
    """Log ``error``, an exception nobody thought of that was met at ``path``; return an answer with its request id."""
    identity = ids.text(_ids.new())
    _log.error("request failed", request_id=identity, path=path, exc_info=error)
    return rendered(Internal("internal error; quote the request id when you report it"), identity)


def rendered(error: WeirError, identity: str | None = None) -> Answer:
    """Return the answer to a request that ended in ``error``, under the request id ``identity`` or a new one."""
    identity = identity or ids.text(_ids.new())
    headers = [("content-type", "application/json"), ("x-request-id", identity), *waiting_headers(error)]
    if isinstance(error, Unauthorized):
        headers.append(("www-authenticate", "Bearer"))
    return error.code, headers, error_body(error, identity)
