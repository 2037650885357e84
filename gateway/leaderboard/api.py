"""The boards over HTTP: rankings, records, milestones, OpenRouter's datasets, and the register of apps.

Who may see what is decided by ``gateway.leaderboard.view`` from the configuration of the moment; how often, by the
keeper for all workers together. Errors are ``WeirError``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.access.principal import Principal
from gateway.config.snapshot import BoardsSpec
from gateway.leaderboard import datasets, document
from gateway.leaderboard import question as asked
from gateway.leaderboard.attribution import title_of
from gateway.leaderboard.view import View, view_of, visit_of
from gateway.leaderboard.window import board_window, dataset_window, moment_text, record_window
from gateway.types.errors import BadRequest, Forbidden
from gateway.types.method import Asking

MOST_ROWS: Final = 500
Authenticate = Callable[[Request], Principal]
Day = Annotated[str | None, Query(max_length=32)]
Word = Annotated[str | None, Query(max_length=64)]
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the routes work with.

    Attributes:
        books: the keeper.
        boards: returns the owner's rules of now.
        authenticate: tells who holds the key of a request; raises ``Unauthorized`` without one.
        operator: likewise, for the management key alone.
        sees_costs: whether a management key of a role may be shown what the owner pays.
    """

    books: Asking
    boards: Callable[[], BoardsSpec]
    authenticate: Authenticate
    operator: Authenticate
    sees_costs: Callable[[str], bool]


def build_router(around: Surroundings) -> APIRouter:
    """Return the routes of the boards."""
    router = APIRouter(tags=["rankings"], responses={"4XX": {"description": "Refused; `error.message` says why."}})
    _add_rankings(router, around)
    _add_datasets(router, around)
    _add_apps(router, around)
    return router


def _caller(around: Surroundings) -> Callable[[Request], Principal | None]:
    """Return a dependency that tells who asks; None for who sends no key, where boards are shown without one."""

    def authenticate(request: Request) -> Principal | None:
        if around.boards().keyless and not {"authorization", "x-api-key"} & set(request.headers.keys()):
            return None
        return around.authenticate(request)

    return authenticate


async def _admit(around: Surroundings, request: Request, caller: Principal | None, by: asked.By, team: str) -> View:
    """Return what a caller is shown, and count the visit."""
    boards = around.boards()
    view = view_of(caller, by, boards, team)
    if caller is not None and not around.sees_costs(caller.role):
        view = replace(view, owner=False)
    visit = visit_of(caller, request.client.host if request.client else "", boards)
    if visit is not None:
        await around.books.ask(asked.VISIT, (visit,))
    return view


def _add_rankings(router: APIRouter, around: Surroundings) -> None:
    caller = Depends(_caller(around))

    @router.get("/api/v1/rankings", summary="A leaderboard of a window of days or hours")
    async def rankings(
        request: Request,
        by: Word = None,
        measure: Word = None,
        start: Annotated[str | None, Query(alias="from", max_length=32)] = None,
        to: Day = None,
        granularity: Word = None,
        limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 50,
        team: Annotated[str, Query(max_length=64)] = "",
        dollar: Word = None,
        who: Principal | None = caller,
    ) -> Response:
        board: asked.By = _one_of(by, "model", asked.BOARDS, "by")
        grain: asked.Grain = _one_of(granularity, "day", ("day", "hour"), "granularity")
        basis: asked.Basis = _one_of(dollar, "charge", ("charge", "cost"), "dollar")
        measured: asked.Measure = _one_of(measure, "tokens", asked.MEASURES, "measure")
        window = board_window(start, to, grain, _now_us())
        view = await _admit(around, request, who, board, team)
        if basis == "cost" and not view.owner:
            raise Forbidden("what the owner pays is shown to the owner alone")
        question = asked.Question(
            board, measured, window.first, window.last, grain, view.team, limit, basis, view.approved
        )
        found = await around.books.ask(asked.BOARD, (question,))
        return _json(document.board_object(found, question, window, owner=view.owner))

    @router.get("/api/v1/rankings/records", summary="Biggest days, longest lead, first over a line")
    async def records(
        request: Request,
        by: Word = None,
        measure: Word = None,
        start: Annotated[str | None, Query(alias="from", max_length=32)] = None,
        to: Day = None,
        team: Annotated[str, Query(max_length=64)] = "",
        who: Principal | None = caller,
    ) -> Response:
        board: asked.By = _one_of(by, "model", asked.BOARDS, "by")
        measured: asked.Measure = _one_of(measure, "tokens", asked.MEASURES, "measure")
        window = record_window(start, to, _now_us())
        view = await _admit(around, request, who, board, team)
        question = asked.RecordsQuestion(board, measured, window.first, window.last, view.team, view.approved)
        found = await around.books.ask(asked.RECORDS, (question,))
        return _json(document.records_object(found, measured, window, _now_us()))

    @router.get("/api/v1/rankings/milestones", summary="When models first passed a number of tokens in a day")
    async def milestones(request: Request, who: Principal | None = caller) -> Response:
        view = await _admit(around, request, who, "model", "")
        # A milestone tells of all teams together, so a team's own part of the board has none.
        found = await around.books.ask(asked.MILESTONES) if not view.team else []
        data = [document.milestone_object(each) for each in found]
        return _json({"data": data, "meta": {"as_of": moment_text(_now_us()), "version": "v1"}})


def _add_datasets(router: APIRouter, around: Surroundings) -> None:
    caller = Depends(_caller(around))

    @router.get("/api/v1/datasets/rankings-daily", summary="Tokens of the top 50 models per day, OpenRouter's form")
    async def rankings_daily(
        request: Request,
        start_date: Day = None,
        end_date: Day = None,
        period: Word = None,
        modality: Word = None,
        context_bucket: Word = None,
        category: Word = None,
        language_type: Word = None,
        who: Principal | None = caller,
    ) -> Response:
        window = dataset_window(start_date, end_date, _now_us())
        grain = datasets.chosen(period, "day", datasets.PERIODS, "period")
        unrecorded = {"modality": modality, "context_bucket": context_bucket, "category": category}
        datasets.refuse_unrecorded(unrecorded | {"language_type": language_type})
        view = await _admit(around, request, who, "model", "")
        found = await around.books.ask(asked.DAYS, (asked.Days(window.first, window.last, view.team),))
        return _json({"data": datasets.daily_rows(found, grain), "meta": datasets.meta(window, _now_us())})

    @router.get("/api/v1/datasets/app-rankings", summary="Approved apps by tokens, OpenRouter's form")
    async def app_rankings(
        request: Request,
        start_date: Day = None,
        end_date: Day = None,
        sort: Word = None,
        category: Word = None,
        subcategory: Word = None,
        limit: Annotated[int, Query(ge=1, le=datasets.MOST_APPS)] = 50,
        offset: Annotated[int, Query(ge=0, le=datasets.MOST_APPS)] = 0,
        who: Principal | None = caller,
    ) -> Response:
        window = dataset_window(start_date, end_date, _now_us())
        order = datasets.chosen(sort, "popular", datasets.SORTS, "sort")
        categories = datasets.categories_of(category, subcategory)
        view = await _admit(around, request, who, "app", "")
        wanted = asked.AppWindow(window.first, window.last, categories, view.team)
        found = await around.books.ask(asked.APP_WINDOW, (wanted,))
        return _json({"data": datasets.app_rows(found, order, limit, offset), "meta": datasets.meta(window, _now_us())})


def _add_apps(router: APIRouter, around: Surroundings) -> None:
    operator = Depends(around.operator)

    @router.get("/api/v1/apps", summary="Apps that callers said they are")
    async def apps(status: Word = None, _who: Principal = operator) -> Response:
        wanted = None if status is None else _one_of(status, "", ("pending", "approved", "hidden"), "status")
        found = await around.books.ask(asked.APPS, (wanted,))
        return _json({"data": [document.app_object(each) for each in found]})

    async def decide(app: str, status: asked.AppStatus, title: str | None) -> Response:
        if title is not None and not title_of(title.encode()):
            raise BadRequest("title is no name: one line of up to 64 letters of one script, no markup", param="title")
        found = await around.books.ask(asked.DECIDE, (app, status, title))
        return _json({"data": document.app_object(found)})

    @router.post("/api/v1/apps/{app}/approve", summary="Name an app in public")
    async def approve(
        app: str, title: Annotated[str | None, Query(max_length=256)] = None, _who: Principal = operator
    ) -> Response:
        return await decide(app, "approved", title)

    @router.post("/api/v1/apps/{app}/hide", summary="Never name an app in public")
    async def hide(app: str, _who: Principal = operator) -> Response:
        return await decide(app, "hidden", None)


def _one_of(value: str | None, default: str, choices: tuple[str, ...], param: str) -> Any:
    """Return ``value``, or ``default``; its type is the one that ``choices`` are of."""
    return datasets.chosen(value, default, choices, param)


def _now_us() -> int:
    return time.time_ns() // 1000


def _json(found: Any) -> Response:
    return Response(_encode(found), media_type="application/json")
