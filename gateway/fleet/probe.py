"""The probe of one replica: asks again and again whether it can serve and what it is busy with.

Readiness is lost after ``FAILURES`` probes in a row without a good answer and regained by one. Only a 5xx or no answer
speaks against a replica: a 401 or 404 means that the probe is not welcome there. A probe is one request as a rule: an
engine that hands its metrics out lives, so its readiness path is asked every ``READY_EVERY`` seconds only, and at once
when the metrics do not come, a request failed or the last answer was bad. While requests are answered and none fails,
readiness is not asked for at all: that is proof enough, and a busy engine is slow to say that it is well. Gauges are a
hint, not a condition: a backend without ``/metrics`` serves, and gauges older than ``STALE_INTERVALS`` probes are
forgotten. The loop survives everything but its cancellation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec

from gateway.beat import paused
from gateway.engines.kind import Engine
from gateway.fleet import gauges
from gateway.fleet.client import NoAnswer, ProbeClient
from gateway.fleet.egress import EgressError, EgressGuard
from gateway.fleet.snapshot import Replica
from gateway.telemetry import logs

FAILURES: Final = 2
"""Probes in a row without a good answer after which a replica is not ready."""
READY_EVERY: Final = 3.0
"""Seconds between two looks at the readiness path of a replica that hands its metrics out."""
STALE_INTERVALS: Final = 3
"""Gauges older than this many intervals say nothing any more."""
FADE_HALF_LIFE: Final = 30.0
"""Seconds in which the latency averages of an idle replica halve, so that it is tried again."""
MODELS_EVERY: Final = 60.0
"""Seconds between two looks at a replica's model list."""
HURRIED: Final = 0.25
"""Share of the usual pause after which gauges are read while requests wait for room."""
METRICS_RETRY: Final = 30.0
"""Seconds until a replica that refuses its metrics is asked for them again."""

_log: Final = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a replica is probed and how long an answer may take, in seconds."""

    interval: float = 1.0
    jitter: float = 0.2
    """Share of ``interval`` by which a pause is longer or shorter at random, so that probes spread over the beats."""
    ready_limit: float = 3.0
    page_limit: float = 2.0
    probers: int = 1
    """Processes of this host that probe the same replicas."""

    def of(self, engine: Engine) -> float:
        """Return the seconds between two probes of an ``engine``, which may ask to be left alone for longer."""
        return max(self.interval, engine.probe_pause * self.probers / (1.0 - self.jitter))


DEFAULT_PACE: Final = Pace()


class _ModelCard(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_ModelCard]


_MODELS: Final = msgspec.json.Decoder(_ModelList)


class Probe:
    """Probes one replica and writes what it finds to ``replica.load``.

    Args:
        replica: who is probed.
        models: names under which the replica should serve models; a missing one is logged.
        guard: resolves and checks the replica's host.
        pace: how often.
        rng: jitter.
        clock: monotonic seconds, the clock of ``RouteRequest.now``.
        waiting: how many requests wait for room; while any does, fresh gauges are worth more probes.
    """

    def __init__(
        self,
        replica: Replica,
        models: Iterable[str],
        guard: EgressGuard,
        *,
        pace: Pace = DEFAULT_PACE,
        rng: Random,
        clock: Callable[[], float] = time.monotonic,
        waiting: Callable[[], int] = int,
    ) -> None:
        self._replica = replica
        self._models = frozenset(models)
        self._pace = pace
        self._rng = rng
        self._clock = clock
        self._waiting = waiting
        self._client = ProbeClient(replica.backend, guard, connect_limit=pace.ready_limit / 2)
        self._interval = pace.of(replica.engine)
        self._fade = 0.5 ** (self._interval / FADE_HALF_LIFE)
        self._failures = 0
        self._answers = replica.load.answers
        self._ready_from = 0.0
        self._metrics_from = 0.0
        self._models_from = 0.0
        self._missing: frozenset[str] = frozenset()

    @property
    def subject(self) -> tuple[object, ...]:
        """What the probe depends on: one with an equal subject can go on."""
        return (self._replica.backend, self._replica.load, self._models)

    @property
    def pause(self) -> float:
        """Seconds until the next probe: fewer while requests wait, but no fewer than the engine can bear."""
        if not self._waiting() or self._replica.engine.metrics_path is None:
            return self._interval
        return max(self._interval * HURRIED, min(self._interval, self._replica.engine.probe_pause))

    async def run(self) -> None:
        """Probe until cancelled."""
        try:
            while True:
                try:
                    await self.once()
                except Exception:  # noqa: BLE001 - a defect in one probe must not end all later ones
                    _log.exception("probe failed", replica=self._replica.name)
                spread = self._pace.jitter * (2 * self._rng.random() - 1)
                pause = self.pause * (1 + spread)
                # A beat may come a little sooner: too soon for an engine that asks to be left alone for so long.
                await asyncio.sleep(pause if self._replica.engine.probe_pause else paused(pause))
        finally:
            await self.close()

    async def once(self) -> None:
        """Probe one time."""
        load = self._replica.load
        if load.scraped_at is not None and self._clock() - load.scraped_at > STALE_INTERVALS * self._interval:
            load.forget_gauges()
        load.watch(self._clock())
        busy = load.answers != self._answers
        self._answers = load.answers
        if not busy:
            load.fade(self._fade)
        proven = busy and load.ready and not load.failures
        if proven:
            self._judge("")
        asked = not proven and self._doubtful()
        if asked and not await self._is_well():
            return
        if self._may_scrape() and not await self._scraped() and not proven and not asked and not await self._is_well():
            return
        if self._clock() >= self._models_from:
            await self._look_at_models()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    def _judge(self, trouble: str) -> None:
        """Turn what readiness probes found, or did not find, into readiness."""
        load = self._replica.load
        if not trouble:
            self._failures = 0
            if not load.ready:
                load.ready = True
                load.returned()
                self._models_from = 0.0
                _log.info("replica ready", replica=self._replica.name)
            return
        self._failures += 1
        if self._failures >= FAILURES and load.ready:
            load.ready = False
            load.forget_gauges()
            _log.warning("replica not ready", replica=self._replica.name, reason=trouble)

    def _doubtful(self) -> bool:
        """Whether the readiness path must be asked, whatever the metrics say."""
        load = self._replica.load
        trusted = load.ready and not self._failures and not load.failures
        return not trusted or not self._may_scrape() or self._clock() >= self._ready_from

    async def _is_well(self) -> bool:
        """Ask the readiness path, where there is one, and judge the answer."""
        path = self._replica.engine.ready_path
        if path is None:
            return True
        self._ready_from = self._clock() + READY_EVERY
        trouble = await self._trouble(path)
        self._judge(trouble)
        return not trouble

    async def _trouble(self, path: str) -> str:
        """Return what the readiness path says against the replica, or nothing."""
        try:
            page = await self._client.get(path, self._pace.ready_limit)
        except NoAnswer as error:
            return str(error)
        except EgressError as error:
            return f"{error.message} ({error.detail})" if error.detail else error.message
        return f"it answers {page.status}" if page.status >= 500 else ""

    def _may_scrape(self) -> bool:
        """Whether the replica is to be asked for its metrics now."""
        return self._replica.engine.metrics_path is not None and self._clock() >= self._metrics_from

    async def _scraped(self) -> bool:
        """Read the replica's gauges; return whether it handed its metrics out."""
        engine, load = self._replica.engine, self._replica.load
        assert engine.metrics_path is not None
        try:
            page = await self._client.get(engine.metrics_path, self._pace.page_limit)
        except (NoAnswer, EgressError):
            return False
        if page.status != 200:
            self._metrics_from = self._clock() + METRICS_RETRY
            return False
        found = gauges.read(page.body, engine.metrics)
        if not found.empty:
            load.reported(
                found.running,
                found.waiting,
                found.kv_usage,
                self._clock(),
                kv_tokens=found.kv_tokens,
                preemptions=found.preemptions,
            )
        return True

    async def _look_at_models(self) -> None:
        """Compare the replica's model list with what the configuration says: log what is missing, note what is more."""
        self._models_from = self._clock() + MODELS_EVERY
        if not self._replica.engine.models_path:
            return
        try:
            page = await self._client.get(self._replica.engine.models_path, self._pace.page_limit)
            served = {card.id for card in _MODELS.decode(page.body).data} if page.status == 200 else None
        except (NoAnswer, EgressError, msgspec.DecodeError):
            return
        if served is None:
            return
        self._replica.load.offers = frozenset(served - self._models)
        missing = self._models - served
        if self._replica.engine.minds_names:
            # An engine that lists nothing at all says nothing of names.
            self._replica.load.lacks = missing if served else frozenset()
        if missing and missing != self._missing:
            _log.warning("replica does not list its models", replica=self._replica.name, missing=sorted(missing))
        self._missing = missing
