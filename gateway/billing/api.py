"""Billing over HTTP: exports and statements for management keys, usage for whoever may see it.

An inference key sees the usage of its own team and nothing else: another team, or a key of one, is answered exactly as
one that does not exist. Exports stream in constant memory; one that breaks off ends the connection without the last
chunk, so no client takes half of it for the whole. Errors are ``WeirError``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from gateway.access.principal import Principal
from gateway.billing import buckets, methods
from gateway.billing.export import Export, export_of, pieces, selection
from gateway.billing.paper import MEDIA
from gateway.billing.period import day_in
from gateway.billing.shown import item_data, period_data
from gateway.types.errors import BadRequest
from gateway.types.method import Asking

Authenticate = Callable[[Request], Principal]
_encode: Final = msgspec.json.Encoder().encode


def build_router(books: Asking, known: Authenticate, operator: Authenticate) -> APIRouter:
    """Return the paths of billing.

    Args:
        books: whom to ask.
        known: lets any key in.
        operator: lets management keys in.
    """
    router = APIRouter(tags=["billing"])
    _add_exports(router, books, Depends(operator))
    _add_periods(router, books, Depends(operator))
    _add_usage(router, books, Depends(known))
    _add_organization(router, books, Depends(operator))
    return router


def _add_exports(router: APIRouter, books: Asking, managing: Any) -> None:
    @router.get("/api/v1/exports/{dataset}", summary="Stream an export: focus, usage or statement")
    async def export(
        dataset: str,
        _caller: Principal = managing,
        team: str | None = None,
        period: str | None = None,
        first: Annotated[str | None, Query(alias="from")] = None,
        last: Annotated[str | None, Query(alias="to")] = None,
        format: str = "csv",  # noqa: A002 - the parameter's name
    ) -> Response:
        chosen = export_of(dataset, format, selection(team, period, first, last))
        return await _streamed(books, chosen)


async def _streamed(books: Asking, export: Export) -> Response:
    """Return an export as it is made; what is wrong with it is an error as long as nothing was sent."""
    made = pieces(books, export)
    first = await anext(made, b"")

    async def rest() -> AsyncIterator[bytes]:
        yield first
        async for data in made:
            yield data

    headers = {"content-disposition": f'attachment; filename="{export.name}"', "cache-control": "no-store"}
    return StreamingResponse(rest(), media_type=export.media, headers=headers)


def _add_periods(router: APIRouter, books: Asking, managing: Any) -> None:
    @router.get("/api/v1/billing/periods", summary="List billing periods")
    async def periods(_caller: Principal = managing) -> Response:
        return _json({"data": [period_data(each) for each in await books.ask(methods.PERIODS)]})

    @router.post("/api/v1/billing/periods/{period}/close", summary="Close a billing period for good")
    async def close(period: str, _caller: Principal = managing) -> Response:
        return _json({"data": period_data(await books.ask(methods.CLOSE, (period,)))})

    @router.get("/api/v1/billing/periods/{period}/statements/{team}", summary="The statement of a team")
    async def statement(
        period: str,
        team: str,
        _caller: Principal = managing,
        format: str = "json",  # noqa: A002 - the parameter's name
    ) -> Response:
        found = await books.ask(methods.STATEMENT, (period, team, format))
        headers = {"etag": f'"{found.digest}"', "x-content-type-options": "nosniff"}
        if format == "html":
            headers["content-security-policy"] = "default-src 'none'; style-src 'unsafe-inline'"
        return Response(found.content, media_type=MEDIA[format], headers=headers)

    @router.get("/api/v1/billing/sinks", summary="What is delivered to sinks, newest first")
    async def sinks(_caller: Principal = managing) -> Response:
        return _json({"data": [item_data(each) for each in await books.ask(methods.OUTBOX)]})


def _add_usage(router: APIRouter, books: Asking, known: Any) -> None:
    @router.get("/api/v1/activity", summary="Usage by day, model and endpoint, OpenRouter's form")
    async def activity(
        caller: Principal = known,
        date: str | None = None,
        api_key_hash: Annotated[str, Query(max_length=64)] = "",
        workspace_id: str | None = None,
        user_id: str | None = None,
        group_by: str | None = None,
    ) -> Response:
        if group_by not in {None, "workspace"}:
            raise BadRequest("group_by is `workspace` or left out", param="group_by")
        if user_id is not None:
            raise BadRequest("usage is not kept by user: leave user_id out", param="user_id")
        today = buckets.today()
        first = day_in(date, "date") if date is not None else today - buckets.ACTIVITY_DAYS
        last = first if date is not None else today
        query = buckets.activity_query(first, last, by_team=group_by == "workspace")
        teams = None if workspace_id is None else (workspace_id,)
        who = methods.Caller(_team(caller), teams, api_key_hash)
        used = await books.ask(methods.USAGE, (query, who))
        hits = await books.ask(methods.CACHE_HITS, (query, who))
        return _json({"data": buckets.activity(used, query, hits)})

    @router.get("/api/v1/usage", summary="Usage and charges by day or hour of one's own team")
    async def usage(
        caller: Principal = known,
        team: str | None = None,
        first: Annotated[str | None, Query(alias="from")] = None,
        last: Annotated[str | None, Query(alias="to")] = None,
        granularity: str = "day",
        group_by: Annotated[str, Query(max_length=100)] = "model",
    ) -> Response:
        query = buckets.usage_query(first, last, granularity, group_by)
        who = methods.Caller(_team(caller), None if team is None else (team,))
        return _json(buckets.usage(await books.ask(methods.USAGE, (query, who)), query))


def _add_organization(router: APIRouter, books: Asking, managing: Any) -> None:
    @router.get("/v1/organization/usage/completions", summary="Usage in buckets, OpenAI's form")
    async def completions(request: Request, _caller: Principal = managing) -> Response:
        asked = buckets.Asked.read(request.query_params.multi_items(), costs=False, now=time.time())
        found = await books.ask(methods.USAGE, (asked.query, methods.Caller(None, None, "", asked.keys)))
        return _json(buckets.usage_page(asked, found))

    @router.get("/v1/organization/costs", summary="Costs in daily buckets, OpenAI's form")
    async def costs(request: Request, _caller: Principal = managing) -> Response:
        asked = buckets.Asked.read(request.query_params.multi_items(), costs=True, now=time.time())
        found = await books.ask(methods.USAGE, (asked.query, methods.Caller(None, None, "", asked.keys)))
        return _json(buckets.cost_page(asked, found))


def _team(caller: Principal) -> str | None:
    """Return the only team a caller may see, or None for all."""
    return None if caller.management else caller.team


def _json(document: Any) -> Response:
    return Response(_encode(document), media_type="application/json")
