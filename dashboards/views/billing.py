"""Billing: periods, closing one, statements of teams, exports, and what goes out to sinks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import Response, StreamingResponse

from dashboards.visit import Page, Visit
from gateway.billing import methods, paper
from gateway.billing.export import export_of, pieces, selection
from gateway.billing.period import day_text, days_of
from gateway.billing.table import FORMATS
from gateway.config.snapshot import SinkSpec
from gateway.console.measure import USAGE, Pick, Sum, UsageQuestion
from gateway.console.roles import Permission
from gateway.types.errors import BadRequest, NotFound

PATH: Final = "/console/billing"
EXPORTS: Final = tuple((dataset, form) for dataset in ("focus", "usage") for form in FORMATS)
"""Exports of a period, and their forms."""
TYPES: Final = {"json": "application/json", "csv": "text/csv", "html": "text/html", "text": "text/plain"}


async def listed(visit: Visit) -> Response:
    """List the periods with what was, or will be, charged."""
    return await _listed(visit)


async def _listed(visit: Visit, period: str = "", error: str = "") -> Response:
    """List the periods; with ``error``, what is wrong with what was written to close ``period``."""
    books, whole = visit.site.books, visit.reach(Permission.BILLING_SEE).everything
    periods = await books.ask(methods.PERIODS)
    return visit.render(
        "billing.html",
        status=400 if error else 200,
        periods=sorted(periods, key=lambda each: each.period, reverse=True),
        whole=whole,
        waits=_waits([each.period for each in periods if each.state != "closed"], visit.now_us // 86_400_000_000),
        closes=visit.may(Permission.BILLING_CLOSE),
        # What has no sink is an order to make deliveries, not one of them.
        outbox=[item for item in await books.ask(methods.OUTBOX) if item.sink][:50] if whole else (),
        sinks=[(sink, _goes_to(sink)) for sink in visit.site.config().billing.sinks] if whole else (),
        errors={period: error},
        typed={period: visit.form.get("confirm", "")[:40]} if error else {},
        done=visit.asked("done"),
    )


def _waits(opened: list[str], today: int) -> dict[str, str]:
    """Return what each of the open periods waits for before it can be closed; the one that can be is not among them."""
    due, waits = min(opened, default=""), {}
    for each in opened:
        last = days_of(each)[1]
        if last >= today:
            waits[each] = f"ends with {day_text(last)}"
        elif each != due:
            waits[each] = f"after {due}"
    return waits


async def period(visit: Visit) -> Response:
    """Show the teams of a period within reach, each with its statement."""
    name = visit.named("period")
    found = next((each for each in await visit.site.books.ask(methods.PERIODS) if each.period == name), None)
    if found is None:
        raise NotFound("there is no such period")
    teams = await visit.site.books.ask(methods.TEAMS, (name,))
    within = [team for team in teams if visit.may(Permission.BILLING_SEE, team.slug)]
    return visit.render(
        "period.html",
        period=found,
        teams=within,
        metered=await _metered(visit, name, [team.slug for team in within]),
        forms=paper.FORMS,
        exports=EXPORTS,
        closes=visit.may(Permission.BILLING_CLOSE),
        whole=visit.reach(Permission.BILLING_SEE).everything,
    )


async def _metered(visit: Visit, period: str, teams: list[str]) -> dict[str, Sum]:
    """Return what each of ``teams`` used on the days of a month."""
    year, month = map(int, period.split("-"))
    first = datetime(year, month, 1, tzinfo=UTC)
    begin, end = (int(each.timestamp()) // 86_400 for each in (first, (first + timedelta(days=31)).replace(day=1)))
    question = UsageQuestion("day", begin, end - 1, "team", Pick(tuple(teams)), series=False)
    return {row.name: row for row in await visit.site.books.ask(USAGE, (question,))}


async def statement(visit: Visit) -> Response:
    """Give out a team's statement."""
    team, form = visit.named("team"), visit.named("form")
    visit.need(Permission.BILLING_SEE, team)
    if form not in paper.FORMS:
        raise NotFound("there is no such form")
    try:
        found = await visit.site.books.ask(methods.STATEMENT, (visit.named("period"), team, form))
    except (BadRequest, NotFound):
        raise NotFound("there is no such statement") from None
    name = f"statement-{visit.named('period')}-{team}.{form}"
    headers = {"content-disposition": f'attachment; filename="{name}"', "etag": f'"{found.digest}"'}
    return Response(found.content, media_type=TYPES.get(form, "application/octet-stream"), headers=headers)


def _goes_to(sink: SinkSpec) -> str:
    """Return where a sink puts things; of an address only the host, for the rest may be secret."""
    if sink.kind == "folder":
        return sink.path or ""
    if sink.kind == "s3":
        return f"{sink.bucket}/{sink.prefix}"
    return urlsplit(sink.url or "").hostname or sink.kind


async def export(visit: Visit) -> Response:
    """Give out an export of a period, as it is made; who sees all of billing alone may have it."""
    dataset, form = visit.named("dataset"), visit.named("form")
    if not visit.reach(Permission.BILLING_SEE).everything or (dataset, form) not in EXPORTS:
        raise NotFound("there is no such export")
    try:
        chosen = export_of(dataset, form, selection(None, visit.named("period"), None, None))
        made = pieces(visit.site.books, chosen)
        first = await anext(made, b"")
    except BadRequest:
        raise NotFound("there is no such export") from None

    async def rest() -> AsyncIterator[bytes]:
        yield first
        async for data in made:
            yield data

    headers = {"content-disposition": f'attachment; filename="{chosen.name}"'}
    return StreamingResponse(rest(), media_type=chosen.media, headers=headers)


async def close(visit: Visit) -> Response:
    """Close a period for good."""
    name = visit.form.get("period", "")
    if visit.form.get("confirm", "").strip() != name:
        return await _listed(visit, name, f"write {name} to close it for good")
    try:
        await visit.site.books.ask(methods.CLOSE, (name,))
    except BadRequest as error:
        return await _listed(visit, name, error.message)
    return visit.go(PATH, done="closed")


async def retry(visit: Visit) -> Response:
    """Try to deliver an item of the outbox again, now."""
    await visit.site.books.ask(methods.RETRY, (visit.form.get("item", "")[:100],))
    return visit.go(PATH, done="retried")


PAGES: Final = (
    Page(PATH, listed, Permission.BILLING_SEE),
    Page(f"{PATH}/close", close, Permission.BILLING_CLOSE, ("POST",)),
    Page(f"{PATH}/retry", retry, Permission.BILLING_CLOSE, ("POST",)),
    Page(f"{PATH}/{{period}}", period, Permission.BILLING_SEE),
    Page(f"{PATH}/{{period}}/exports/{{dataset}}.{{form}}", export, Permission.BILLING_SEE),
    Page(f"{PATH}/{{period}}/{{team}}.{{form}}", statement, Permission.BILLING_SEE),
)
