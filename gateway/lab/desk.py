"""One gateway in the lab: the gateway's own pipeline, books, breaker and retry budget, over a fleet it only hears of.

What ``gateway.upstream.attempts`` and ``gateway.fleet.probe`` do in real time is done here in virtual time, with the
same objects and in the same order. Nothing here raises: a request that cannot be routed is rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from gateway.fleet.health import Health
from gateway.fleet.registry import FleetRegistry
from gateway.fleet.snapshot import Candidate
from gateway.lab.admission import NEVER, Gate, Verdicts
from gateway.lab.agenda import Agenda
from gateway.lab.books import Books
from gateway.lab.job import Fate, Job
from gateway.lab.servers import Page, Progress, SimApi, SimReplica
from gateway.lab.setting import MODEL
from gateway.lab.workload import BLOCK_TOKENS, blocks
from gateway.routing.interface import RouteRequest
from gateway.routing.pipeline import Policy
from gateway.routing.router import Router
from gateway.types.call import Need
from gateway.types.errors import WeirError
from gateway.types.failure import Cause, Failure
from gateway.upstream.budget import RetryBudget

_STALE_S: Final = 3.0
_PROBE_FAILURES: Final = 2
_FADE: Final = 0.5 ** (1.0 / 30.0)

Server = SimReplica | SimApi


class Desk:
    """One gateway.

    Args:
        agenda: virtual time.
        registry: the fleet as this gateway knows it.
        health: its breaker.
        servers: what stands behind each replica's name.
        policy: how it routes; its own, since it may remember.
        gate: its admission.
        rng: randomness of the picker.
        block_tokens: tokens behind each hash of the trace's chains.
        kv_tokens: what engines say of the size of their KV caches.

    Attributes:
        sent: seconds at which each try was sent.
        over: requests that are over, however they ended.
    """

    def __init__(
        self,
        agenda: Agenda,
        registry: FleetRegistry,
        health: Health,
        servers: Mapping[str, Server],
        policy: Policy,
        gate: Gate,
        rng: Random,
        block_tokens: int,
        kv_tokens: int,
    ) -> None:
        self._agenda = agenda
        self._servers = servers
        self._preset = policy.name
        self._gate = gate
        self._router = Router(registry, {policy.name: policy}, rng)
        self._block_tokens = block_tokens
        self._fleet = registry.fleet
        self._health = health
        self._budget = RetryBudget()
        self._books = Books(kv_tokens, self._router.expectations)
        self._failures: dict[str, int] = {}
        self._answers: dict[str, int] = {}
        self._due = NEVER
        self.sent: list[float] = []
        self.over = 0

    def arrive(self, job: Job) -> None:
        """Take a request that comes now."""
        self._budget.request(self._agenda.now)
        arrival = job.arrival
        job.request = RouteRequest(
            model_id=MODEL,
            needs=Need.NONE,
            prompt_tokens=job.estimate,
            prompt_tokens_exact=False,
            max_tokens=None,
            choices=1,
            expected_tokens=self._books.expected_tokens(arrival.team),
            stream=True,
            team=arrival.team,
            preset=self._preset,
            now=self._agenda.now,
            blocks=blocks(arrival, job.index, self._block_tokens),
            block_tokens=BLOCK_TOKENS * job.estimate / arrival.prompt_tokens,
        )
        self._settle(self._gate.arrived(job, self._agenda.now))

    def probe(self, name: str, page: Page | None) -> None:
        """Book what a look at a replica's readiness and metrics brought; ``page`` is None when it is not there."""
        load = self._fleet.replicas[name].load
        now = self._agenda.now
        if load.scraped_at is not None and now - load.scraped_at > _STALE_S:
            load.forget_gauges()
        if load.answers == self._answers.get(name, 0):
            load.fade(_FADE)
        self._answers[name] = load.answers
        server = self._servers[name]
        if isinstance(server, SimReplica) and server.alive:
            server.settle()
            load.watch(now)
        if page is not None:
            self._books.reported(load, page, now)

    def judge(self, name: str, *, alive: bool) -> None:
        """Book whether a readiness probe passed."""
        load = self._fleet.replicas[name].load
        self._failures[name] = 0 if alive else self._failures.get(name, 0) + 1
        if alive:
            load.ready = True
        elif self._failures[name] >= _PROBE_FAILURES and load.ready:
            load.ready = False
            load.forget_gauges()

    def look(self) -> None:
        """Let admission look again at what changed."""
        self._settle(self._gate.changed(self._agenda.now))

    def on_first(self, job: Job) -> None:
        """Book the first token of the current try."""
        now = self._agenda.now
        assert job.candidate is not None
        server = self._servers[job.candidate.replica.name]
        stream = None
        if isinstance(server, SimReplica) and job.sequence is not None:
            stream = Progress(server, job.sequence)
        self._books.answered(job, now, stream)
        sequence = job.sequence
        if job.first_at is None:
            job.first_at = now
            job.uncached = job.arrival.prompt_tokens - (sequence.cached_tokens if sequence is not None else 0)

    def on_end(self, job: Job) -> None:
        """Book the end of an answer."""
        assert job.candidate is not None
        now = self._agenda.now
        job.ended_at = now
        self._books.ended(job, now)
        self._health.succeeded(job.candidate.replica, now)
        self._close(job, Fate.SERVED)
        self.look()

    def on_failure(self, job: Job, failure: Failure) -> None:
        """Book the failure of a try and go on with the next candidate, if there is one and the budget allows it."""
        assert job.candidate is not None
        now, replica = self._agenda.now, job.candidate.replica
        self._books.lost(job, now)
        if failure.cause is Cause.OVERLOADED:
            self._health.overloaded(replica, now, failure.retry_after)
        elif failure.unhealthy:
            self._health.failed(replica, now)
        if job.sequence is not None and job.sequence.first_at is not None:
            job.answered += job.sequence.generated
        if job.left and (not failure.sent or self._budget.take(now)):
            self._send(job, job.left.pop(0))
            return
        self._close(job, Fate.FAILED)
        self.look()

    def _close(self, job: Job, fate: Fate) -> None:
        job.fate = fate
        job.over_at = self._agenda.now
        self.over += 1
        self._gate.ended(job, self._agenda.now)

    def _settle(self, verdicts: Verdicts) -> None:
        """Do what the gate decided and come back when it wants to be asked again."""
        for job, admitted in verdicts:
            if admitted:
                self._dispatch(job)
            else:
                self._close(job, Fate.REJECTED)
        due = self._gate.due(self._agenda.now)
        if due < self._due:
            self._due = due
            self._agenda.at(due, self._again)

    def _again(self) -> None:
        self._due = NEVER
        self.look()

    def _dispatch(self, job: Job) -> None:
        request = job.request
        assert request is not None
        request.now = self._agenda.now
        request.waited = request.now - job.at
        request.expected_tokens = self._books.expected_tokens(request.team)
        try:
            plan = self._router.plan(request)
        except WeirError:
            self._close(job, Fate.REJECTED)
            return
        job.left = list(plan.steps)
        job.first_sent_at = self._agenda.now
        self._send(job, job.left.pop(0))
        self._gate.sent(job)

    def _send(self, job: Job, candidate: Candidate) -> None:
        now = self._agenda.now
        job.candidate = candidate
        job.attempts += 1
        job.sent_at = now
        self.sent.append(now)
        self._books.sent(job, candidate, now)
        self._servers[candidate.replica.name].send(job)
