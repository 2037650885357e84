"""Routing: decisions that were kept, each with its explanation, and what would be decided for a request now."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.responses import Response

from dashboards.visit import Page, Visit
from gateway.console.roles import Permission
from gateway.routing.decisions.record import FIND, RECENT, unpacked
from gateway.routing.decisions.shown import whole
from gateway.types import ids
from gateway.types.errors import NotFound, WeirError

PATH: Final = "/console/routing"
MOST: Final = 50
LONGEST: Final = 20_000


async def shown(visit: Visit) -> Response:
    """Show recent decisions, and the what-if form with its answer when one was asked for."""
    failed = visit.asked("failed") == "yes"
    decisions = await visit.site.books.ask(RECENT, (MOST, failed))
    answer, problem = _what_if(visit) if visit.asked("model") else (None, "")
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
        model=visit.asked("model"),
        preset=visit.asked("preset"),
        prompt=visit.request.query_params.get("prompt", "")[:LONGEST],
        longest=visit.asked("longest"),
    )


def _what_if(visit: Visit) -> tuple[dict[str, Any] | None, str]:
    """Return the explanation of the request that the form describes, or why there is none."""
    body: dict[str, Any] = {
        "model": visit.asked("model"),
        "messages": [{"role": "user", "content": visit.request.query_params.get("prompt", "")[:LONGEST] or "Hello"}],
    }
    longest = visit.asked("longest")
    if longest.isdigit() and 0 < int(longest) < 10**7:
        body["max_tokens"] = int(longest)
    try:
        return visit.site.explain(msgspec.json.encode(body), visit.asked("preset")), ""
    except WeirError as error:
        return {"candidates": [], "drops": error.metadata.get("drops", []), "pick": ""}, error.message


async def decision(visit: Visit) -> Response:
    """Show a kept decision."""
    request_id = ids.parse(visit.named("request_id"))
    found = None if request_id is None else await visit.site.books.ask(FIND, (request_id,))
    if found is None:
        raise NotFound("there is no such decision: only some are kept, for some days")
    try:
        told = whole(found, unpacked(found.content))
    except ValueError:
        raise NotFound("this decision was kept by another version of Weir and cannot be read") from None
    return visit.render("decision.html", told=told, found=found)


PAGES: Final = (
    Page(PATH, shown, Permission.ROUTING_SEE),
    Page(f"{PATH}/{{request_id}}", decision, Permission.ROUTING_SEE),
)
