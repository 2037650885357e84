"""The FastAPI half of the port: catalogue and management, with errors in the callers' shape.

Every path authenticates, by an inference key or by the management key; public boards do without one when the owner says
so (``boards.keyless``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from dashboards import site
from gateway import __version__
from gateway.access.management import RoleForbidden
from gateway.access.principal import Principal
from gateway.admin.analytics import endpoints as analytics
from gateway.admin.budgets import endpoints as budget_endpoints
from gateway.admin.byok import endpoints as byok
from gateway.admin.content import endpoints as content_endpoints
from gateway.admin.credits import endpoints as credits_
from gateway.admin.guardrails import endpoints as guardrails
from gateway.admin.keys import endpoints as key_endpoints
from gateway.admin.keys import own as own_key
from gateway.admin.models import endpoints as model_endpoints
from gateway.admin.organization import endpoints as organization
from gateway.admin.presets import endpoints as presets
from gateway.admin.prices import endpoints as price_endpoints
from gateway.admin.rights import allows
from gateway.admin.routes import endpoints as route_endpoints
from gateway.admin.teams import endpoints as team_endpoints
from gateway.admin.workspaces import endpoints as workspaces
from gateway.app import Gateway, load_policies, now_us, preset_folder
from gateway.app import presets as policy_names
from gateway.billing import api as billing
from gateway.edge import catalogue, openai_chat, openai_responses_api
from gateway.edge.body import decode
from gateway.edge.document import completed
from gateway.edge.inference import PATHS, Inlet
from gateway.leaderboard import api as boards
from gateway.refusal import defect, rendered
from gateway.routing.explain import explanation
from gateway.routing.interface import RouteRequest
from gateway.settings import Settings
from gateway.types.budgets import BUDGETS
from gateway.types.errors import BadRequest, MethodNotAllowed, NotFound, WeirError

_LAB_PAGES = tuple(folder for folder in (Path(__file__).parent.parent / "docs" / "lab",) if folder.is_dir())
"""What the lab measured for this version, where its documents lie beside it."""


def build_resources(gateway: Gateway) -> FastAPI:
    """Return the application of a gateway's catalogue and management."""
    app = FastAPI(title="Weir", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(
        catalogue.build_router(gateway.registry, gateway.books, _any_key(gateway), lambda: gateway.boards)
    )
    app.include_router(key_endpoints.build_router(gateway.books, gateway.books, gateway.management))
    app.include_router(own_key.build_router(gateway.books, _any_key(gateway)))
    app.include_router(budget_endpoints.build_router(gateway.books, gateway.management))
    app.include_router(team_endpoints.build_router(gateway.books, gateway.management))
    app.include_router(content_endpoints.build_router(gateway.books, gateway.management, _any_key(gateway)))
    app.include_router(price_endpoints.build_router(gateway.books, gateway.management))
    app.include_router(model_endpoints.build_router(gateway.registry, _operator(gateway)))
    app.include_router(route_endpoints.build_router(_explainer(gateway), _operator(gateway)))
    around = boards.Surroundings(gateway.books, lambda: gateway.boards, _any_key(gateway), _operator(gateway))
    app.include_router(boards.build_router(around))
    app.include_router(billing.build_router(gateway.books, _any_key(gateway), _operator(gateway)))
    app.include_router(openai_responses_api.build_router(lambda: gateway.inference.shelf, _inference_key(gateway)))
    _add_teams(app, gateway)
    app.router.routes.extend(site.routes(_site(gateway)))
    _add_document(app, gateway)
    for kind in (WeirError, RequestValidationError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _render)
    return app


def _add_document(app: FastAPI, gateway: Gateway) -> None:
    """Serve the OpenAPI document, whole; made when it is first asked for."""
    known = Depends(_any_key(gateway))
    made: list[bytes] = []

    def openapi() -> dict[str, Any]:
        document = get_openapi(title="Weir", version=__version__, routes=app.routes)
        return completed(document, [path.decode() for path in PATHS])

    @app.get("/openapi.json", tags=["operations"], summary="This document")
    def document(_caller: Principal = known) -> Response:
        if not made:
            made.append(msgspec.json.encode(app.openapi()))
        return Response(made[0], media_type="application/json")

    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI documents it


def _add_teams(app: FastAPI, gateway: Gateway) -> None:
    """Add what is of teams as OpenRouter has it: workspaces, guardrails, presets, credits, the organization."""
    books, management, registry = gateway.books, gateway.management, gateway.registry

    async def changed() -> None:
        await gateway.governance.look()
        # Asking for budgets has the keeper read them: guardrails make some.
        await books.ask(BUDGETS, ("", ("",)))

    def knows(name: str) -> bool:
        return name in registry.fleet.models or name in registry.fleet.aliases

    def form(inlet: Inlet) -> Callable[[dict[str, Any]], object]:
        return lambda body: inlet.read(body, openrouter=True)

    paths = ("chat/completions", "messages", "responses")
    inlets = {path: PATHS[b"/api/v1/" + path.encode()] for path in paths if b"/api/v1/" + path.encode() in PATHS}
    forms = {path: form(inlet) for path, inlet in inlets.items()}
    app.include_router(workspaces.build_router(books, management, changed, knows))
    app.include_router(guardrails.build_router(books, management, changed, lambda: registry.fleet))
    app.include_router(byok.build_router(books, books, management, gateway.upstream_keys.look))
    app.include_router(
        presets.build_router(books, _any_key(gateway), decode, forms, policy_names, gateway.governance.look)
    )
    app.include_router(credits_.build_router(books, _any_key(gateway)))
    app.include_router(organization.build_router(books, management))
    app.include_router(analytics.build_router(books, books, management))


def _site(gateway: Gateway) -> site.Site:
    """Return what the pages for people work with."""
    return site.Site(
        books=gateway.books,
        registry=gateway.registry,
        config=lambda: gateway.snapshot,
        accepts=gateway.management.operates,
        explain=_explainer(gateway),
        policies=load_policies(),
        preset_folder=preset_folder(),
        reports=(gateway.settings.home / "lab", *_LAB_PAGES),
        environment=_environment(gateway.settings),
        version=__version__,
        host=gateway.host_figures,
        active=lambda: len(gateway.inference.active),
    )


def _environment(settings: Settings) -> dict[str, str]:
    """Return what operators ask for of the environment; of addresses only the host, for the rest may be secret."""
    alerts, redis = settings.alert_url, settings.redis_url
    return {
        "WEIR_HOME": str(settings.home),
        "WEIR_CONFIG": str(settings.config or "the built-in defaults"),
        "WEIR_DATABASE_URL": _host(settings.ledger_url.get_secret_value()),
        "WEIR_REDIS_URL": _host(redis.get_secret_value()) if redis is not None else "none: each host counts alone",
        "WEIR_ALERT_URL": _host(alerts.get_secret_value()) if alerts is not None else "none: alerts are only logged",
        "WEIR_DURABILITY": str(settings.durability),
    }


def _host(url: str) -> str:
    """Return the scheme and host of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" if parts.hostname else parts.scheme


def _any_key(gateway: Gateway) -> Callable[[Request], Principal]:
    """Return a dependency that lets inference keys and management keys in."""

    def authenticate(request: Request) -> Principal:
        authorization, key = _authorization(request), request.headers.get("x-api-key")
        x_api_key = key.encode("latin-1") if key is not None else None
        may = allows(request.method, request.url.path)
        try:
            return gateway.management.authenticate(authorization, now_us(), x_api_key=x_api_key, allows=may)
        except RoleForbidden:
            raise
        except WeirError:
            return gateway.keys.authenticate(authorization, now_us(), x_api_key=x_api_key)

    return authenticate


def _operator(gateway: Gateway) -> Callable[[Request], Principal]:
    """Return a dependency that lets management keys in."""

    def authenticate(request: Request) -> Principal:
        may = allows(request.method, request.url.path)
        return gateway.management.authenticate(_authorization(request), now_us(), allows=may)

    return authenticate


def _inference_key(gateway: Gateway) -> Callable[[Request], Principal]:
    """Return a dependency that lets inference keys in."""

    def authenticate(request: Request) -> Principal:
        key = request.headers.get("x-api-key")
        x_api_key = key.encode("latin-1") if key is not None else None
        return gateway.keys.authenticate(_authorization(request), now_us(), x_api_key=x_api_key)

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
    answer = Response(body, status_code=status, headers=dict(headers))
    if isinstance(error, HTTPException) and status == 405 and error.headers and "Allow" in error.headers:
        answer.headers["allow"] = error.headers["Allow"]
    return answer


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
