"""The breaker: a replica that fails requests in a row is ejected for a while, as Envoy's outlier detection does.

``FAILURES`` failures in a row eject for ``BASE`` seconds times the ejections in a row, at most ``LONGEST``; then the
replica simply returns and traffic itself is the trial. Every ``FORGIVEN`` seconds of good behaviour make one ejection
good. At most half of a model's replicas, but at least one, are out at once: when more fail, the fault is probably not
theirs, and the rest stay in. A replica that says it is full is not failing; it is spared for a moment instead. One that
says that it has no such model, or no such path, is not ejected: others are preferred for this model, until it has it.
Nothing here raises.
"""

from __future__ import annotations

from typing import Final

from gateway.fleet.condition import Gap
from gateway.fleet.load import ReplicaLoad
from gateway.fleet.snapshot import Candidate, Fleet, Replica
from gateway.telemetry import logs
from gateway.types.call import Operation

FAILURES: Final = 5
"""Failures in a row that eject."""
BASE: Final = 30.0
"""Seconds of a first ejection."""
LONGEST: Final = 300.0
"""Seconds of the longest ejection and of the longest wait a backend may ask for."""
FORGIVEN: Final = 10.0
"""Seconds of good behaviour that make one ejection good."""
EJECTABLE_SHARE: Final = 0.5
"""Share of a model's replicas that may be out at once."""
COOL_OFF: Final = 1.0
"""Seconds a full replica is spared when it does not say how long."""

_log: Final = logs.logger(__name__)


class Health:
    """Books the outcome of requests and decides who is out. Times are monotonic seconds.

    Attributes:
        ejected: how often each replica was ejected, by name.
    """

    __slots__ = ("_peers", "ejected")

    def __init__(self) -> None:
        self.ejected: dict[str, int] = {}
        self._peers: dict[str, tuple[tuple[ReplicaLoad, ...], ...]] = {}

    def watch(self, fleet: Fleet) -> None:
        """Learn which replicas serve the same models."""
        peers: dict[str, list[tuple[ReplicaLoad, ...]]] = {}
        for model in fleet.models.values():
            loads = {candidate.replica.name: candidate.replica.load for candidate in model.candidates}
            group = tuple(loads.values())
            for name in loads:
                peers.setdefault(name, []).append(group)
        self._peers = {name: tuple(groups) for name, groups in peers.items()}

    def succeeded(self, replica: Replica, now: float) -> None:
        """Book a request that the replica answered, or refused for the request's own fault."""
        load = replica.load
        if load.failures:
            load.failures = 0
        if load.ejections and now >= load.forgiven_at:
            made_good = 1 + int((now - load.forgiven_at) / FORGIVEN)
            load.ejections = max(0, load.ejections - made_good)
            load.forgiven_at += made_good * FORGIVEN

    def failed(self, replica: Replica, now: float, why: str = "") -> None:
        """Book a request that the replica failed; failures of one that is out already say nothing new.

        Args:
            replica: who failed it.
            now: when.
            why: what the log says of the failure that ejects.
        """
        load = replica.load
        if load.ejected_until > now:
            return
        load.failures += 1
        if load.failures >= FAILURES and self._may_eject(replica, now):
            load.failures = 0
            load.ejections += 1
            self.ejected[replica.name] = self.ejected.get(replica.name, 0) + 1
            seconds = min(BASE * load.ejections, LONGEST)
            load.ejected_until = now + seconds
            load.forgiven_at = load.ejected_until + FORGIVEN
            _log.warning("replica ejected", replica=replica.name, reason=why, seconds=seconds, ejections=load.ejections)

    def lacked(self, candidate: Candidate, operation: Operation, now: float) -> None:
        """Book that the replica says it has not got the model, or no such ``operation`` of it."""
        load, model = candidate.load, candidate.upstream_model
        if load.gaps is None:
            load.gaps = {}
        gap = load.gaps.setdefault((model, operation), Gap())
        if gap.until > now:
            return
        gap.failures += 1
        if gap.failures >= FAILURES:
            seconds = min(BASE * (gap.failures - FAILURES + 1), LONGEST)
            gap.until = now + seconds
            load.weigh_conditions()
            name = candidate.replica.name
            _log.warning("replica lacks a model", replica=name, model=model, operation=operation, seconds=seconds)

    def had(self, candidate: Candidate, operation: Operation) -> None:
        """Book that the replica has the model after all."""
        load = candidate.load
        if load.gaps is not None and load.gaps.pop((candidate.upstream_model, operation), None) is not None:
            load.gaps = load.gaps or None
            load.weigh_conditions()

    def overloaded(self, replica: Replica, now: float, retry_after: float | None) -> None:
        """Book a request that the replica refused because it is full.

        Args:
            replica: who refused.
            now: when.
            retry_after: seconds the backend asked to wait, or None when it did not say.
        """
        load = replica.load
        if replica.engine.metrics_path is not None:  # what an external API refuses is a matter of its limits
            load.ceiling.refused(load.depth, now)
        asked, seconds = False, COOL_OFF
        if retry_after is not None and retry_after > 0:
            asked, seconds = True, min(retry_after, LONGEST)
        if load.cooling_until <= now or asked > load.cooling_asked:
            load.cooling_until, load.cooling_asked = now + seconds, asked
        elif asked == load.cooling_asked:
            load.cooling_until = max(load.cooling_until, now + seconds)

    def _may_eject(self, replica: Replica, now: float) -> bool:
        """Whether every model of the replica can spare it."""
        for loads in self._peers.get(replica.name, ()):
            out = sum(load.ejected_until > now for load in loads)
            if out >= max(1, int(len(loads) * EJECTABLE_SHARE)):
                return False
        return True
