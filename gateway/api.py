"""The FastAPI half of the port: catalogue, management, health, metrics, and errors in the callers' shape.

Every path authenticates, by an inference key or by the management key. The exceptions are ``OPEN_PATHS``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway import __version__
from gateway.access.principal import Principal
from gateway.admin.keys import endpoints as key_endpoints
from gateway.admin.routes import endpoints as route_endpoints
from gateway.admin.teams import endpoints as team_endpoints
from gateway.app import Gateway, now_us
from gateway.edge import catalogue, openai_chat
from gateway.edge.asgi import InferenceApp
from gateway.edge.body import decode
from gateway.edge.errors import error_body, retry_after
from gateway.edge.native import Road
from gateway.relay import EXPECTED_TOKENS
from gateway.routing.explain import explanation
from gateway.routing.interface import RouteRequest
from gateway.telemetry import logs
from gateway.types import ids
from gateway.types.errors import BadRequest, Internal, MethodNotAllowed, NotFound, Unauthorized, WeirError

OPEN_PATHS: Final = ("/health", "/ready")
"""Paths that need no key: they tell a load balancer nothing but up or down."""

_log: Final = logs.logger(__name__)
_ids: Final = ids.RequestIds()


def build_api(gateway: Gateway, road: Road, *, lifespan: bool = True) -> FastAPI:
    """Return the ASGI application of a gateway; with ``lifespan`` it starts and stops the gateway itself."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        await gateway.start()
        road.inference = gateway.inference
        try:
            yield
        finally:
            await gateway.stop()

    app = FastAPI(
        title="Weir",
        version=__version__,
        lifespan=life if lifespan else None,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    _health(app, gateway)
    app.include_router(catalogue.build_router(gateway.registry, gateway.books, _any_key(gateway)))
    app.include_router(key_endpoints.build_router(gateway.books, gateway.books, gateway.management))
    app.include_router(team_endpoints.build_router(gateway.books, gateway.management))
    app.include_router(route_endpoints.build_router(_explainer(gateway), _operator(gateway)))
    for kind in (WeirError, RequestValidationError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _render)
    app.add_middleware(InferenceMiddleware, road=road)
    return app


class InferenceMiddleware(InferenceApp):
    """The inference paths in front of the application, for servers without the native road."""

    def __init__(self, app: Any, road: Road) -> None:
        super().__init__(road, app)


def _health(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/health", summary="Whether the process lives")
    def health() -> Response:
        return _json(200, {"status": "ok"})

    @app.get("/ready", summary="Whether requests should be sent here")
    def ready() -> Response:
        reasons = gateway.unready()
        return _json(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})

    @app.get("/metrics", summary="Prometheus metrics")
    async def metrics(request: Request) -> Response:
        gateway.management.authenticate(_authorization(request), now_us())
        body, kind = await gateway.scrape(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": kind})


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
            expected_tokens=(call.max_tokens or EXPECTED_TOKENS) * call.choices,
            stream=call.stream,
            team="",
            preset=preset or None,
            now=time.monotonic(),
        )
        return {"requested": call.model, "model": request.model_id} | explanation(
            gateway.router.plan(request, explain=True)
        )

    return explain


async def _render(request: Request, error: Exception) -> Response:
    """Turn any exception into an error body; a defect names only the request."""
    identity = ids.text(_ids.new())
    known = _known(error)
    if known is None:
        _log.error("request failed", request_id=identity, path=request.scope["path"], exc_info=error)
        known = Internal("internal error; quote the request id when you report it")
    headers = {"content-type": "application/json", "x-request-id": identity}
    wait = retry_after(known)
    if wait is not None:
        headers["retry-after"] = str(wait)
    if isinstance(known, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return Response(error_body(known, identity), status_code=known.code, headers=headers)


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


def _json(status: int, document: Any) -> Response:
    return Response(msgspec.json.encode(document), status_code=status, media_type="application/json")
