"""Routing: kept decisions with their explanation, what would be decided now, presets, and reports of the lab."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from starlette.responses import Response

from dashboards import reports
from dashboards.visit import Page, Visit
from gateway.console.roles import Permission
from gateway.routing.decisions.record import FIND, RECENT, unpacked
from gateway.routing.decisions.shown import whole
from gateway.routing.explain import without_costs
from gateway.types import ids
from gateway.types.errors import NotFound, WeirError

PATH: Final = "/console/routing"
MOST: Final = 50
LONGEST: Final = 20_000


async def shown(visit: Visit) -> Response:
    """Show recent decisions, and the what-if form with its answer when one was asked for."""
    failed = visit.asked("failed") == "yes"
    decisions = await visit.site.books.ask(RECENT, (MOST, failed))
    longest = visit.asked("longest")
    wrong = {} if not longest or _tokens(longest) else {"longest": "a whole number of tokens, or nothing"}
    answer, problem = _what_if(visit) if visit.asked("model") and not wrong else (None, "")
    return visit.render(
        "routing.html",
        decisions=decisions,
        failed=failed,
        id_of=ids.text,
        models=[*sorted(visit.site.registry.fleet.models), *sorted(visit.site.registry.fleet.aliases)],
        presets=sorted(visit.site.presets),
        default=visit.site.registry.fleet.default_preset,
        answer=answer,
        problem=problem,
        errors=wrong,
        model=visit.asked("model"),
        preset=visit.asked("preset"),
        prompt=visit.request.query_params.get("prompt", "")[:LONGEST],
        longest=longest,
        policies=sorted(visit.site.policies.values(), key=lambda each: each.name),
        reports=await asyncio.to_thread(reports.listed, visit.site.reports),
    )


def _tokens(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) < 10**7 else None


def _what_if(visit: Visit) -> tuple[dict[str, Any] | None, str]:
    """Return the explanation of the request that the form describes, or why there is none."""
    body: dict[str, Any] = {
        "model": visit.asked("model"),
        "messages": [{"role": "user", "content": visit.request.query_params.get("prompt", "")[:LONGEST] or "Hello"}],
    }
    longest = _tokens(visit.asked("longest"))
    if longest is not None:
        body["max_tokens"] = longest
    try:
        explained = visit.site.explain(msgspec.json.encode(body), visit.asked("preset"))
        return explained if visit.may(Permission.COST_SEE) else without_costs(explained), ""
    except WeirError as error:
        return {"candidates": [], "drops": error.metadata.get("drops", []), "pick": ""}, error.message


async def decision(visit: Visit) -> Response:
    """Show a kept decision."""
    request_id = ids.parse(visit.named("request_id"))
    found = None if request_id is None else await visit.site.books.ask(FIND, (request_id,))
    if found is None:
        raise NotFound("there is no such decision: only some are kept, for some days")
    try:
        told = whole(found, unpacked(found.content), owner=visit.may(Permission.COST_SEE))
    except ValueError:
        raise NotFound("this decision was kept by another version of Weir and cannot be read") from None
    return visit.render("decision.html", told=told, found=found)


async def preset(visit: Visit) -> Response:
    """Show what a preset is made of, part by part, and its file."""
    found = visit.site.policies.get(visit.named("preset"))
    if found is None:
        raise NotFound("there is no such preset")
    file = visit.site.preset_folder / f"{found.name}.yaml"
    return visit.render(
        "preset.html",
        policy=found,
        usual=visit.site.registry.fleet.default_preset,
        said=said,
        text=(await asyncio.to_thread(file.read_text, "utf-8")),
    )


def said(part: object) -> str:
    """Return the first sentence of what a part of a preset says of itself, without the marks of names."""
    return " ".join((type(part).__doc__ or "").partition("\n\n")[0].replace("``", "").split())


async def report(visit: Visit) -> Response:
    """Give out a report of the lab."""
    page = await asyncio.to_thread(reports.content, visit.site.reports, visit.named("report"))
    if page is None:
        raise NotFound("there is no such report")
    return Response(page, media_type="text/html", headers={"content-security-policy": reports.policy(page)})


PAGES: Final = (
    Page(PATH, shown, Permission.ROUTING_SEE),
    Page(f"{PATH}/presets/{{preset}}", preset, Permission.ROUTING_SEE),
    Page(f"{PATH}/lab/{{report}}", report, Permission.ROUTING_SEE),
    Page(f"{PATH}/{{request_id}}", decision, Permission.ROUTING_SEE),
)
