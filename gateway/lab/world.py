"""The simulated world: a trace comes to gateways over a fleet, in virtual time, until everything is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from gateway.lab.admission import Gate, OpenGate, QueueGate
from gateway.lab.agenda import Agenda
from gateway.lab.desk import Desk, Server
from gateway.lab.job import Fate, Job
from gateway.lab.servers import Page, SimApi, SimReplica
from gateway.lab.setting import FAULT_SECONDS, SLOWNESS, Setting
from gateway.lab.trace import Trace
from gateway.lab.workload import estimates
from gateway.routing.pipeline import Policy
from gateway.types.failure import Failure

PROBE_S: Final = 1.0
"""Seconds between two looks at a replica."""
PROBE_DELAY_S: Final = 0.02
"""Seconds from what a metrics page says to the books."""
_LAST_S: Final = 36_000.0
"""Seconds after the last arrival at which what is not over is lost."""

MakePolicy = Callable[[], Policy]


@dataclass(frozen=True, slots=True)
class Replay:
    """What came out of one replay.

    Attributes:
        jobs: all requests in order of arrival.
        span: seconds from first to last arrival.
        lasted: seconds until the last request was over.
        sent: virtual seconds at which a try was sent to anything.
        queried_tokens, hit_tokens: prompt tokens looked up in prefix caches and found there.
        preemptions: sequences thrown out for want of KV blocks.
        usd: what the own replicas cost while requests arrived, and external APIs for all requests, in USD.
    """

    jobs: tuple[Job, ...]
    span: float
    lasted: float
    sent: tuple[float, ...]
    queried_tokens: int
    hit_tokens: int
    preemptions: int
    usd: float


def replay(trace: Trace, setting: Setting, policy: MakePolicy, *, seed: int) -> Replay:
    """Return what becomes of ``trace`` (see ``Trace.scaled``) in ``setting``.

    Args:
        trace: the requests; the first should come at 0.
        setting: fleet, gateways and faults.
        policy: makes the policy of one gateway.
        seed: of noise, estimates and pickers.
    """
    return _World(trace, setting, policy, seed).run()


class _World:
    def __init__(self, trace: Trace, setting: Setting, policy: MakePolicy, seed: int) -> None:
        self._agenda = agenda = Agenda()
        self._trace = trace
        self._setting = setting
        rng = Random(f"{seed}")  # noqa: S311 - repeatable, not a secret
        segment = trace.block_tokens
        self._replicas = {
            f"gpu-{number}": SimReplica(agenda, self, setting.profile, rng.getrandbits(32), segment)
            for number in range(setting.replicas)
        }
        self._servers: dict[str, Server] = dict(self._replicas)
        if setting.external is not None:
            self._servers["api"] = SimApi(agenda, self, setting.external, rng.getrandbits(32))
        self._desks = [self._desk(policy(), rng.getrandbits(64)) for _ in range(setting.gateways)]
        guessed = estimates(trace, rng.getrandbits(32))
        self._jobs = tuple(
            Job(index, arrival, arrival.at, index % setting.gateways, guessed[index])
            for index, arrival in enumerate(trace.arrivals)
        )
        self._rng = rng
        self._silent = False

    def run(self) -> Replay:
        """Run to the end."""
        agenda = self._agenda
        agenda.at(self._jobs[0].at, self._arrive, 0)
        for desk in self._desks:
            for name in self._replicas:
                agenda.at(self._rng.random() * PROBE_S, self._probe, desk, name)
        for fault in self._setting.faults:
            self._arrange(fault)
        last = self._jobs[-1].at + _LAST_S
        desks, total = self._desks, len(self._jobs)
        agenda.run(lambda: sum([desk.over for desk in desks]) < total and agenda.now < last)
        for job in self._jobs:
            if job.fate is Fate.PENDING:
                job.fate = Fate.FAILED
        engines = [replica.engine for replica in self._replicas.values()]
        span = self._trace.span
        return Replay(
            jobs=self._jobs,
            span=span,
            lasted=agenda.now,
            sent=tuple(at for desk in self._desks for at in desk.sent),
            queried_tokens=sum(engine.queried_tokens for engine in engines),
            hit_tokens=sum(engine.hit_tokens for engine in engines),
            preemptions=sum(engine.preemptions for engine in engines),
            usd=self._setting.own_usd(span) + sum(job.usd for job in self._jobs),
        )

    def on_first(self, job: Job) -> None:
        """Tell the job's gateway."""
        self._desks[job.gateway].on_first(job)

    def on_end(self, job: Job) -> None:
        """Tell the job's gateway."""
        self._desks[job.gateway].on_end(job)

    def on_failure(self, job: Job, failure: Failure) -> None:
        """Tell the job's gateway."""
        self._desks[job.gateway].on_failure(job, failure)

    def _arrive(self, index: int) -> None:
        job = self._jobs[index]
        if index + 1 < len(self._jobs):
            self._agenda.at(self._jobs[index + 1].at, self._arrive, index + 1)
        self._desks[job.gateway].arrive(job)

    def _probe(self, desk: Desk, name: str) -> None:
        replica = self._replicas[name]
        page = replica.page() if replica.alive and not self._silent else None
        self._agenda.at(self._agenda.now + PROBE_DELAY_S, self._probed, desk, name, page, replica.alive)

    def _probed(self, desk: Desk, name: str, page: Page | None, alive: bool) -> None:
        desk.judge(name, alive=alive)
        desk.probe(name, page)
        pause = PROBE_S * (0.8 + 0.4 * self._rng.random())
        self._agenda.at(self._agenda.now + pause, self._probe, desk, name)

    def _desk(self, policy: Policy, seed: int) -> Desk:
        """Return a gateway that routes by ``policy``."""
        rng = Random(seed)  # noqa: S311 - repeatable, not a secret
        registry, health = self._setting.registry(lambda: self._agenda.now, rng)
        gate: Gate = QueueGate(registry, rng) if self._setting.admission else OpenGate()
        return Desk(
            self._agenda,
            registry,
            health,
            self._servers,
            policy,
            gate,
            rng,
            self._trace.block_tokens,
            self._setting.profile.kv_tokens,
        )

    def _arrange(self, fault: str) -> None:
        agenda, span = self._agenda, self._trace.span
        first = next(iter(self._replicas.values()))
        start = span / 3
        if fault == "slow":
            agenda.at(0.0, first.slow_down, SLOWNESS)
        elif fault == "death":
            agenda.at(start, first.die)
            agenda.at(2 * start, first.revive)
        elif fault == "frozen":
            for replica in self._replicas.values():
                agenda.at(start, replica.freeze)
                agenda.at(start + FAULT_SECONDS, replica.thaw)
        elif fault == "silent":
            agenda.at(start, self._hush, True)
            agenda.at(start + FAULT_SECONDS, self._hush, False)
        elif fault == "outage":
            for replica in self._replicas.values():
                agenda.at(start, replica.die)
                agenda.at(start + FAULT_SECONDS, replica.revive)

    def _hush(self, silent: bool) -> None:
        self._silent = silent
