"""What the fleet is like now, as metrics: read where it is kept, when somebody scrapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from gateway.fleet.health import Health
from gateway.fleet.keychain import UpstreamKey
from gateway.fleet.load import ReplicaLoad
from gateway.fleet.registry import FleetRegistry
from gateway.telemetry.metrics import GatewayMetrics

Values = dict[tuple[str, ...], float]


def bind(metrics: GatewayMetrics, registry: FleetRegistry, health: Health) -> None:
    """Have ``metrics`` read the backends of ``registry`` and what ``health`` remembers of them."""

    def per_backend(name: str, read: Callable[[ReplicaLoad], float | None]) -> None:
        def values() -> Values:
            found = {backend: read(replica.load) for backend, replica in registry.fleet.replicas.items()}
            return {(backend,): value for backend, value in found.items() if value is not None}

        metrics.bind(name, values)

    def keys() -> Iterator[tuple[str, UpstreamKey]]:
        for name, replica in registry.fleet.replicas.items():
            for key in replica.load.quota.keys:
                yield name, key

    def requests() -> Values:
        return {(name, key.name, how): float(count) for name, key in keys() for how, count in key.used.items()}

    def resting() -> Values:
        now = time.monotonic()
        return {(name, key.name): float(key.resting_until > now) for name, key in keys()}

    def ejections() -> Values:
        # From zero on: how much a series that begins with its first event grew by that, nobody can tell.
        return {(name,): float(n) for name, n in (dict.fromkeys(registry.fleet.replicas, 0) | health.ejected).items()}

    metrics.bind("weir_backend_ejections_total", ejections)
    metrics.bind("weir_upstream_key_requests_total", requests)
    metrics.bind("weir_upstream_key_resting", resting)
    per_backend("weir_backend_up", _up)
    per_backend("weir_backend_in_flight", lambda load: float(load.in_flight))
    per_backend("weir_backend_waiting", lambda load: load.waiting)
    per_backend("weir_backend_saturation", lambda load: load.saturation(time.monotonic()))
    per_backend("weir_backend_ttft_error", lambda load: load.estimate.ttft_error)
    per_backend("weir_backend_kv_usage", lambda load: load.kv_usage)


def _up(load: ReplicaLoad) -> float:
    return float(load.ready and not load.draining and load.ejected_until <= time.monotonic())
