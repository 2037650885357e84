"""The fleet in words: what a page and the live stream show of each backend. Nothing here raises.

Health and predictions are those of the worker that answers, requests in flight and saturation those of all workers of
the host: others hand theirs in every few seconds, so they are that much behind.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from dashboards import figures
from gateway.fleet.snapshot import Replica

if TYPE_CHECKING:
    from dashboards.site import Site

AROUND_S: Final = 2.0
OLD_S: Final = 15.0
_HOST: Final = "host"
_IN_FLIGHT: Final = "weir_backend_in_flight"
_SATURATION: Final = "weir_backend_saturation"


@dataclass(frozen=True, slots=True)
class Machine:
    """A backend as it is now.

    Attributes:
        state: ready, draining, ejected, cooling or down.
        kind: how a badge of that state looks.
        why: what the state means for requests.
        saturation, kv, hits: shares, None when nobody says.
        predicted: seconds to the first token that an empty prompt would take now.
        measured: moving average of what it took.
        wrong: how far predictions were off lately, as a share.
    """

    name: str
    engine: str
    provider: str
    region: str
    gpu: str
    hourly: int | None
    models: tuple[str, ...]
    state: str
    kind: str
    why: str
    in_flight: int
    running: float | None
    waiting: float | None
    saturation: float
    kv: float | None
    hits: float | None
    predicted: float | None
    measured: float | None
    wrong: float | None
    failures: int
    ejections: int
    arrivals: float

    def live(self) -> dict[str, str]:
        """Return what changes, by the names that places in the page have."""
        prefix = f"machine.{self.name}."
        return {
            prefix + "state": self.state,
            prefix + "in_flight": str(self.in_flight),
            prefix + "running": figures.short(self.running),
            prefix + "waiting": figures.short(self.waiting),
            prefix + "saturation": figures.percent(self.saturation),
            prefix + "saturation.bar": _width(self.saturation),
            prefix + "kv": figures.percent(self.kv),
            prefix + "kv.bar": _width(self.kv),
            prefix + "measured": figures.seconds(self.measured),
            prefix + "predicted": figures.seconds(self.predicted),
            prefix + "arrivals": f"{self.arrivals:.1f}/s",
        }


async def look_around(site: Site) -> None:
    """Learn what the other workers of the host have in flight, unless that was done a moment ago."""
    known = site.shelf.get(_HOST)
    if known is None or time.monotonic() - known[0] > AROUND_S:
        # Others that come meanwhile need not ask.
        site.shelf[_HOST] = (time.monotonic(), known[1] if known is not None else {})
        site.shelf[_HOST] = (time.monotonic(), await site.host((_IN_FLIGHT, _SATURATION)))


def machines(site: Site) -> list[Machine]:
    """Return all backends by name; requests and saturation over all workers, as far as ``look_around`` knows them."""
    return [_of_host(site, machine) for machine in _here(site)]


def _of_host(site: Site, machine: Machine) -> Machine:
    at, known = site.shelf.get(_HOST, (0.0, {}))
    if time.monotonic() - at > OLD_S:
        return machine
    label = (machine.name,)
    in_flight, full = (known.get(name, {}).get(label) for name in (_IN_FLIGHT, _SATURATION))
    return replace(
        machine,
        in_flight=machine.in_flight if in_flight is None else max(machine.in_flight, round(in_flight[0])),
        saturation=machine.saturation if full is None else max(machine.saturation, min(full[0], 9.99)),
    )


def _here(site: Site) -> list[Machine]:
    """Return all backends by name, as this worker knows them."""
    fleet, now = site.registry.fleet, time.monotonic()
    served: dict[str, list[str]] = {name: [] for name in fleet.replicas}
    for model in fleet.models.values():
        for candidate in model.candidates:
            names = served[candidate.replica.name]
            if model.id not in names:
                names.append(model.id)
    return [_machine(replica, tuple(served[name]), now) for name, replica in sorted(fleet.replicas.items())]


def _machine(replica: Replica, models: tuple[str, ...], now: float) -> Machine:
    load, backend = replica.load, replica.backend
    state, kind, why = _state(replica, now)
    return Machine(
        name=replica.name,
        engine=backend.kind,
        provider=backend.provider,
        region=backend.region or "",
        gpu=backend.gpu or "",
        hourly=backend.usd_per_hour,
        models=models,
        state=state,
        kind=kind,
        why=why,
        in_flight=load.in_flight,
        running=load.running,
        waiting=load.waiting,
        saturation=min(load.saturation(now), 9.99),
        kv=load.kv_usage,
        hits=load.hit_trust if load.answers else None,
        predicted=load.outlook(now)[2],
        measured=load.measured_ttft,
        wrong=load.estimate.ttft_error if load.answers else None,
        failures=load.failures,
        ejections=int(load.ejections),
        arrivals=load.usual(now)[2],
    )


def _state(replica: Replica, now: float) -> tuple[str, str, str]:
    load = replica.load
    if load.draining:
        return "draining", "warn", "An operator wants no new requests here; what runs may end."
    if not load.ready:
        return "down", "bad", "It does not answer its probe."
    if load.ejected_until > now:
        return "ejected", "bad", f"The breaker keeps it out for {figures.seconds(load.ejected_until - now)}."
    if load.cooling_until > now:
        return "cooling", "warn", "It said that it is full; others are preferred."
    if load.lacks:
        return "lacking", "warn", "It does not list a model it is to serve."
    gaps = [name for (name, _), gap in (load.gaps or {}).items() if gap.until > now]
    if gaps:
        return "lacking", "warn", f"It says that it has no {', '.join(gaps)}; others are preferred."
    return "ready", "good", "It takes requests."


def _width(share: float | None) -> str:
    return f"{min(max((share or 0.0) * 100, 0), 100):.2f}"
