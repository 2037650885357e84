"""The composition root: makes the parts of one serving process and joins them.

Alone in importing ``policies``; nothing below knows which policies exist, or whether the keeper is in this process or
behind a socket. Starting is all or nothing: what was started is stopped again when a later part cannot be, and the
error says which.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, Final, Protocol

import policies
from gateway import __version__
from gateway.access.declared import declare
from gateway.access.follow import GovernanceFollower
from gateway.access.keys import KeyRing
from gateway.access.management import ManagementKeys
from gateway.access.own_keys import OwnKeyFollower, OwnKeys
from gateway.access.purse import Purse
from gateway.config.overlay import Overlay
from gateway.config.problem import ConfigError
from gateway.config.snapshot import BoardsSpec, ConfigSnapshot
from gateway.config.watcher import ConfigWatcher
from gateway.console.lessons import follow_calibrations
from gateway.console.steering import follow_drains, follow_management_keys, follow_settings
from gateway.desk import Desk
from gateway.edge.attribution import Attribution
from gateway.edge.clerk import Clerk
from gateway.edge.content import Contents
from gateway.edge.cors import Cors
from gateway.edge.idempotency import Idempotency
from gateway.edge.inference import Inference
from gateway.edge.openai_responses_background import Runs
from gateway.edge.openai_responses_shelf import Shelf
from gateway.edge.openai_responses_truncation import fitted
from gateway.edge.presets import Defaults
from gateway.edge.repetition import Repetitions
from gateway.edge.response_cache import ResponseCache
from gateway.fleet import figures
from gateway.fleet.egress import EgressGuard
from gateway.fleet.health import Health
from gateway.fleet.probe import Pace
from gateway.fleet.registry import FleetRegistry
from gateway.metering.journal import Journal
from gateway.pricing.charge import rates_id
from gateway.routing.admission.capacity import FleetCapacity
from gateway.routing.admission.gate import Gate
from gateway.routing.admission.queue import AdmissionQueue
from gateway.routing.chance import Chance
from gateway.routing.decisions.recorder import Recorder
from gateway.routing.pipeline import Policy
from gateway.routing.registry import PolicyRegistry
from gateway.routing.router import Router
from gateway.settings import Settings
from gateway.tariff.follow import Follower
from gateway.telemetry import logs, redaction
from gateway.telemetry.host_metrics import HostMetrics, Peers
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.traces import Tracer, open_tracer
from gateway.types.generation import LedgerReader
from gateway.types.guardrails import Governance
from gateway.types.keys import KeyAdmin, KeyFeed, LimitBook
from gateway.types.method import Asking
from gateway.upstream.backends import Upstream
from gateway.upstream.guard import guarded

_log: Final = logs.logger(__name__)


class Books(KeyAdmin, KeyFeed, LimitBook, LedgerReader, Asking, Protocol):
    """What a serving process needs of its keeper, here or behind the socket."""


@cache
def load_policies() -> Mapping[str, Policy]:
    """Return the policies of all presets that ship with Weir, read once by a process. Raises ``PresetError``."""
    return MappingProxyType(dict(PolicyRegistry(policies.BUILTIN).load(policies.PRESETS)))


def presets() -> frozenset[str]:
    """Return the names ``routing.default`` may take."""
    return frozenset(load_policies())


def preset_folder() -> Path:
    """Return where the presets that ship with Weir are."""
    return policies.PRESETS


def conceal_keys(snapshot: ConfigSnapshot) -> None:
    """Keep the keys of backends out of every log line."""
    backends = snapshot.backends.values()
    redaction.conceal(backend.api_key.reveal() for backend in backends if backend.api_key is not None)
    redaction.conceal(key.secret.reveal() for backend in backends for key in backend.api_keys)
    specs = [backend.litellm for backend in backends if backend.litellm is not None]
    redaction.conceal(secret.reveal() for spec in specs for secret in spec.credentials.values())


@dataclass(frozen=True, slots=True)
class Identity:
    """Who may do what: the secret and what hangs on it.

    Attributes:
        pepper: the gateway's secret.
        admin_digest: digest of the management key.
    """

    pepper: bytes
    admin_digest: bytes


class Gateway:
    """One serving process, assembled: one of ``workers`` of this host.

    Attributes:
        settings: of the process.
        keys: the inference keys.
        management: the management keys.
        registry: the fleet.
        desk: what the relay works with; there once started.
        inference: the handlers of the inference paths; there once started.
        metrics: of the process.
        host_metrics: of all processes of the host.
        books: the keeper.
        cors: which web pages may call.
        governance: follows what is said of teams.
        own_keys: teams' own keys for providers.
        upstream_keys: follows what is known of them.
        defaults: what teams have set beforehand for requests.
    """

    desk: Desk
    inference: Inference
    router: Router
    tariff: Follower

    def __init__(
        self,
        settings: Settings,
        snapshot: ConfigSnapshot,
        books: Books,
        identity: Identity,
        *,
        workers: int = 1,
        peers: Peers | None = None,
    ) -> None:
        self.settings = settings
        self.books = books
        self.metrics = GatewayMetrics(__version__)
        self.host_metrics = HostMetrics(self.metrics, peers)
        self.keys = KeyRing(identity.pepper)
        self.management = ManagementKeys(identity.pepper, identity.admin_digest, self.keys)
        self.defaults = Defaults(books)
        self.governance = GovernanceFollower(books, self._govern)
        self.own_keys = OwnKeys(identity.pepper, snapshot.byok.fee)
        self.upstream_keys = OwnKeyFollower(books, self.own_keys)
        self._guard = EgressGuard(snapshot.egress)
        self._health = Health()
        self.registry = FleetRegistry(
            snapshot, price_id=rates_id, guard=self._guard, health=self._health, pace=Pace(probers=workers)
        )
        self._capacity = FleetCapacity(self.registry, snapshot.admission.pace)
        self._snapshot = snapshot
        self._overlay = Overlay()
        self.cors = Cors(snapshot.cors)
        self._watcher: ConfigWatcher | None = None
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def snapshot(self) -> ConfigSnapshot:
        """The configuration in force, with what operators set."""
        return self._overlay.over(self._snapshot)

    @property
    def boards(self) -> BoardsSpec:
        """The rules of the leaderboards now."""
        return self.snapshot.boards

    async def start(self) -> None:
        """Start every part; needs the running loop. Raises ``WeirError`` or ``OSError`` when a part cannot start."""
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()

    async def _start(self, stack: AsyncExitStack) -> None:
        loop, settings = asyncio.get_running_loop(), self.settings
        self.keys.load(await self.books.subscribe(self.keys.apply))
        await self.governance.look()
        stack.callback(loop.create_task(self.governance.run()).cancel)
        await self.upstream_keys.look()
        stack.callback(loop.create_task(self.upstream_keys.run()).cancel)
        self.tariff = Follower(self.books, self._snapshot, self._repriced)
        await self.tariff.start()
        stack.callback(loop.create_task(self.tariff.run()).cancel)
        tracer = open_tracer(settings.otlp_endpoint, __version__)
        stack.push_async_callback(asyncio.to_thread, tracer.shutdown)
        journal = Journal.create(settings.home / "journal", durability=settings.durability)
        stack.push_async_callback(journal.close)
        upstream = Upstream(loop, self._health, guarded(self._guard), self.metrics)
        stack.callback(upstream.close)
        self.router = Router(self.registry, load_policies(), _chance())
        self._recorder = Recorder(self.books, self.metrics, self._snapshot.routing.decisions, _chance())
        recording = loop.create_task(self._recorder.run())
        stack.push_async_callback(self._recorder.flush)
        stack.callback(recording.cancel)
        self.books.present(journal.writer)
        purse = Purse(loop, self.books, journal, self.router.reachable, self.metrics)
        purse.learn(await self.books.follow_scopes(purse.learn))
        self.desk = self._desk(loop, upstream, journal, tracer, purse)
        attribution = Attribution(loop, self.books, now_us, lambda: self.boards.new_apps_per_day)
        stack.callback(attribution.close)
        repetitions = await self._repetitions(stack, loop, journal)
        self.inference = Inference(
            self.desk,
            self.keys,
            now_us,
            logs.RequestLog(every=settings.log_requests),
            attribution,
            self.defaults,
            repetitions,
            self._shelf(stack, journal, repetitions),
            max_body=settings.max_body_bytes,
        )
        stack.callback(loop.create_task(self.inference.comfort()).cancel)
        await self.registry.start()
        stack.push_async_callback(self.registry.stop)
        drains = loop.create_task(follow_drains(self.books, lambda: self.registry.fleet.replicas))
        stack.callback(drains.cancel)
        lessons = loop.create_task(follow_calibrations(self.books, lambda: self.registry.fleet.replicas))
        stack.callback(lessons.cancel)
        stack.callback(loop.create_task(follow_settings(self.books, self._overlay)).cancel)
        stack.callback(loop.create_task(follow_management_keys(self.books, self.management.learn)).cancel)
        if settings.config is not None:
            self._watch(stack, loop, upstream)
        self._bind_metrics(journal, upstream)
        stack.callback(loop.create_task(self.host_metrics.share()).cancel)

    def _desk(
        self, loop: asyncio.AbstractEventLoop, upstream: Upstream, journal: Journal, tracer: Tracer, purse: Purse
    ) -> Desk:
        return Desk(
            loop=loop,
            router=self.router,
            upstream=upstream,
            journal=journal,
            purse=purse,
            gate=self._gate(loop),
            tracer=tracer,
            metrics=self.metrics,
            recorder=self._recorder,
            own_keys=self.own_keys,
        )

    async def _repetitions(
        self, stack: AsyncExitStack, loop: asyncio.AbstractEventLoop, journal: Journal
    ) -> Repetitions:
        """Return what keeps answers, following what is to be stored."""
        metrics, books = self.metrics, self.books
        clerk = Clerk(books, metrics.unkept)
        stack.push_async_callback(clerk.stop)
        contents = Contents(books, clerk, lambda: self._snapshot.content, metrics.contents)
        await contents.learn()
        stack.callback(loop.create_task(contents.run()).cancel)
        claims, cache = Idempotency(books, clerk, journal.writer), ResponseCache(books, clerk)
        return Repetitions(claims, cache, contents, clerk, lambda: self._snapshot, metrics.repetitions)

    def _shelf(self, stack: AsyncExitStack, journal: Journal, repetitions: Repetitions) -> Shelf:
        """Return what keeps responses, and makes them in the background."""
        runs = Runs(self.books, repetitions.clerk, journal.writer)
        stack.push_async_callback(runs.stop)
        fit = partial(fitted, desk=self.desk)
        return Shelf(self.books, repetitions.clerk, lambda: self._snapshot.responses, runs, fit)

    def _gate(self, loop: asyncio.AbstractEventLoop) -> Gate:
        spec = self._snapshot.admission
        queue = AdmissionQueue(spec, self._capacity, Random())  # noqa: S311 - shedding, not a secret
        gate = Gate(loop, queue, self.registry, self.metrics, enabled=spec.enabled)
        self.registry.waiting = lambda: gate.waiting
        return gate

    def _govern(self, governance: Governance) -> None:
        """Go by what is said of teams from now on."""
        self.keys.govern(governance)
        self.defaults.learn(governance)

    async def stop(self) -> None:
        """Stop every part, newest first."""
        await self._stack.aclose()

    async def drain(self, grace: float) -> None:
        """Take no new requests; give running ones ``grace`` seconds, then end them with an error."""
        inference = self.inference
        inference.draining = True
        if inference.active:
            await asyncio.wait(inference.active.values(), timeout=grace)
        running = list(inference.active.values())
        for task in running:
            task.cancel()
        if running:
            _log.warning("requests were cut off by the shutdown", count=len(running))
            await asyncio.wait(running, timeout=5.0)

    def reload(self) -> None:
        """Read the configuration file again now."""
        if self._watcher is not None:
            task = asyncio.get_running_loop().create_task(self._watcher.reload())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def unready(self) -> list[str]:
        """Return why requests should not be sent here now; nothing when they should."""
        reasons = []
        if self.inference.draining:
            reasons.append("shutting down")
        if self.desk.journal.failed:
            reasons.append("the journal cannot be written")
        return reasons

    # The configuration

    def _repriced(self, snapshot: ConfigSnapshot) -> None:
        """Serve ``snapshot``, the configuration with the prices that are valid now."""
        self.registry.apply(snapshot)

    def _watch(self, stack: AsyncExitStack, loop: asyncio.AbstractEventLoop, upstream: Upstream) -> None:
        assert self.settings.config is not None

        def changed(snapshot: ConfigSnapshot) -> None:
            self.tariff.configured(snapshot)
            upstream.reconfigured()
            self.own_keys.fee = snapshot.byok.fee
            self._capacity.pace = snapshot.admission.pace
            self._recorder.configure(snapshot.routing.decisions)
            self.desk.gate.configure(snapshot.admission)
            self._snapshot = snapshot
            self.cors.configure(snapshot.cors)
            conceal_keys(snapshot)
            making = loop.create_task(declare(self.books, snapshot))
            self._tasks.add(making)
            making.add_done_callback(self._tasks.discard)
            self.metrics.config_reloads.add(("accepted",))

        def refused(_error: ConfigError) -> None:
            self.metrics.config_reloads.add(("refused",))

        self._watcher = ConfigWatcher(
            self.settings.config, self._snapshot, presets=presets(), on_change=changed, on_problem=refused
        )
        task = loop.create_task(self._watcher.run())
        stack.callback(task.cancel)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one that came during the start comes now
        stack.callback(loop.remove_signal_handler, signal.SIGHUP)

    # Metrics that are kept where they arise

    def _bind_metrics(self, journal: Journal, upstream: Upstream) -> None:
        bind = self.metrics.bind
        bind("weir_inflight_requests", lambda: len(self.inference.active))
        bind("weir_retry_budget_remaining", lambda: upstream.budget.remaining(time.monotonic()))
        bind("weir_drains_active", lambda: upstream.drains.active)
        bind("weir_journal_bytes_total", lambda: journal.bytes_written)
        bind("weir_journal_records_total", lambda: journal.records)
        bind("weir_journal_syncs_total", lambda: journal.syncs)
        bind("weir_journal_sync_seconds_total", lambda: journal.sync_seconds)
        bind("weir_journal_failures_total", lambda: journal.failures)
        bind("weir_journal_failed", lambda: int(journal.failed))
        bind("weir_config_version", lambda: self._snapshot.version)
        figures.bind(self.metrics, self.registry, self._health)


def _chance() -> Chance:
    return Chance(int.from_bytes(os.urandom(8)))


def now_us() -> int:
    """Return the wall clock in microseconds since 1970."""
    return time.time_ns() // 1000
