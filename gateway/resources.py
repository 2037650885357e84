"""The FastAPI half of the port: catalogue and management, with errors in the callers' shape.

Every path authenticates, by an inference key or by the management key; public boards do without one when the owner says
so (``boards.keyless``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway import __version__
from gateway.access.principal import Principal
from gateway.admin.budgets import endpoints as budget_endpoints
from gateway.admin.keys import endpoints as key_endpoints
from gateway.admin.keys import own as own_key
from gateway.admin.models import endpoints as model_endpoints
from gateway.admin.prices import endpoints as price_endpoints
from gateway.admin.routes import endpoints as route_endpoints
from gateway.admin.teams import endpoints as team_endpoints
from gateway.app import Gateway, now_us
from gateway.billing import api as billing
from gateway.edge import catalogue, openai_chat
from gateway.edge.body import decode
from gateway.leaderboard import api as boards
from gateway.refusal import defect, rendered
from gateway.routing.explain import explanation
from gateway.routing.interface import RouteRequest
from gateway.types.errors import BadRequest, MethodNotAllowed, NotFound, WeirError


def build_resources(gateway: Gateway) -> FastAPI:
    """Return the application of a gateway's catalogue and management."""
    app = FastAPI(title="Weir", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(catalogue.build_router(gateway.registry, gateway.books, _any_key(gateway)))
    app.include_router(key_endpoints.build_router(gateway.books, gateway.books, gateway.management))
    app.include_router(own_key.build_router(gateway.books, _any_key(gateway)))
    app.include_router(budget_endpoints.build_router(gateway.books, gateway.management))
    app.include_router(team_endpoints.build_router(gateway.books, gateway.management))
    app.include_router(price_endpoints.build_router(gateway.books, gateway.management))
    app.include_router(model_endpoints.build_router(gateway.registry, _operator(gateway)))
    app.include_router(route_endpoints.build_router(_explainer(gateway), _operator(gateway)))
    around = boards.Surroundings(gateway.books, lambda: gateway.boards, _any_key(gateway), _operator(gateway))
    app.include_router(boards.build_router(around))
    app.include_router(billing.build_router(gateway.books, _any_key(gateway), _operator(gateway)))
    for kind in (WeirError, RequestValidationError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _render)
    return app


def _any_key(gateway: Gateway) -> Callable[[Request], Principal]:
    """Return a dependency that lets inference keys and management keys in."""

    def authenticate(request: Request) -> Principal:
        authorization, key = _authorization(request), request.headers.get("x-api-key")
        x_api_key = key.encode("latin-1") if key is not None else None
        try:
            return gateway.management.authenticate(authorization, now_us(), x_api_key=x_api_key)
        except WeirError:
            return gateway.keys.authenticate(authorization, now_us(), x_api_key=x_api_key)

    return authenticate


def _operator(gateway: Gateway) -> Callable[[Request], Principal]:
    """Return a dependency that lets management keys in."""

    def authenticate(request: Request) -> Principal:
        return gateway.management.authenticate(_authorization(request), now_us())

    return authenticate


def _authorization(request: Request) -> bytes | None:
    value = request.headers.get("authorization")
    return value.encode("latin-1") if value is not None else None


def _explainer(gateway: Gateway) -> Callable[[bytes, str], dict[str, Any]]:
    def explain(body: bytes, preset: str) -> dict[str, Any]:
        call = openai_chat.read(decode(body), openrouter=True)
        request = RouteRequest(
            model_id=call.model,
            needs=call.needs,
            prompt_tokens=call.prompt_estimate,
            prompt_tokens_exact=False,
            max_tokens=call.max_tokens,
            choices=call.choices,
            expected_tokens=gateway.router.expectations.tokens(call.model, "", call.max_tokens) * call.choices,
            stream=call.stream,
            team="",
            preset=preset or call.preset,
            now=time.monotonic(),
            prompt=call.body,
            session=call.session,
            preferences=call.preferences,
            priority=call.priority,
        )
        return {"requested": call.model, "model": request.model_id} | explanation(
            gateway.router.plan(request, explain=True)
        )

    return explain


async def _render(request: Request, error: Exception) -> Response:
    """Turn any exception into an error body; a defect names only the request."""
    known = _known(error)
    status, headers, body = defect(error, request.scope["path"]) if known is None else rendered(known)
    return Response(body, status_code=status, headers=dict(headers))


def _known(error: Exception) -> WeirError | None:
    if isinstance(error, WeirError):
        return error
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        return BadRequest(f"{place or 'the request'}: {first['msg']}", param=place or None)
    if isinstance(error, ClientDisconnect):
        return BadRequest("the caller left before its request was whole")
    if isinstance(error, HTTPException):
        if error.status_code == 404:
            return NotFound("no such path")
        if error.status_code == 405:
            return MethodNotAllowed("this path does not take this method")
        return BadRequest(str(error.detail))
    return None
