"""Activity: usage with filters, as a chart and in groups; single requests by pages, exported exactly as shown."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import structs
from starlette.responses import Response

from dashboards import figures, forms
from dashboards.charts.usage import drawn
from dashboards.forms import Wrong
from dashboards.sheets import csv_of
from dashboards.span import SPANS, Span, named, span_of
from dashboards.standings import tick
from dashboards.views.overview import per_point, total
from dashboards.visit import Page, Visit
from gateway.console.measure import (
    KEY_NAMES,
    REQUESTS,
    REST,
    USAGE,
    Group,
    KeyName,
    Pick,
    Ranked,
    RequestRow,
    RequestsQuestion,
    Sum,
    UsageQuestion,
)
from gateway.console.roles import Permission
from gateway.metering.record import Status
from gateway.types import ids
from gateway.types.errors import BadRequest, NotFound
from gateway.types.money import usd_text

PATH: Final = "/console/activity"
BY: Final[dict[str, Group]] = {
    "model": "model",
    "team": "team",
    "key": "key_id",
    "endpoint": "endpoint",
    "app": "app",
    "status": "status",
}
"""Groups by their name in the URL."""
MEASURES: Final[tuple[tuple[Ranked, str], ...]] = (
    ("tokens", "Tokens"),
    ("charge", "Spend"),
    ("requests", "Requests"),
    ("errors", "Errors"),
)
PAGE: Final = 25
GROUPED: Final = 12
"""Names that are told apart."""
_CHARTED: Final = ("requests", "errors", "tokens_prompt", "tokens_completion", "tokens_cached", "charge_usd")
_LISTED: Final = (
    *("id", "at", "attempt", "team", "key", "model", "endpoint", "app", "status", "finish_reason", "error"),
    *("tokens_prompt", "tokens_completion", "tokens_cached", "charge_usd", "ttft_ms", "duration_ms"),
)
_COSTS: Final = ("cost_usd", "backend")
"""Columns of the files, which have them without a line too; what the owner pays is only for who sees that."""


def picked(visit: Visit) -> Pick:
    """Return whose usage the URL asks for, as far as the visitor reaches. Raises ``NotFound`` beyond."""
    reached = visit.reach(Permission.USAGE_SEE)
    team = visit.asked("team")
    if team and not reached.covers(team):
        raise NotFound("there is no such team")
    return Pick(
        teams=None if reached.everything else tuple(sorted(reached.teams)),
        team=team,
        key_id=visit.asked("key"),
        model=visit.asked("model"),
        endpoint=visit.asked("endpoint"),
        app=visit.asked("app"),
        status=visit.asked("status"),
    )


def window(visit: Visit) -> Span:
    """Return the days that the URL names, or its window. Raises ``Wrong``."""
    first, last = visit.asked("from"), visit.asked("to")
    return named(first, last, visit.now_us) if first or last else span_of(visit.asked("span"), visit.now_us, "7d")


def grouped(visit: Visit) -> str:
    """Return by what the URL groups."""
    by = visit.asked("by", "model")
    return by if by in BY else "model"


def measured(visit: Visit) -> Ranked:
    """Return what the URL measures."""
    wanted = visit.asked("measure")
    return next((each for each, _ in MEASURES if each == wanted), "tokens")


def _backend(visit: Visit) -> str:
    """Return the backend whose requests the URL asks for. Raises ``NotFound`` for who does not see backends."""
    backend = visit.asked("backend")
    if backend and not visit.may(Permission.COST_SEE):
        raise NotFound("there is no such backend")
    return backend


def _endpoints(visit: Visit, backend: str) -> tuple[list[str], str]:
    """Return the endpoints that a backend serves now, and the one whose sums are the backend's: ``""`` for none.

    Sums are kept by endpoint, so they are those of a backend where it has one endpoint and shares it with nobody.
    """
    behind: dict[str, set[str]] = {}
    for model in visit.site.registry.fleet.models.values():
        for candidate in model.candidates:
            behind.setdefault(candidate.endpoint.slug, set()).add(candidate.replica.name)
    slugs = sorted(slug for slug, backends in behind.items() if backend in backends)
    return slugs, slugs[0] if len(slugs) == 1 and len(behind[slugs[0]]) == 1 else ""


def _known(visit: Visit) -> dict[str, list[str]]:
    """Return what may be picked, by filter: what is served now, and the visitor's teams where these are few."""
    fleet, reached = visit.site.registry.fleet, visit.reach(Permission.USAGE_SEE)
    return {
        "team": [] if reached.everything else sorted(reached.teams),
        "model": sorted(fleet.models),
        "endpoint": sorted({endpoint.slug for model in fleet.models.values() for endpoint in model.endpoints}),
        "backend": sorted(fleet.replicas),
    }


def _summed(visit: Visit, pick: Pick, backend: str) -> Pick | None:
    """Return whose sums are those of what is picked and of ``backend``; None where no sums are."""
    if not backend:
        return pick
    _, alone = _endpoints(visit, backend)
    return structs.replace(pick, endpoint=alone) if alone and pick.endpoint in ("", alone) else None


def _question(span: Span, by: str, pick: Pick, measure: Ranked) -> UsageQuestion:
    return UsageQuestion(span.grain, span.first, span.last, BY[by], pick, most=GROUPED, by=measure)


def value(row: Sum, measure: str) -> int:
    """Return what is measured of a sum."""
    return {"charge": row.charge_nano, "requests": row.requests, "errors": row.errors}.get(measure, row.tokens)


def words(measure: str) -> Callable[[float], str]:
    """Return what says a value of a measure at an axis."""
    return partial(tick, "spend" if measure == "charge" else "tokens")


async def shown(visit: Visit) -> Response:
    """Show it."""
    errors: dict[str, str] = {}
    try:
        span = window(visit)
    except Wrong as error:
        errors, span = forms.problem(error, "from"), span_of("", visit.now_us, "7d")
    pick, by, measure, backend = picked(visit), grouped(visit), measured(visit), _backend(visit)
    before = _cursor(visit.asked("before"))
    ask, summed = visit.site.books.ask, _summed(visit, pick, backend)
    rows, page = await asyncio.gather(
        _nothing() if summed is None else ask(USAGE, (_question(span, by, summed, measure),)),
        ask(REQUESTS, (RequestsQuestion(*span.hours, pick, before, PAGE, backend),)),
    )
    used = {row.name for row in rows} if by == "key" else set()
    called = await ask(KEY_NAMES, (tuple(sorted(used.union(row.key_id for row in page.rows))),))
    keys = {each.key_id: each.name for each in called}
    titles = _told_apart(called) if by == "key" else None
    return visit.render(
        "activity.html",
        status=400 if errors else 200,
        errors=errors,
        days={name: visit.asked(name) for name in ("from", "to")},
        span=span,
        spans=SPANS,
        by=by,
        groups=[(name, name) for name in BY],
        measure=measure,
        measures=MEASURES,
        pick=pick,
        backend=backend,
        known=_known(visit),
        endpoints=None if summed is not None else _endpoints(visit, backend)[0],
        total=total(rows),
        chart=drawn(rows, span, partial(value, measure=measure), words(measure), titles),
        exact=figures.exact_usd if measure == "charge" else figures.whole,
        points=per_point(rows, span),
        groups_of=_groups(rows, measure),
        others=REST,
        name_of=lambda name: (titles or {}).get(name, name),
        rows=page.rows,
        more=page.next.hex(),
        begun=bool(before),
        keys=keys,
        id_of=ids.text,
        at=lambda row: ids.unix_ms(row.request_id) * 1_000,
        statuses=[status.value for status in Status],
        sees_cost=visit.may(Permission.COST_SEE),
    )


async def _nothing() -> Sequence[Sum]:
    return ()


def _cursor(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return b""
    return found if len(found) == 16 else b""


def _told_apart(named: Sequence[KeyName]) -> dict[str, str]:
    """Return what keys are called, by id: those of one name with their team, those of one team with their id."""
    names = Counter(each.name for each in named)
    within = Counter((each.name, each.team) for each in named)

    def title(key: KeyName) -> str:
        if names[key.name] == 1:
            return key.name
        return f"{key.name} ({key.team if within[key.name, key.team] == 1 else key.key_id})"

    return {each.key_id: title(each) for each in named}


def _groups(rows: Sequence[Sum], measure: str) -> list[tuple[str, dict[str, int], float]]:
    """Return names with their sums and their share of the biggest, the others together at the end."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        sums = found.setdefault(row.name, dict.fromkeys(("tokens", "requests", "errors", "charge", "value"), 0))
        sums["tokens"] += row.tokens
        sums["requests"] += row.requests
        sums["errors"] += row.errors
        sums["charge"] += row.charge_nano
        sums["value"] += value(row, measure)
    ranked = sorted(found.items(), key=lambda each: (each[0] == REST, -each[1]["value"], each[0]))
    top = max((sums["value"] for name, sums in ranked if name != REST), default=0)
    return [(name, sums, sums["value"] / top if top else 0.0) for name, sums in ranked]


def _exported(row: RequestRow, *, cost: bool) -> dict[str, Any]:
    """Return a request as files have it."""
    found: dict[str, Any] = {
        "id": ids.text(row.request_id),
        "at": figures.stamp(ids.unix_ms(row.request_id) * 1_000),
        "attempt": row.attempt,
        "team": row.team,
        "key": row.key_id,
        "model": row.model,
        "endpoint": row.endpoint,
        "app": row.app,
        "status": row.status,
        "finish_reason": row.finish_reason,
        "error": row.error,
        "tokens_prompt": row.prompt,
        "tokens_completion": row.completion,
        "tokens_cached": row.cached,
        "charge_usd": usd_text(row.charge_nano),
        "ttft_ms": row.ttft_us / 1_000 if row.ttft_us else None,
        "duration_ms": row.duration_us / 1_000,
    }
    return found | ({"cost_usd": usd_text(row.cost_nano), "backend": row.backend} if cost else {})


async def chart(visit: Visit) -> Response:
    """Give out the chart of a page as CSV or JSON: each name that is told apart at each point, the others together."""
    try:
        span = window(visit)
    except Wrong as error:
        raise BadRequest(error.message, param=error.field) from None
    by, measure, cost = grouped(visit), measured(visit), visit.may(Permission.COST_SEE)
    summed = _summed(visit, picked(visit), _backend(visit))
    if summed is None:
        raise BadRequest("sums are kept by endpoint, and this backend shares its own with others", param="backend")
    found = await visit.site.books.ask(USAGE, (_question(span, by, summed, measure),))
    rows = [
        {
            span.grain: span.stamp(row.point),
            by: "others" if row.name == REST else row.name,
            "requests": row.requests,
            "errors": row.errors,
            "tokens_prompt": row.prompt,
            "tokens_completion": row.completion,
            "tokens_cached": row.cached,
            "charge_usd": usd_text(row.charge_nano),
        }
        | ({"cost_usd": usd_text(row.cost_nano)} if cost else {})
        for row in sorted(found, key=lambda each: (each.point, each.name == REST, each.name))
    ]
    columns = (span.grain, by, *_CHARTED, *(_COSTS[:1] if cost else ()))
    return _given(visit, rows, {"data": rows}, f"activity-by-{by}", columns)


async def export(visit: Visit) -> Response:
    """Give out the requests of a page as CSV or JSON: the very rows that the page shows."""
    try:
        span, pick = window(visit), picked(visit)
    except Wrong as error:
        raise BadRequest(error.message, param=error.field) from None
    before = _cursor(visit.asked("before"))
    question = RequestsQuestion(*span.hours, pick, before, PAGE, _backend(visit))
    page = await visit.site.books.ask(REQUESTS, (question,))
    cost = visit.may(Permission.COST_SEE)
    rows = [_exported(row, cost=cost) for row in page.rows]
    columns = (*_LISTED, *(_COSTS if cost else ()))
    return _given(visit, rows, {"data": rows, "next": page.next.hex()}, "activity", columns)


def _given(visit: Visit, rows: Sequence[dict[str, Any]], whole: Any, name: str, columns: Sequence[str]) -> Response:
    """Return ``rows`` as CSV or ``whole`` as JSON, whichever the path asks for. Raises ``NotFound``."""
    if visit.named("form") == "json":
        return Response(msgspec.json.encode(whole), media_type="application/json")
    if visit.named("form") != "csv":
        raise NotFound("there is no such form")
    return csv_of(rows, name, columns)


PAGES: Final = (
    Page(PATH, shown, Permission.USAGE_SEE),
    Page(f"{PATH}/export.{{form}}", export, Permission.USAGE_SEE),
    Page(f"{PATH}/chart.{{form}}", chart, Permission.USAGE_SEE),
)
