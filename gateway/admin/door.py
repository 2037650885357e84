"""Who may manage: the dependency that guards every management route, judged by the headers alone.

Without a management key a request is ``Unauthorized``, with an inference key, or a role that may not, ``Forbidden``,
before its body is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from gateway.access.management import ManagementKeys
from gateway.admin.rights import allows
from gateway.types.errors import BadRequest

_SCHEME = HTTPBearer(auto_error=False, scheme_name="managementKey", description="A management key.")


def _wall_clock_us() -> int:
    return time.time_ns() // 1_000


def management_only(management: ManagementKeys, now_us: Callable[[], int] = _wall_clock_us) -> list[Any]:
    """Return the dependencies that a router of management routes needs.

    Args:
        management: the keys that open the door.
        now_us: wall clock, microseconds since 1970.
    """

    async def judge(request: Request) -> None:
        authorization = _only(request, b"authorization")
        may = allows(request.method, request.url.path)
        management.authenticate(authorization, now_us(), x_api_key=_only(request, b"x-api-key"), allows=may)

    return [Depends(judge), Depends(_SCHEME)]


def _only(request: Request, name: bytes) -> bytes | None:
    """Return the value of header ``name`` or None; two of them are refused, for nobody can say which one counts."""
    values = [value for header, value in request.scope["headers"] if header == name]
    if len(values) > 1:
        raise BadRequest(f"the header {name.decode()} was sent {len(values)} times: send it once")
    return values[0] if values else None
