"""Fleet: every backend as it is now, what its tokens cost, draining and calibrating one, models nobody serves yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.responses import Response

from dashboards.machines import look_around, machines
from dashboards.views.live import fleet_now
from dashboards.visit import Page, Visit
from gateway.admin.models.offers import offers
from gateway.console import calibrating
from gateway.console.measure import YIELDS, Yield
from gateway.console.question import CALIBRATIONS, DRAIN
from gateway.console.roles import Permission
from gateway.fleet.egress import EgressGuard
from gateway.fleet.snapshot import Fleet
from gateway.pricing.charge import tokens_per_usd
from gateway.types.errors import Conflict, NotFound

PATH: Final = "/console/fleet"
YIELD_DAYS: Final = 7


async def fleet(visit: Visit) -> Response:
    """Show it."""
    return await _shown(visit, {})


async def _shown(visit: Visit, problems: dict[str, str], status: int = 200) -> Response:
    """Show the fleet; ``problems`` are told at their backends."""
    now, books = visit.site.registry.fleet, visit.site.books
    await look_around(visit.site)
    yields: dict[str, Yield] = {}
    if visit.may(Permission.COST_SEE):
        slugs = _billed(now)
        day = visit.now_us // 86_400_000_000
        found = await books.ask(YIELDS, (day - YIELD_DAYS + 1, day, tuple(sorted(slugs))))
        yields = _by_backend(found, slugs)
    return visit.render(
        "fleet.html",
        status=status,
        machines=machines(visit.site),
        live=fleet_now(visit),
        drives=visit.may(Permission.FLEET_DRIVE),
        sees_cost=visit.may(Permission.COST_SEE),
        yields=yields,
        yield_days=YIELD_DAYS,
        per_usd=tokens_per_usd,
        calibrations={each.backend: each for each in await books.ask(CALIBRATIONS)},
        external={name for name, replica in now.replicas.items() if replica.engine.external},
        offers=offers(now),
        problems=problems,
        done=visit.asked("done"),
        name=visit.asked("name"),
    )


def _billed(fleet: Fleet) -> dict[str, str]:
    """Return the backend behind each endpoint that is billed by token, ``""`` where there are several."""
    found: dict[str, str] = {}
    for model in fleet.models.values():
        for candidate in model.candidates:
            if candidate.cost is not None:
                slug, name = candidate.endpoint.slug, candidate.replica.name
                found[slug] = name if found.get(slug, name) == name else ""
    return found


def _by_backend(found: Sequence[Yield], slugs: dict[str, str]) -> dict[str, Yield]:
    """Return what each backend yielded; an endpoint with several backends says nothing of one of them."""
    sums: dict[str, Yield] = {}
    for each in found:
        name = each.backend or slugs.get(each.endpoint, "")
        if name:
            known = sums.get(name, Yield(name, "", 0, 0))
            sums[name] = Yield(
                name,
                "",
                known.tokens + each.tokens,
                known.cost_nano + each.cost_nano,
                known.idle_nano + each.idle_nano,
            )
    return sums


def _named(visit: Visit) -> str:
    name = visit.form.get("backend", "")
    if name not in visit.site.registry.fleet.replicas:
        raise NotFound("there is no such backend")
    return name


async def drain(visit: Visit) -> Response:
    """Drain a backend, or let it take requests again."""
    name, drained = _named(visit), visit.form.get("drained") == "yes"
    await visit.site.books.ask(DRAIN, (name, drained))
    # Other workers learn of it within seconds.
    visit.site.registry.fleet.replicas[name].load.draining = drained
    return visit.go(PATH, done="drained" if drained else "enabled", name=name)


async def calibrate(visit: Visit) -> Response:
    """Begin to calibrate a backend; it goes on when the answer is out, and the page shows how it ended."""
    name = _named(visit)
    guard = EgressGuard(visit.site.config().egress)
    try:
        task = await calibrating.run(visit.site.books, visit.site.registry.fleet, name, guard)
    except calibrating.CannotCalibrate as error:
        return await _shown(visit, {name: f"{name} cannot be calibrated: {error}"}, 400)
    except Conflict as error:
        return await _shown(visit, {name: error.message}, 409)
    running = visit.site.shelf.setdefault("calibrations", set())
    running.add(task)  # a task that nobody holds may be collected before its end
    task.add_done_callback(running.discard)
    return visit.go(PATH, done="calibrating", name=name)


PAGES: Final = (
    Page(PATH, fleet, Permission.FLEET_SEE),
    Page(f"{PATH}/drain", drain, Permission.FLEET_DRIVE, ("POST",)),
    Page(f"{PATH}/calibrate", calibrate, Permission.FLEET_DRIVE, ("POST",)),
)
