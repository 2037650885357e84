"""The fleet of this process in words: what a page and the live stream show of each backend. Nothing here raises."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboards import figures
from gateway.fleet.snapshot import Replica

if TYPE_CHECKING:
    from dashboards.site import Site


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


def machines(site: Site) -> list[Machine]:
    """Return all backends by name."""
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
        measured=load.ttft,
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
    return "ready", "good", "It takes requests."


def _width(share: float | None) -> str:
    return f"{min(max((share or 0.0) * 100, 0), 100):.2f}"
