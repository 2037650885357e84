"""``POST /api/v1/route/explain``: what would be decided about a request now, and why.

The body is an inference request; nothing is sent to a backend, nothing is metered. The same code decides as for real
requests, on the live fleet. Needs the management key; what the owner pays is for the roles that see costs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from gateway.access.principal import Principal
from gateway.admin.body import received
from gateway.console.roles import sees_costs
from gateway.routing.explain import without_costs
from gateway.types.errors import WeirError

Explain = Callable[[bytes, str], dict[str, Any]]
"""Maps a request body and a preset name (``""`` for the default) to the explanation; raises ``WeirError``."""


def build_router(
    explain: Explain, authenticate: Callable[[Request], Principal | Awaitable[Principal]], max_body: int
) -> APIRouter:
    """Return the paths of this noun; bodies have ``max_body`` bytes at most, as on the inference paths."""
    operator = Depends(authenticate)
    router = APIRouter(prefix="/api/v1/route", tags=["management"])

    @router.post("/explain", summary="Explain a routing decision")
    async def explained(request: Request, preset: str = "", caller: Principal = operator) -> Response:
        try:
            document = explain(await received(request, max_body), preset)
        except WeirError as error:
            if "drops" not in error.metadata:
                raise
            document = {"refused": error.message, "status": error.code, **error.metadata}
        if not sees_costs(caller.role):
            document = without_costs(document)
        return Response(msgspec.json.encode(document), media_type="application/json")

    return router
