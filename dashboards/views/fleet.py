"""Fleet: every backend as it is now, and draining one."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from dashboards.machines import machines
from dashboards.views.live import fleet_now
from dashboards.visit import Page, Visit
from gateway.console.question import DRAIN
from gateway.console.roles import Permission
from gateway.types.errors import NotFound

PATH: Final = "/console/fleet"


async def fleet(visit: Visit) -> Response:
    """Show it."""
    return visit.render(
        "fleet.html",
        machines=machines(visit.site),
        live=fleet_now(visit),
        drives=visit.may(Permission.FLEET_DRIVE),
        done=visit.asked("done"),
        name=visit.asked("name"),
    )


async def drain(visit: Visit) -> Response:
    """Drain a backend, or let it take requests again."""
    name, drained = visit.form.get("backend", ""), visit.form.get("drained") == "yes"
    replica = visit.site.registry.fleet.replicas.get(name)
    if replica is None:
        raise NotFound("there is no such backend")
    await visit.site.books.ask(DRAIN, (name, drained))
    replica.load.draining = drained  # other workers learn of it within seconds
    return visit.go(PATH, done="drained" if drained else "enabled", name=name)


PAGES: Final = (
    Page(PATH, fleet, Permission.FLEET_SEE),
    Page(f"{PATH}/drain", drain, Permission.FLEET_DRIVE, ("POST",)),
)
