"""What callers can look up: models, who serves them, one generation.

OpenAI's list (``/v1/models``) and OpenRouter's (``/api/v1/models``) share one model object that has the members both
official clients need. Every path wants an inference key; a generation is shown to the team that made it and to nobody
else, and one of another team answers exactly as an unknown one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time
from typing import Annotated, Any, Final, Protocol

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.access.principal import Principal
from gateway.config.snapshot import BoardsSpec
from gateway.console.roles import sees_costs
from gateway.edge.anthropic_models import anthropic_model, anthropic_page, speaks_anthropic
from gateway.edge.endpoints import base_id, endpoints_of, listed, providers, zero_retention
from gateway.edge.generation import cached_object, generation_object
from gateway.edge.model_query import ModelQuery, feed
from gateway.edge.models import alias_objects, model_object, visible
from gateway.edge.selection import POPULAR, Selection
from gateway.fleet.snapshot import Fleet
from gateway.leaderboard.view import view_of
from gateway.routing.decisions.record import FIND
from gateway.routing.decisions.shown import for_caller
from gateway.types import ids
from gateway.types.analytics import ANALYTICS, SUMS, Condition, Question
from gateway.types.errors import BadRequest, NotFound
from gateway.types.generation import LedgerReader
from gateway.types.method import Asking
from gateway.types.repetition import HIT

Authenticate = Callable[[Request], Principal]
_encode: Final = msgspec.json.Encoder().encode
_DAY_S: Final = 86_400
_PROMPT, _COMPLETION = SUMS.index("tokens_prompt"), SUMS.index("tokens_completion")


class Fleets(Protocol):
    """Where the current fleet is."""

    @property
    def fleet(self) -> Fleet:
        """The fleet now."""


class Ledger(LedgerReader, Asking, Protocol):
    """Where generations and kept decisions are."""


def build_router(
    fleets: Fleets, ledger: Ledger, authenticate: Authenticate, boards: Callable[[], BoardsSpec]
) -> APIRouter:
    """Return the catalogue's paths; they run on the event loop, which alone writes what they read.

    Args:
        fleets: where the fleet is.
        ledger: where generations, decisions and the rollups are.
        authenticate: lets any key in.
        boards: returns the rules of who may see how much models are used.
    """
    router = APIRouter(tags=["catalogue"])
    known = Depends(authenticate)
    for part in (_models(fleets, ledger, known, boards), _endpoints(fleets, known), _generations(ledger, known)):
        router.include_router(part)
    return router


def _models(fleets: Fleets, ledger: Asking, known: Any, boards: Callable[[], BoardsSpec]) -> APIRouter:
    """Return the paths of models; whoever is ``known`` may ask."""
    router = APIRouter()

    @router.get("/v1/models", summary="List models, OpenAI's form, or Anthropic's with the header anthropic-version")
    async def models(request: Request, caller: Principal = known) -> Response:
        found = _listed(fleets.fleet, caller, Selection())
        if speaks_anthropic(request.headers):
            return _json(anthropic_page(found, request.query_params))
        return _json({"object": "list", "data": found})

    @router.get("/api/v1/models", summary="List models, OpenRouter's form")
    async def openrouter_models(
        asked: Annotated[ModelQuery, Query()],
        request: Request,
        caller: Principal = known,
    ) -> Response:
        used: Mapping[str, int] = {}
        if asked.sort in POPULAR:
            used = await _used(ledger, view_of(caller, "model", boards()).team)
        found = _listed(fleets.fleet, caller, asked.selection(used), aliases=asked.plain)
        if asked.use_rss:
            return Response(feed(found), media_type="application/rss+xml")
        end = asked.offset + asked.limit
        page, more = found[asked.offset : end], None
        if end < len(found):
            more = f"{request.url.path}?{request.url.include_query_params(offset=end, limit=asked.limit).query}"
        return _json({"data": page, "total_count": len(found), "links": {"next": more}})

    @router.get("/api/v1/models/user", summary="List the models that the key may use")
    async def own_models(caller: Principal = known) -> Response:
        found = _listed(fleets.fleet, caller, Selection())
        return _json({"data": found, "total_count": len(found), "links": {"next": None}})

    @router.get("/api/v1/embeddings/models", summary="List the models that embed")
    async def embedding_models(caller: Principal = known) -> Response:
        found = _listed(fleets.fleet, caller, Selection(output_modalities="embeddings"), aliases=False)
        return _json({"data": found, "total_count": len(found), "links": {"next": None}})

    @router.get("/api/v1/models/count", summary="How many models there are")
    async def count(caller: Principal = known) -> Response:
        return _json({"data": {"count": len(visible(fleets.fleet, caller))}})

    @router.get("/v1/models/{model_id:path}", summary="One model, OpenAI's form, or Anthropic's")
    async def model(model_id: str, request: Request, caller: Principal = known) -> Response:
        name = base_id(fleets.fleet, model_id)
        found = next((each for each in _listed(fleets.fleet, caller, Selection()) if each["id"] == name), None)
        if found is None:
            raise NotFound(f"no model {model_id[:128]!r}", param="model")
        return _json(anthropic_model(found) if speaks_anthropic(request.headers) else found)

    return router


def _endpoints(fleets: Fleets, known: Any) -> APIRouter:
    """Return the paths of who serves models."""
    router = APIRouter()

    @router.get("/api/v1/models/{model_id:path}/endpoints", summary="Who serves a model, and how well")
    async def endpoints(model_id: str, caller: Principal = known) -> Response:
        return _json({"data": endpoints_of(*listed(fleets.fleet, model_id, caller))})

    @router.get("/api/v1/model/{model_id:path}", summary="One model, OpenRouter's form")
    async def openrouter_model(model_id: str, caller: Principal = known) -> Response:
        return _json({"data": listed(fleets.fleet, model_id, caller)[0]})

    @router.get("/api/v1/endpoints/zdr", summary="Endpoints that keep nothing of a request")
    async def zdr(caller: Principal = known) -> Response:
        return _json({"data": zero_retention(fleets.fleet, caller)})

    @router.get("/api/v1/providers", summary="Who serves models")
    async def serving(caller: Principal = known) -> Response:
        return _json({"data": providers(fleets.fleet, caller)})

    return router


def _generations(ledger: Ledger, known: Any) -> APIRouter:
    """Return the path of what became of an answer."""
    router = APIRouter()

    @router.get("/api/v1/generation", summary="Usage and cost of one answer")
    async def generation(id: Annotated[str, Query(max_length=64)], caller: Principal = known) -> Response:  # noqa: A002
        request_id = ids.parse(id)
        if request_id is None:
            raise BadRequest("a generation id is `gen-` and 32 hexadecimal digits", param="id")
        record = await ledger.generation(request_id)
        if record is None:
            return _json({"data": await _cached(ledger, request_id, caller)})
        if not (caller.management or record.attempts[-1].team == caller.team):
            raise NotFound("no such generation", param="id")
        kept = await ledger.ask(FIND, (request_id,))
        owner = caller.management and sees_costs(caller.role)
        decision = for_caller(kept, owner=owner) if kept is not None else None
        return _json({"data": generation_object(record) | {"decision": decision}})

    return router


async def _used(ledger: Asking, team: str) -> Mapping[str, int]:
    """Return the tokens of each model in the last seven UTC days, of one team or of all."""
    today = int(time()) // _DAY_S
    where = (Condition("team", (team,)),) if team else ()
    cells = await ledger.ask(ANALYTICS, (Question(False, today - 6, today, False, ("model",), where),))
    return {cell.labels[0]: cell.sums[_PROMPT] + cell.sums[_COMPLETION] for cell in cells}


async def _cached(ledger: Ledger, request_id: bytes, caller: Principal) -> dict[str, Any]:
    """Return a generation that was answered from the response cache. Raises ``NotFound`` when it was not."""
    hit = await ledger.ask(HIT, (request_id,))
    source = None
    if hit is not None and (caller.management or hit.team == caller.team):
        source = await ledger.generation(hit.source)
    if source is None:
        raise NotFound("no such generation", param="id")
    return cached_object(source, request_id) | {"decision": None}


def _json(document: Any) -> Response:
    return Response(_encode(document), media_type="application/json")


def _listed(fleet: Fleet, caller: Principal, selection: Selection, *, aliases: bool = True) -> list[dict[str, Any]]:
    """Return the models and then the aliases that a key may use; a picker shows what it is shown."""
    found = [model_object(model) for model in selection.of(visible(fleet, caller))]
    return found + alias_objects(fleet, caller) if aliases else found
