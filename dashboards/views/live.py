"""Live figures: one stream of server-sent events for a page.

What is known in the process costs nothing and goes out every second; sums of today are asked of the keeper every five
seconds, once for all who look with the same reach. The stream ends after ten minutes, when the session has ended, or
when the reader goes; browsers connect again by themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Final

import msgspec
from starlette.responses import Response, StreamingResponse

from dashboards import door, figures
from dashboards.machines import Machine, look_around, machines
from dashboards.visit import Page, Visit
from gateway.console.measure import USAGE, Pick, Sum, UsageQuestion
from gateway.console.question import SESSION
from gateway.console.roles import Permission
from gateway.types.errors import Unavailable

BEAT_S: Final = 1.0
SUMS_S: Final = 5.0
LONGEST_S: Final = 600.0
SESSION_S: Final = 30.0
SAMPLES: Final = 600
"""Of the fleet that are kept."""
_SAMPLES: Final = "samples"


async def stream(visit: Visit) -> Response:
    """Send what changes."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_events(visit), media_type="text/event-stream", headers=headers)


async def _events(visit: Visit) -> AsyncIterator[bytes]:
    began = looked = time.monotonic()
    sent: dict[str, str] = {}
    token = door.session_token(visit.request)
    while (now := time.monotonic()) - began < LONGEST_S:
        if now - looked >= SESSION_S:
            looked = now
            with suppress(Unavailable):
                if await visit.site.books.ask(SESSION, (token,)) is None:
                    return
        found = await _today(visit)
        if visit.may(Permission.FLEET_SEE):
            await look_around(visit.site)
            found |= fleet_now(visit)
        news = {name: value for name, value in found.items() if sent.get(name) != value}
        sent |= news
        yield b"data: " + msgspec.json.encode(news) + b"\n\n" if news else b": beat\n\n"
        await asyncio.sleep(BEAT_S)


def fleet_now(visit: Visit) -> dict[str, str]:
    """Return what the whole fleet and each backend of it does now."""
    fleet = machines(visit.site)
    found: dict[str, str] = {}
    for machine in fleet:
        found |= machine.live()
    usable = [machine.saturation for machine in fleet if machine.state in ("ready", "cooling")]
    _note(visit, fleet, usable)
    return found | {
        "now.sample": visit.site.shelf[_SAMPLES][-1],
        "now.in_flight": figures.whole(sum(machine.in_flight for machine in fleet)),
        "now.waiting": figures.short(sum(machine.waiting or 0 for machine in fleet)),
        "now.saturation": figures.percent(sum(usable) / len(usable)) if usable else figures.NONE,
        "now.ready": f"{len(usable)} of {len(fleet)}",
    }


def history(visit: Visit) -> str:
    """Return what was seen of the fleet lately, while somebody looked: samples of ``now.sample``, oldest first."""
    return " ".join(visit.site.shelf.get(_SAMPLES, ()))


def _note(visit: Visit, fleet: Sequence[Machine], usable: Sequence[float]) -> None:
    """Keep a sample a second: seconds since 1970, requests in flight, waiting, mean saturation."""
    samples: deque[str] = visit.site.shelf.setdefault(_SAMPLES, deque(maxlen=SAMPLES))
    now = time.time_ns() // 1_000_000_000
    if not samples or int(samples[-1].partition(",")[0]) < now:
        in_flight = sum(machine.in_flight for machine in fleet)
        waiting = sum(machine.waiting or 0 for machine in fleet)
        full = sum(usable) / len(usable) if usable else 0.0
        samples.append(f"{now},{in_flight},{waiting:.0f},{full:.3f}")


async def _today(visit: Visit) -> dict[str, str]:
    """Return the sums of today within the visitor's reach; those of a moment ago while the books are away."""
    found = visit.reach(Permission.USAGE_SEE)
    teams = None if found.everything else tuple(sorted(found.teams))
    shelf, now = visit.site.shelf, time.monotonic()
    name = f"today {teams}"
    known: tuple[float, dict[str, str]] = shelf.get(name, (0.0, {}))
    if now - known[0] < SUMS_S:
        return dict(known[1])
    shelf[name] = (now, known[1])  # others need not ask meanwhile
    day = time.time_ns() // 86_400_000_000_000
    with suppress(Unavailable):
        question = UsageQuestion("day", day, day, pick=Pick(teams), series=False)
        rows = await visit.site.books.ask(USAGE, (question,))
        shelf[name] = known = (now, _shown(rows[0] if rows else Sum(day, "", 0, 0, 0, 0, 0, 0, 0, 0)))
    return dict(known[1])


def _shown(total: Sum) -> dict[str, str]:
    return {
        "today.tokens": figures.whole(total.tokens),
        "today.requests": figures.whole(total.requests),
        "today.charge": figures.usd(total.charge_nano),
        "today.errors": figures.whole(total.errors),
    }


PAGES: Final = (Page("/console/live", stream, Permission.USAGE_SEE),)
