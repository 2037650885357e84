"""The registry: fleets that change while they are probed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from gateway.config.snapshot import BackendSpec, ConfigSnapshot
from gateway.fleet.egress import EgressGuard
from gateway.fleet.health import FAILURES, Health
from gateway.fleet.probe import Pace
from gateway.fleet.registry import FleetRegistry
from gateway.sim import Fault, SimConfig, SimFleet
from tests.fakes.fleet import LOOPBACK, MODEL, backend, price_id, snapshot

BRISK = Pace(interval=0.02, ready_limit=5.0, page_limit=5.0)


def registry(configuration: ConfigSnapshot) -> FleetRegistry:
    """Return a registry that probes fifty times a second."""
    return FleetRegistry(
        configuration, price_id=price_id, guard=EgressGuard(configuration.egress), health=Health(), pace=BRISK
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds, for at most half a minute."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def specs(sims: SimFleet) -> list[BackendSpec]:
    """Return the backends of the simulated fleet."""
    return [backend(name, url=url) for name, url in sims.urls.items()]


async def test_replicas_are_probed_from_start_to_stop() -> None:
    """Probes find each replica's state, follow it, and end."""
    async with SimFleet([SimConfig(name="gpu-a"), SimConfig(name="gpu-b")]) as sims:
        held = registry(snapshot(specs(sims)))
        loads = {name: replica.load for name, replica in held.fleet.replicas.items()}
        assert all(load.ready and load.scraped_at is None for load in loads.values())
        await held.start()
        await until(lambda: all(load.scraped_at is not None for load in loads.values()))
        sims["gpu-b"].faults.arm(Fault(kind="unhealthy"))
        await until(lambda: not loads["gpu-b"].ready)
        assert loads["gpu-a"].ready
        sims["gpu-b"].faults.clear()
        await until(lambda: loads["gpu-b"].ready)
        await held.stop()
        scraped = loads["gpu-a"].scraped_at
        await asyncio.sleep(0.2)
        assert loads["gpu-a"].scraped_at == scraped


async def test_a_new_configuration_moves_the_probes() -> None:
    """A replica that goes is left alone, one that comes is probed, one that stays keeps its load and its probe."""
    names = ("gpu-a", "gpu-b", "gpu-c")
    async with SimFleet([SimConfig(name=name) for name in names]) as sims:
        first, second, third = specs(sims)
        held = registry(snapshot([first, second]))
        old = held.fleet
        await held.start()
        await until(lambda: all(one.load.scraped_at is not None for one in old.replicas.values()))
        probes = {task.get_name(): task for task in asyncio.all_tasks() if task.get_name().startswith("probe ")}
        assert set(probes) == {"probe gpu-a", "probe gpu-b"}

        assert held.apply(snapshot([first, third], version=2)) is held.fleet
        assert held.fleet.version == 2
        assert held.fleet.replicas["gpu-a"].load is old.replicas["gpu-a"].load
        await until(lambda: held.fleet.replicas["gpu-c"].load.scraped_at is not None)
        await until(probes["probe gpu-b"].done)
        assert not probes["probe gpu-a"].done()

        held.apply(snapshot([replace(first, gpu="2xH100"), third], version=3))
        await until(probes["probe gpu-a"].done)
        assert held.fleet.replicas["gpu-a"].load is old.replicas["gpu-a"].load
        await held.stop()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("probe ")]


async def test_a_configuration_before_the_start_is_not_probed() -> None:
    """Nothing runs before ``start``, and a stopped registry still takes configurations."""
    held = registry(snapshot([backend("gpu-a")]))
    held.apply(snapshot([backend("gpu-b")], version=2))
    assert list(held.fleet.replicas) == ["gpu-b"]
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("probe ")]
    await held.stop()


async def test_breaker_and_guard_follow_the_configuration() -> None:
    """After a reload the breaker counts the new replicas, and the guard applies the new rules."""
    guard, health = EgressGuard(LOOPBACK), Health()
    held = FleetRegistry(snapshot([backend("gpu-a")]), price_id=price_id, guard=guard, health=health)
    held.apply(snapshot([backend("gpu-a"), backend("gpu-b")], version=2))
    one, other = held.fleet.models[MODEL].candidates
    for replica in (one.replica, other.replica):
        for _ in range(FAILURES):
            health.failed(replica, 1_000.0)
    assert (one.replica.load.ejected_until > 0, other.replica.load.ejected_until > 0) == (True, False)
    assert await guard.resolve("127.0.0.1", 80) == (("127.0.0.1", 80),)


async def test_probes_do_not_disturb_the_engine() -> None:
    """What the probes ask costs the engine no generation."""
    async with SimFleet([SimConfig(name="gpu-a")]) as sims:
        held = registry(snapshot(specs(sims)))
        await held.start()
        await until(lambda: held.fleet.replicas["gpu-a"].load.scraped_at is not None)
        await held.stop()
        assert sims["gpu-a"].books.totals.requests == 0
