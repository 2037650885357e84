"""The FastAPI half of the port: catalogue and management, with errors in the callers' shape.

Every path authenticates, by an inference key or by the management key; public boards do without one when the owner says
so (``boards.keyless``). The paths are cut into parts, each an application of its own that is made when it is asked for:
all of them together take a seventh of a second, one of them a tenth of that.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Request, Response
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
from gateway.console.roles import sees_costs
from gateway.desk import route_request
from gateway.edge import catalogue, openai_chat, openai_responses_api
from gateway.edge.body import decode
from gateway.edge.document import completed
from gateway.edge.inference import PATHS, Inlet
from gateway.edge.parts import REST
from gateway.leaderboard import api as boards
from gateway.refusal import defect, rendered
from gateway.routing.explain import explanation
from gateway.settings import Settings
from gateway.types.budgets import BUDGETS
from gateway.types.errors import BadRequest, MethodNotAllowed, NotFound, WeirError

_LAB_PAGES = tuple(folder for folder in (Path(__file__).parent.parent / "docs" / "lab",) if folder.is_dir())
"""What the lab measured for this version, where its documents lie beside it."""


def build_resources(gateway: Gateway) -> FastAPI:
    """Return one application of a gateway's catalogue and management: all parts in one."""
    app = _application()
    for part in _PARTS:
        _add(app, gateway, part)
    return app


def build_part(gateway: Gateway, part: str) -> FastAPI:
    """Return an application of one part of the paths, as ``gateway.edge.parts`` names them."""
    app = _application()
    _add(app, gateway, part)
    return app


def _application() -> FastAPI:
    app = FastAPI(title="Weir", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    for kind in (WeirError, RequestValidationError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _render)
    return app


def _add(app: FastAPI, gateway: Gateway, part: str) -> None:
    for router in _PARTS[part](gateway):
        app.include_router(router)
    if part == REST:
        app.router.routes.extend(site.routes(_site(gateway)))


def _models(gateway: Gateway) -> Iterator[APIRouter]:
    """Return what is said of models and of answers."""
    caller, operator = _any_key(gateway), _operator(gateway)
    yield catalogue.build_router(gateway.registry, gateway.books, caller, lambda: gateway.boards)
    yield content_endpoints.build_router(gateway.books, gateway.management, caller)
    yield model_endpoints.build_router(gateway.registry, operator)


def _keys(gateway: Gateway) -> Iterator[APIRouter]:
    yield key_endpoints.build_router(gateway.books, gateway.books, gateway.management)
    yield own_key.build_router(gateway.books, _any_key(gateway))


def _boards(gateway: Gateway) -> Iterator[APIRouter]:
    authenticate, operator = _any_key(gateway), _operator(gateway)
    around = boards.Surroundings(gateway.books, lambda: gateway.boards, authenticate, operator, sees_costs)
    yield boards.build_router(around)


def _billing(gateway: Gateway) -> Iterator[APIRouter]:
    """Return what was used and charged, and whom it concerns."""
    yield billing.build_router(gateway.books, _any_key(gateway), _operator(gateway))
    yield organization.build_router(gateway.books, gateway.management)


def _responses(gateway: Gateway) -> Iterator[APIRouter]:
    yield openai_responses_api.build_router(lambda: gateway.inference.shelf, _inference_key(gateway))


def _workspaces(gateway: Gateway) -> Iterator[APIRouter]:
    def knows(name: str) -> bool:
        return name in gateway.registry.fleet.models or name in gateway.registry.fleet.aliases

    yield workspaces.build_router(gateway.books, gateway.management, _changed(gateway), knows)


def _guardrails(gateway: Gateway) -> Iterator[APIRouter]:
    yield guardrails.build_router(gateway.books, gateway.management, _changed(gateway), lambda: gateway.registry.fleet)


def _changed(gateway: Gateway) -> Callable[[], Awaitable[None]]:
    """Return what is to be done after a change of what is said of teams."""

    async def changed() -> None:
        await gateway.governance.look()
        # Asking for budgets has the keeper read them: guardrails make some.
        await gateway.books.ask(BUDGETS, ("", ("",)))

    return changed


def _presets(gateway: Gateway) -> Iterator[APIRouter]:
    def form(inlet: Inlet) -> Callable[[dict[str, Any]], object]:
        return lambda body: inlet.read(body, openrouter=True)

    paths = ("chat/completions", "messages", "responses")
    inlets = {path: PATHS[b"/api/v1/" + path.encode()] for path in paths if b"/api/v1/" + path.encode() in PATHS}
    forms = {path: form(inlet) for path, inlet in inlets.items()}
    look = gateway.governance.look
    yield presets.build_router(gateway.books, _any_key(gateway), decode, forms, policy_names, look)


def _rest(gateway: Gateway) -> Iterator[APIRouter]:
    """Return the OpenAPI document, of all parts; made when it is first asked for."""
    router = APIRouter()
    known = Depends(_any_key(gateway))
    made: list[bytes] = []

    @router.get("/openapi.json", tags=["operations"], summary="This document")
    def document(_caller: Principal = known) -> Response:
        if not made:
            whole = get_openapi(title="Weir", version=__version__, routes=build_resources(gateway).routes)
            made.append(msgspec.json.encode(completed(whole, [path.decode() for path in PATHS])))
        return Response(made[0], media_type="application/json")

    yield router


_PARTS: Final[Mapping[str, Callable[[Gateway], Iterator[APIRouter]]]] = {
    "models": _models,
    "keys": _keys,
    "budgets": lambda gateway: iter([budget_endpoints.build_router(gateway.books, gateway.management)]),
    "teams": lambda gateway: iter([team_endpoints.build_router(gateway.books, gateway.management)]),
    "prices": lambda gateway: iter([price_endpoints.build_router(gateway.books, gateway.management)]),
    "route": lambda gateway: iter(
        [route_endpoints.build_router(_explainer(gateway), _operator(gateway), gateway.settings.max_body_bytes)]
    ),
    "boards": _boards,
    "billing": _billing,
    "responses": _responses,
    "workspaces": _workspaces,
    "guardrails": _guardrails,
    "byok": lambda gateway: iter(
        [byok.build_router(gateway.books, gateway.books, gateway.management, gateway.upstream_keys.look)]
    ),
    "presets": _presets,
    "credits": lambda gateway: iter([credits_.build_router(gateway.books, _any_key(gateway))]),
    "analytics": lambda gateway: iter([analytics.build_router(gateway.books, gateway.books, gateway.management)]),
    REST: _rest,
}
"""What the routes of each part are made by."""


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
        host=gateway.host_metrics.figures,
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
        authorization, x_api_key = _presented(request)
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
        authorization, x_api_key = _presented(request)
        return gateway.management.authenticate(authorization, now_us(), x_api_key=x_api_key, allows=may)

    return authenticate


def _inference_key(gateway: Gateway) -> Callable[[Request], Principal]:
    """Return a dependency that lets inference keys in."""

    def authenticate(request: Request) -> Principal:
        authorization, x_api_key = _presented(request)
        return gateway.keys.authenticate(authorization, now_us(), x_api_key=x_api_key)

    return authenticate


def _presented(request: Request) -> tuple[bytes | None, bytes | None]:
    """Return the two headers that may hold a key."""
    headers: dict[bytes, bytes] = dict(request.scope["headers"])
    return headers.get(b"authorization"), headers.get(b"x-api-key")


def _explainer(gateway: Gateway) -> Callable[[bytes, str], dict[str, Any]]:
    def explain(body: bytes, preset: str) -> dict[str, Any]:
        call = openai_chat.read(decode(body), openrouter=True)
        expected = gateway.router.expectations.tokens(call.model, "", call.max_tokens) * call.choices
        request = route_request(call, "", expected, time.monotonic())
        request.preset = preset or call.preset
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
