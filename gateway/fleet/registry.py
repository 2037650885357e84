"""The current fleet of a process, and the probes that keep it true.

A new configuration is applied in one step on the event loop: decisions before it see the old fleet, decisions after it
the new one. Probes of replicas that did not change go on; the others are stopped or started. Nothing here raises.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random

from gateway.config.snapshot import ConfigSnapshot
from gateway.fleet.build import PriceId, build
from gateway.fleet.egress import EgressGuard
from gateway.fleet.health import Health
from gateway.fleet.probe import DEFAULT_PACE, Pace, Probe
from gateway.fleet.snapshot import Fleet


class FleetRegistry:
    """Holds the fleet.

    Args:
        snapshot: the configuration to start with.
        price_id: gives rates their id.
        guard: the egress guard, which follows the configuration from here.
        health: the breaker, which follows the fleet from here.
        pace: how often replicas are probed.
        rng: jitter of the probes.
        clock: monotonic seconds, the clock of ``RouteRequest.now``.

    Attributes:
        fleet: the fleet of the last applied configuration.
        waiting: how many requests wait for room on it.
    """

    def __init__(
        self,
        snapshot: ConfigSnapshot,
        *,
        price_id: PriceId,
        guard: EgressGuard,
        health: Health,
        pace: Pace = DEFAULT_PACE,
        rng: Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._price_id = price_id
        self._guard = guard
        self._health = health
        self._pace = pace
        self._rng = rng or Random()  # noqa: S311 - jitter, not a secret
        self._clock = clock
        self._started = False
        self.waiting: Callable[[], int] = int
        self._probes: dict[str, tuple[Probe, asyncio.Task[None]]] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self.fleet: Fleet = build(snapshot, None, price_id, workers=pace.probers)
        guard.configure(snapshot.egress)
        health.watch(self.fleet)

    def apply(self, snapshot: ConfigSnapshot) -> Fleet:
        """Make ``snapshot`` the configuration served from now on and return its fleet; call it on the event loop."""
        self.fleet = build(snapshot, self.fleet, self._price_id, workers=self._pace.probers)
        self._guard.configure(snapshot.egress)
        self._health.watch(self.fleet)
        if self._started:
            self._reconcile()
        return self.fleet

    async def start(self) -> None:
        """Start probing."""
        self._started = True
        self._reconcile()

    async def stop(self) -> None:
        """Stop probing and close the probes' connections."""
        self._started = False
        for name in list(self._probes):
            self._cancel(name)
        await asyncio.gather(*self._stopping, return_exceptions=True)

    def _reconcile(self) -> None:
        """Have exactly one probe for each replica of the fleet."""
        wanted = self._wanted()
        for name, (probe, _) in list(self._probes.items()):
            successor = wanted.get(name)
            if successor is None or successor.subject != probe.subject:
                self._cancel(name)
        for name, probe in wanted.items():
            if name not in self._probes:
                task = asyncio.get_running_loop().create_task(probe.run(), name=f"probe {name}")
                self._probes[name] = (probe, task)

    def _wanted(self) -> dict[str, Probe]:
        names: dict[str, set[str]] = {name: set() for name in self.fleet.replicas}
        for model in self.fleet.models.values():
            for candidate in model.candidates:
                names[candidate.replica.name].add(candidate.upstream_model)
        return {
            name: Probe(
                replica,
                names[name],
                self._guard,
                pace=self._pace,
                rng=self._rng,
                clock=self._clock,
                waiting=self._count,
            )
            for name, replica in self.fleet.replicas.items()
        }

    def _count(self) -> int:
        return self.waiting()

    def _cancel(self, name: str) -> None:
        _, task = self._probes.pop(name)
        task.cancel()
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
