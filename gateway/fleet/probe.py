"""The probe of one replica: asks again and again whether it can serve and what it is busy with.

Readiness is lost after ``FAILURES`` probes in a row without a good answer and regained by one. Only a 5xx or no answer
speaks against a replica: a 401 or 404 means that the probe is not welcome there. While requests are answered and none
fails, readiness is not asked for at all: that is proof enough, and a busy engine is slow to say that it is well. Gauges
are a hint, not a condition: a backend without ``/metrics`` serves, and gauges older than ``STALE_INTERVALS`` probes are
forgotten. The loop survives everything but its cancellation.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec

from gateway.engines.kind import joined
from gateway.fleet import gauges
from gateway.fleet.egress import EgressError, EgressGuard
from gateway.fleet.snapshot import Replica
from gateway.telemetry import logs

FAILURES: Final = 2
"""Probes in a row without a good answer after which a replica is not ready."""
STALE_INTERVALS: Final = 3
"""Gauges older than this many intervals say nothing any more."""
FADE_HALF_LIFE: Final = 30.0
"""Seconds in which the latency averages of an idle replica halve, so that it is tried again."""
MAX_PAGE: Final = 1024 * 1024
"""Longest page that is read; a longer one says nothing."""
MODELS_EVERY: Final = 60.0
"""Seconds between two looks at a replica's model list."""
METRICS_RETRY: Final = 30.0
"""Seconds until a replica that refuses its metrics is asked for them again."""

_log: Final = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a replica is probed and how long an answer may take, in seconds."""

    interval: float = 1.0
    jitter: float = 0.2
    """Share of ``interval`` by which each pause is longer or shorter at random, so that probes spread out."""
    ready_limit: float = 3.0
    page_limit: float = 2.0


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
    ) -> None:
        self._replica = replica
        self._models = frozenset(models)
        self._guard = guard
        self._pace = pace
        self._rng = rng
        self._clock = clock
        self._url = httpx.URL(replica.backend.url)
        self._base = urlsplit(replica.backend.url).path
        self._headers = {"accept-encoding": "identity", "user-agent": "weir-probe"}
        if replica.backend.api_key is not None:
            self._headers["authorization"] = f"Bearer {replica.backend.api_key.reveal()}"
        self._fade = 0.5 ** (pace.interval / FADE_HALF_LIFE)
        self._client: httpx.AsyncClient | None = None
        self._failures = 0
        self._answers = replica.load.answers
        self._metrics_from = 0.0
        self._models_from = 0.0
        self._missing: frozenset[str] = frozenset()

    @property
    def subject(self) -> tuple[object, ...]:
        """What the probe depends on: one with an equal subject can go on."""
        return (self._replica.backend, self._replica.load, self._models)

    async def run(self) -> None:
        """Probe until cancelled."""
        try:
            while True:
                try:
                    await self.once()
                except Exception:  # noqa: BLE001 - a defect in one probe must not end all later ones
                    _log.exception("probe failed", replica=self._replica.name)
                spread = self._pace.jitter * (2 * self._rng.random() - 1)
                await asyncio.sleep(self._pace.interval * (1 + spread))
        finally:
            await self.close()

    async def once(self) -> None:
        """Probe one time."""
        engine, load = self._replica.engine, self._replica.load
        if load.scraped_at is not None and self._clock() - load.scraped_at > STALE_INTERVALS * self._pace.interval:
            load.forget_gauges()
        busy = load.answers != self._answers
        self._answers = load.answers
        if not busy:
            load.fade(self._fade)
        if engine.ready_path is not None:
            proven = busy and load.ready and not load.failures
            trouble = "" if proven else await self._trouble(engine.ready_path)
            self._judge(trouble)
            if trouble:
                return
        if engine.metrics_path is not None and self._clock() >= self._metrics_from:
            await self._scrape(engine.metrics_path)
        if self._clock() >= self._models_from:
            await self._look_at_models()

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _judge(self, trouble: str) -> None:
        """Turn what readiness probes found, or did not find, into readiness."""
        load = self._replica.load
        if not trouble:
            self._failures = 0
            if not load.ready:
                load.ready = True
                self._models_from = 0.0
                _log.info("replica ready", replica=self._replica.name)
            return
        self._failures += 1
        if self._failures >= FAILURES and load.ready:
            load.ready = False
            load.forget_gauges()
            _log.warning("replica not ready", replica=self._replica.name, reason=trouble)

    async def _trouble(self, path: str) -> str:
        """Ask the readiness path; return what speaks against the replica, or nothing."""
        try:
            status, _ = await self._get(path, self._pace.ready_limit)
        except httpx.TimeoutException:
            return "it does not answer in time"
        except httpx.HTTPError as error:
            return f"no answer: {type(error).__name__}"
        except EgressError as error:
            return f"{error.message} ({error.detail})" if error.detail else error.message
        return f"it answers {status}" if status >= 500 else ""

    async def _scrape(self, path: str) -> None:
        try:
            status, page = await self._get(path, self._pace.page_limit)
        except (httpx.HTTPError, EgressError):
            return
        if status != 200:
            self._metrics_from = self._clock() + METRICS_RETRY
            return
        found = gauges.read(page, self._replica.engine.metrics)
        if not found.empty:
            self._replica.load.reported(found.running, found.waiting, found.kv_usage, self._clock())

    async def _look_at_models(self) -> None:
        """Compare the replica's model list with what the configuration says, and log what is missing."""
        self._models_from = self._clock() + MODELS_EVERY
        try:
            status, page = await self._get(self._replica.engine.models_path, self._pace.page_limit)
            served = {card.id for card in _MODELS.decode(page).data} if status == 200 else None
        except (httpx.HTTPError, EgressError, msgspec.DecodeError):
            return
        if served is None:
            return
        missing = self._models - served
        if missing and missing != self._missing:
            _log.warning("replica does not list its models", replica=self._replica.name, missing=sorted(missing))
        self._missing = missing

    async def _get(self, path: str, limit: float) -> tuple[int, bytes]:
        """GET ``path`` of the replica at an address that the guard has checked.

        Returns the status and the body, which is empty when it is longer than ``MAX_PAGE``.

        Raises:
            httpx.HTTPError: no whole answer within ``limit`` seconds.
            EgressError: the replica's host may not or cannot be reached.
        """
        try:
            async with asyncio.timeout(limit):
                return await self._fetch(joined(self._base, path))
        except TimeoutError:
            raise httpx.ReadTimeout("the whole answer took too long") from None

    async def _fetch(self, path: str) -> tuple[int, bytes]:
        url = self._url
        port = url.port or (443 if url.scheme == "https" else 80)
        if self._client is None:
            self._client = httpx.AsyncClient(
                headers=self._headers,
                timeout=httpx.Timeout(self._pace.ready_limit, connect=self._pace.ready_limit / 2),
                limits=httpx.Limits(max_connections=2, max_keepalive_connections=1),
                trust_env=False,
                verify=_trusted() if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            )
        failure: httpx.TransportError = httpx.ConnectError("the host has no address")
        for address, _ in await self._guard.resolve(url.host, port):
            request = self._client.build_request(
                "GET",
                url.copy_with(host=address, raw_path=path.encode("ascii")),
                headers={"host": url.netloc.decode("ascii")},
                extensions={"sni_hostname": url.host},
            )
            try:
                response = await self._client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
                continue
            try:
                return response.status_code, await _body(response)
            finally:
                await response.aclose()
        raise failure


@cache
def _trusted() -> ssl.SSLContext:
    """Return the system's certificates, loaded once: that takes longer than many probes."""
    return ssl.create_default_context()


async def _body(response: httpx.Response) -> bytes:
    """Return the body, or nothing when it is too long."""
    page = bytearray()
    async for part in response.aiter_raw():
        page += part
        if len(page) > MAX_PAGE:
            return b""
    return bytes(page)
