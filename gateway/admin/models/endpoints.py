"""``GET /api/v1/models/discovered``: what backends serve that nobody has configured, with the lines that adopt it.

A backend's URL is enough to be asked for its models. They are not served to anybody until the configuration gives them
a price: a model is never free by oversight. Needs the management key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from gateway.access.principal import Principal
from gateway.admin.models.offers import offers
from gateway.fleet.snapshot import Fleet


class Fleets(Protocol):
    """Where the current fleet is."""

    @property
    def fleet(self) -> Fleet:
        """The fleet now."""


def build_router(fleets: Fleets, authenticate: Callable[[Request], Principal]) -> APIRouter:
    """Return the paths of this noun."""
    operator = Depends(authenticate)
    router = APIRouter(prefix="/api/v1/models", tags=["management"])

    @router.get("/discovered", summary="Models that backends offer and that are not configured")
    def discovered(_operator: Principal = operator) -> Response:
        return Response(msgspec.json.encode({"data": offers(fleets.fleet)}), media_type="application/json")

    return router
