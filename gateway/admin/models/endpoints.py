"""``GET /api/v1/models/discovered``: what backends serve that nobody has configured, with the lines that adopt it.

A backend's URL is enough to be asked for its models. They are not served to anybody until the configuration gives them
a price: a model is never free by oversight. Needs the management key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from gateway.access.principal import Principal
from gateway.fleet.snapshot import Fleet, Replica


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


def offers(fleet: Fleet) -> list[dict[str, Any]]:
    """Return every offered model by name, who offers it, and the configuration that adopts it."""
    found: dict[str, list[Replica]] = {}
    for replica in fleet.replicas.values():
        for model in replica.load.offers:
            found.setdefault(model, []).append(replica)
    return [
        {
            "model": model,
            "backends": [
                {"name": each.name, "provider": each.backend.provider, "kind": each.backend.kind} for each in replicas
            ],
            "configuration": _adoption(model, replicas),
        }
        for model, replicas in sorted(found.items())
    ]


def _adoption(model: str, replicas: Sequence[Replica]) -> str:
    """Return an entry of ``models``; the values left to the operator are refused by the check as they stand."""
    quoted = msgspec.json.encode(model).decode()
    endpoints = ", ".join(f"{{backend: {replica.name}}}" for replica in replicas)
    return (
        f"- id: {quoted}\n"
        "  context_length: TOKENS\n"
        '  price: {prompt: "USD", completion: "USD"}  # per million tokens\n'
        f"  endpoints: [{endpoints}]\n"
    )
