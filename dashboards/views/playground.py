"""Playground: any model, side by side, streaming, with the cost and speed of each answer and how it was routed.

The browser speaks to the gateway's own API with a key of the visitor's: one for each visitor and team, which lives for
half a day, gets a new secret whenever the page asks for one, and is metered and limited like any other. The page keeps
it in memory alone. It ends before, when its visitor may no longer use the playground there.
"""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.responses import Response

from dashboards.views.keys import teams_within
from dashboards.visit import Page, Visit
from gateway.console.question import User
from gateway.console.roles import Permission, reach
from gateway.types.errors import WeirError
from gateway.types.keys import KeyPatch, NewKey

PATH: Final = "/console/playground"
LIFE_US: Final = 12 * 3_600 * 1_000_000


async def shown(visit: Visit) -> Response:
    """Show it."""
    fleet = visit.site.registry.fleet
    chosen = [
        name for name in visit.request.query_params.getlist("model") if name in fleet.models or name in fleet.aliases
    ]
    return visit.render(
        "playground.html",
        models=[*sorted(fleet.models), *sorted(fleet.aliases)],
        chosen=(chosen or sorted(fleet.models)[:1])[:3],
        teams=await teams_within(visit, Permission.PLAYGROUND_USE),
        presets=sorted(visit.site.presets),
        default=fleet.default_preset,
    )


async def key(visit: Visit) -> Response:
    """Give the page a key of the visitor's in a team."""
    team, name = visit.form.get("team", ""), _name(visit.login)
    until = visit.now_us + LIFE_US
    try:
        visit.need(Permission.PLAYGROUND_USE, team)
        known = next((record for record in await visit.site.books.keys(team) if record.name == name), None)
        if known is None:
            issued = await visit.site.books.create_key(NewKey(name, team, expires_at=until))
        else:
            await visit.site.books.update_key(known.key_id, KeyPatch(expires_at=until))
            issued = await visit.site.books.rotate_key(known.key_id, 0.0)
    except WeirError as error:
        return Response(_encode({"error": error.message}), status_code=error.code, media_type="application/json")
    return Response(_encode({"key": issued.key}), media_type="application/json")


async def end_keys(visit: Visit, user: User) -> None:
    """Revoke the keys of ``user``, as who was just changed, where the playground is no longer theirs."""
    theirs = reach(() if user.disabled else user.grants, Permission.PLAYGROUND_USE)
    for record in await visit.site.books.keys():
        if record.name == _name(user.login) and not theirs.covers(record.team):
            await visit.site.books.revoke_key(record.key_id)


def _name(login: str) -> str:
    """Return what the key of a visitor is called."""
    return f"playground of {login}"[:100]


_encode: Final = msgspec.json.Encoder().encode
PAGES: Final = (
    Page(PATH, shown, Permission.PLAYGROUND_USE),
    Page(f"{PATH}/key", key, Permission.PLAYGROUND_USE, ("POST",)),
)
