"""The metrics of all processes of a host, so that a scrape of any one of them shows the whole.

Each worker hands its figures in every few seconds and at each scrape, and gets those of the others. What a worker
counted stays when it has ended, so counters never fall; its gauges go with it. A new keeper tells nothing until all
workers that are known to it have handed in theirs; what the dead counted is lost with the old one.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway import __version__
from gateway.telemetry.metrics import GatewayMetrics
from gateway.types.errors import Unavailable

if TYPE_CHECKING:
    from gateway.access.alerts import Alerts
    from gateway.access.shared import RedisLimits
    from gateway.access.treasury import Treasury
    from gateway.keeper.offices import Offices
    from gateway.metering.shipper import Shipper


FINDING_S: Final = 1.0
"""Seconds in which every worker has found a new keeper, once the first of them has: they look twice a second."""


class Figures:
    """Metrics of a host's workers, as dumps (see ``gateway.telemetry.instruments.Registry.dump``)."""

    def __init__(self, shipper: Shipper, budgets: BudgetFigures, offices: Offices) -> None:
        self._own = GatewayMetrics(__version__)
        bind_offices(self._own, offices)
        bind_shipper(self._own, shipper)
        bind_budgets(self._own, budgets)
        self._dumps: dict[Hashable, bytes] = {}
        self._missing: set[Hashable] = set()
        self._since: float | None = None
        self._retired: bytes | None = None

    def expect(self, worker: Hashable) -> None:
        """Tell that ``worker`` will share its figures; without them nobody's are all."""
        if worker not in self._dumps:
            self._missing.add(worker)

    def share(self, worker: Hashable, dump: bytes) -> tuple[bytes, ...]:
        """Keep the newest figures of ``worker`` and return those of everybody else, the keeper's own among them.

        Raises:
            Unavailable: another worker has not handed in its own yet, or may not have found this keeper.
        """
        self._dumps[worker] = dump
        self._missing.discard(worker)
        now = monotonic()
        if self._since is None:
            self._since = now
        if self._missing or now < self._since + FINDING_S:
            raise Unavailable("the keeper does not have the figures of all workers yet", retry_after=1.0)
        others = [known for name, known in self._dumps.items() if name is not worker]
        if self._retired is not None:
            others.append(self._retired)
        return (*others, self._own.dump())

    def retire(self, worker: Hashable) -> None:
        """Keep what ``worker`` counted, now that it is gone; harmless when it never shared anything."""
        self._missing.discard(worker)
        dump = self._dumps.pop(worker, None)
        if dump is not None:
            self._retired = self._own.lasting([dump] if self._retired is None else [self._retired, dump])


@dataclass(frozen=True, slots=True)
class BudgetFigures:
    """Where the figures of budgets and shared limits are."""

    treasury: Treasury
    alerts: Alerts
    shared: RedisLimits | None


def bind_budgets(metrics: GatewayMetrics, budgets: BudgetFigures) -> None:
    """Show the figures of budgets and shared limits in ``metrics``."""
    escrow, alerts, shared = budgets.treasury.escrow, budgets.alerts, budgets.shared
    metrics.bind("weir_budget_holds", lambda: escrow.running)
    metrics.bind("weir_budget_stale_usd", lambda: sum(pool.stale for pool in escrow.pools.values()) / 1e9)
    metrics.bind(
        "weir_budget_alerts_total", lambda: {("taken",): float(alerts.sent), ("failed",): float(alerts.failed)}
    )
    if shared is not None:
        metrics.bind("weir_shared_limits_away", lambda: int(shared.away))


def bind_offices(metrics: GatewayMetrics, offices: Offices) -> None:
    """Show what the offices say in ``metrics``."""
    metrics.bind("weir_database_away", lambda: int(offices.away))
    metrics.bind("weir_outbox_items", lambda: offices.figure("weir_outbox_items"))
    metrics.bind("weir_outbox_tries_total", lambda: offices.figure("weir_outbox_tries_total"))


def bind_shipper(metrics: GatewayMetrics, shipper: Shipper) -> None:
    """Show the shipper's figures in ``metrics``."""
    metrics.bind("weir_unshipped_bytes", lambda: shipper.lag_bytes)
    metrics.bind("weir_oldest_unshipped_seconds", lambda: shipper.oldest_unshipped_s)
    metrics.bind("weir_shipper_records_total", lambda: shipper.records)
    metrics.bind("weir_shipper_seconds_total", lambda: shipper.seconds)
    metrics.bind("weir_orphans_total", lambda: shipper.orphans)
    metrics.bind("weir_ledger_conflicts_total", lambda: shipper.conflicts)
    metrics.bind("weir_segments_quarantined_total", lambda: shipper.quarantined)
