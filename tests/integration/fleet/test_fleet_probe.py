"""Probes against simulated engines, and against servers that behave worse than any engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from structlog.testing import capture_logs

from gateway.config.egress import Egress
from gateway.config.snapshot import Secret
from gateway.fleet.booking import Booking, Work
from gateway.fleet.egress import EgressGuard
from gateway.fleet.estimate import Prior
from gateway.fleet.probe import METRICS_RETRY, MODELS_EVERY, READY_EVERY, Pace, Probe
from gateway.fleet.snapshot import Replica
from gateway.sim import Fault, SimConfig, SimServer, Timing
from tests.fakes.fleet import LOOPBACK, backend, fleet

MODEL = "Qwen/Qwen3-32B"
PATIENT = Pace(interval=1.0, jitter=0.0, ready_limit=20.0, page_limit=20.0)
HASTY = Pace(interval=1.0, jitter=0.0, ready_limit=0.3, page_limit=0.3)
"""For servers that do not answer."""


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def replica(url: str, kind: str = "vllm", **changes: object) -> Replica:
    """Return a replica at ``url``."""
    return fleet(backend("gpu-a", url=url, kind=kind, **changes)).replicas["gpu-a"]


def state(of: Replica) -> tuple[bool, int | None]:
    """Return whether a replica is ready and how many requests it reported as running."""
    return of.load.ready, of.load.running


ProbeMaker = Callable[..., Probe]


@pytest.fixture
async def probing() -> AsyncIterator[ProbeMaker]:
    """Make probes; all are closed at the end."""
    made: list[Probe] = []

    def make(
        of: Replica, *, clock: Clock | None = None, guard: EgressGuard | None = None, pace: Pace = PATIENT
    ) -> Probe:
        probe = Probe(of, [MODEL], guard or EgressGuard(LOOPBACK), pace=pace, rng=Random(1), clock=clock or Clock())
        made.append(probe)
        return probe

    yield make
    for probe in made:
        await probe.close()


Start = Callable[..., Awaitable[SimServer]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start simulated engines; all are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def begin(**fields: Any) -> SimServer:
            return await stack.enter_async_context(SimServer(SimConfig(**fields)))

        yield begin


@asynccontextmanager
async def raw_server(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve ``answer(head)`` for each request head, or nothing at all; yield the URL and the heads that came."""
    heads: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                heads.append(head)
                reply = answer(head)
                if reply is not None:
                    writer.write(reply)
                    await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def http(status: int, body: bytes = b"") -> bytes:
    """Return a whole answer."""
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


@pytest.mark.parametrize("kind", ["vllm", "sglang", "tgi"])
async def test_a_busy_engine_is_ready_and_says_what_it_does(kind: str, start: Start, probing: ProbeMaker) -> None:
    """Two of three requests run, one waits, and the KV cache is in use: read under the engine's own names."""
    sim = await start(kind=kind, timing=Timing(itl=5.0, slots=2))
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 50}
    async with httpx.AsyncClient(base_url=sim.url, timeout=30) as client:
        requests = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(3)]
        while len(sim.engine.running) + len(sim.engine.waiting) < 3:
            await asyncio.sleep(0.01)
        found = replica(sim.url, kind)
        await probing(found).once()
        load = found.load
        assert (load.ready, load.running, load.waiting, load.foreign) == (True, 2, 1, 3)
        assert load.kv_usage is not None
        assert 0 < load.kv_usage <= 1
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)


async def test_an_unhealthy_engine_is_out_after_two_probes_and_back_after_one(
    start: Start, probing: ProbeMaker
) -> None:
    """One bad probe is no news; two are; one good one is enough. That its metrics still come changes nothing."""
    sim = await start()
    found = replica(sim.url)
    clock = Clock()
    probe = probing(found, clock=clock)
    await probe.once()
    assert state(found) == (True, 0)
    sim.faults.arm(Fault(kind="unhealthy"))
    clock.now += READY_EVERY
    await probe.once()
    assert state(found) == (True, 0)
    await probe.once()
    assert state(found) == (False, None)
    sim.faults.clear()
    await probe.once()
    assert state(found) == (True, 0)


@pytest.mark.parametrize("mode", ["closed", "rst"])
async def test_an_engine_that_refuses_connections_is_out(mode: str, start: Start, probing: ProbeMaker) -> None:
    """No listener, or one that resets every connection: both are down, and both can come back."""
    sim = await start()
    found = replica(sim.url)
    probe = probing(found)
    sim.faults.arm(Fault(kind="refuse", mode=mode))  # type: ignore[arg-type]  # parametrized
    await sim.settled()
    await probe.once()
    await probe.once()
    assert not found.load.ready
    sim.faults.clear()
    await sim.settled()
    await probe.once()
    assert found.load.ready


async def test_a_failure_between_good_probes_is_forgotten(start: Start, probing: ProbeMaker) -> None:
    """Only failures in a row count."""
    sim = await start()
    found = replica(sim.url)
    clock = Clock()
    probe = probing(found, clock=clock)
    for _ in range(4):
        sim.faults.arm(Fault(kind="unhealthy"))
        clock.now += READY_EVERY
        await probe.once()
        sim.faults.clear()
        await probe.once()
        assert found.load.ready


async def test_a_probe_of_a_well_engine_is_one_request(probing: ProbeMaker) -> None:
    """Metrics that come show a life; only every few seconds is the engine asked whether it is well, too."""
    page = b"vllm:num_requests_running 1\n"
    async with raw_server(lambda head: http(200, page if b"/metrics" in head else b'{"data": []}')) as (url, heads):
        found = replica(url)
        clock = Clock()
        probe = probing(found, clock=clock)
        await probe.once()
        heads.clear()
        for _ in range(5):
            clock.now += READY_EVERY / 3
            await probe.once()
    asked = [head.split(b" ")[1] for head in heads]
    assert asked == [b"/metrics", b"/metrics", b"/health", b"/metrics", b"/metrics", b"/metrics"]


class _Answer:
    """An answer under way: 20 pieces in 2 s since its first one."""

    chunks = 21
    last_at = 1_003.0


async def test_a_probe_looks_at_answers_under_way_even_without_metrics(probing: ProbeMaker) -> None:
    """What they wrote since the last look is learned, whatever the engine's pages say."""
    async with raw_server(lambda _: http(404)) as (url, _):
        found = replica(url)
        Booking(found.load, Work(100, 200), 1_000.5).answered(1_001.0, _Answer())
        clock = Clock()
        clock.now = 1_003.1
        await probing(found, clock=clock).once()
    assert found.load.estimate.itl_error is not None
    assert found.load.estimate.itl(1, 300) > Prior().step


async def test_metrics_that_do_not_come_bring_the_question_at_once(probing: ProbeMaker) -> None:
    """An engine that dies between two looks at its readiness is noticed as soon as if it had been looked at."""
    alive = True

    def answer(head: bytes) -> bytes | None:
        return http(200, b"vllm:num_requests_running 1\n") if alive else b"nonsense\r\n\r\n"

    async with raw_server(answer) as (url, _):
        found = replica(url)
        probe = probing(found, pace=HASTY)
        await probe.once()
        assert state(found) == (True, 1)
        alive = False
        for _ in range(2):
            await probe.once()
        assert state(found) == (False, None)


@pytest.mark.parametrize(("kind", "probers", "seconds"), [("vllm", 8, 0.8), ("llamacpp", 1, 1.5), ("llamacpp", 4, 6.0)])
def test_an_engine_is_left_alone_for_as_long_as_it_needs(kind: str, probers: int, seconds: float) -> None:
    """The shortest pause, jitter and all processes of a host counted, is what the engine asks for."""
    pace = Pace(interval=1.0, jitter=0.2, probers=probers)
    interval = pace.of(replica("http://127.0.0.1:1", kind).engine)
    assert interval * (1.0 - pace.jitter) == pytest.approx(seconds)


async def test_a_backend_without_metrics_serves(probing: ProbeMaker) -> None:
    """No metrics page: no gauges, but ready; and it is not asked for them at every probe."""
    clock = Clock()
    async with raw_server(lambda head: http(404 if b"/metrics" in head else 200)) as (url, heads):
        found = replica(url)
        probe = probing(found, clock=clock)
        for _ in range(5):
            await probe.once()
        assert (found.load.ready, found.load.running, found.load.scraped_at) == (True, None, None)
        assert sum(b"/metrics" in head for head in heads) == 1
        clock.now += METRICS_RETRY
        await probe.once()
        assert sum(b"/metrics" in head for head in heads) == 2


@pytest.mark.parametrize("status", [200, 204, 302, 401, 403, 404, 405, 429])
async def test_a_probe_that_is_not_welcome_is_not_a_backend_that_is_down(status: int, probing: ProbeMaker) -> None:
    """Proxies often pass only the API: any answer below 500 means that somebody is there."""
    async with raw_server(lambda _: http(status)) as (url, _):
        found = replica(url)
        probe = probing(found)
        for _ in range(3):
            await probe.once()
        assert found.load.ready


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_an_engine_that_says_it_cannot_serve_is_out(status: int, probing: ProbeMaker) -> None:
    """A 5xx of the readiness path, also of a proxy before a dead engine, is a bad probe."""
    async with raw_server(lambda _: http(status)) as (url, heads):
        found = replica(url)
        probe = probing(found)
        for _ in range(2):
            await probe.once()
        assert not found.load.ready
        assert not any(b"/metrics" in head for head in heads)


async def test_an_engine_that_answers_requests_is_not_asked_whether_it_is_ready(probing: ProbeMaker) -> None:
    """Answers are proof enough, and a busy engine may be slow to say so; failures bring the question back."""
    async with raw_server(lambda head: None if b"/health" in head else http(404)) as (url, heads):
        found = replica(url)
        probe = probing(found, pace=HASTY)
        for _ in range(3):
            found.load.answers += 1
            await probe.once()
        assert found.load.ready
        assert not any(b"/health" in head for head in heads)
        found.load.failures = 1
        for _ in range(2):
            found.load.answers += 1
            await probe.once()
        assert state(found) == (False, None)


async def test_a_hanging_engine_is_out(probing: ProbeMaker) -> None:
    """A readiness path that takes the connection and never answers is a bad probe."""
    async with raw_server(lambda _: None) as (url, _):
        found = replica(url)
        probe = probing(found, pace=HASTY)
        for _ in range(2):
            await probe.once()
        assert not found.load.ready


async def test_an_external_api_is_never_out_by_its_probe(start: Start, probing: ProbeMaker) -> None:
    """There is no readiness path: a wrong key, or no answer at all, leaves the decision to the traffic."""
    sim = await start(kind="openai", api_key="sk-real")
    found = replica(f"{sim.url}/v1", "openai", api_key=Secret("sk-wrong"))
    clock = Clock()
    probe = probing(found, clock=clock)
    await probe.once()
    assert found.load.ready
    await sim.stop()
    for _ in range(3):
        clock.now += MODELS_EVERY
        await probe.once()
    assert found.load.ready


async def test_gauges_that_stop_coming_are_forgotten_and_stop_nothing(probing: ProbeMaker) -> None:
    """Three intervals after the last report only our own books count; the replica stays ready."""
    clock = Clock()
    pages = [b"vllm:num_requests_running 40\nvllm:num_requests_waiting 9\nvllm:kv_cache_usage_perc 0.9\n"]

    def answer(head: bytes) -> bytes | None:
        if b"/metrics" in head:
            return http(200, pages.pop()) if pages else b"not HTTP\r\n\r\n"
        return http(200, b'{"data": []}')

    async with raw_server(answer) as (url, _):
        found = replica(url)
        probe = probing(found, clock=clock)
        await probe.once()
        assert found.load.depth == 49
        clock.now += 2.5
        await probe.once()
        assert found.load.depth == 49
        clock.now += 1.0
        await probe.once()
        assert (found.load.depth, found.load.kv_usage, found.load.ready) == (0, None, True)


async def test_gauges_are_read_more_often_while_requests_wait() -> None:
    """Four times as often, but no engine is asked more often than it can bear, nor one without gauges."""
    waiting, pauses = [0], {}
    for kind in ("vllm", "llamacpp", "openai"):
        of = replica("http://127.0.0.1:9", kind)
        probe = Probe(of, [], EgressGuard(LOOPBACK), rng=Random(1), waiting=lambda: waiting[0])
        usual = probe.pause
        waiting[0] = 1
        pauses[kind] = probe.pause / usual
        waiting[0] = 0
        await probe.close()
    assert pauses["vllm"] == 0.25
    assert 0.25 < pauses["llamacpp"] <= 1.0
    assert pauses["openai"] == 1.0


async def test_frozen_metrics_stop_nothing(start: Start, probing: ProbeMaker) -> None:
    """A page that never changes says what it says; readiness is another matter."""
    sim = await start()
    found = replica(sim.url)
    probe = probing(found)
    sim.faults.arm(Fault(kind="frozen_metrics"))
    for _ in range(3):
        await probe.once()
    assert (found.load.ready, found.load.running) == (True, 0)


@pytest.mark.parametrize(
    "page",
    [
        b"x" * (3 * 1024 * 1024),
        b"\xff\xfe\x00 garbage",
        b"vllm:num_requests_running NaN\n",
        b"",
        b'{"error": "not metrics"}',
    ],
)
async def test_a_page_that_says_nothing_is_nothing(page: bytes, probing: ProbeMaker) -> None:
    """Pages that are too long, empty or garbage give no gauges and do no harm."""
    async with raw_server(lambda _: http(200, page)) as (url, _):
        found = replica(url)
        await probing(found).once()
        assert (found.load.ready, found.load.running, found.load.scraped_at) == (True, None, None)


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"])
async def test_answers_that_are_not_http_are_no_answers(answer: bytes, probing: ProbeMaker) -> None:
    """Garbage and answers that never end are bad probes, not exceptions."""
    async with raw_server(lambda _: answer) as (url, _):
        found = replica(url)
        probe = probing(found, pace=HASTY)
        for _ in range(2):
            await probe.once()
        assert not found.load.ready


async def test_probes_carry_the_backends_key_and_name(probing: ProbeMaker) -> None:
    """Every probe presents the key and asks for the host by its name, at the address that was checked."""

    async def lookup(host: str) -> Sequence[str]:
        assert host == "gpu.internal"
        return ["127.0.0.1"]

    async with raw_server(lambda _: http(200, b'{"data": []}')) as (url, heads):
        port = urlsplit(url).port or 0
        found = replica(f"http://gpu.internal:{port}/v1", api_key=Secret("sk-canary"))
        await probing(found, guard=EgressGuard(LOOPBACK, lookup=lookup)).once()
    assert [head.split(b" ")[1] for head in heads] == [b"/health", b"/metrics", b"/v1/models"]
    for head in heads:
        assert b"\r\nauthorization: bearer sk-canary\r\n" in head.lower()
        assert b"\r\nhost: gpu.internal:%d\r\n" % port in head.lower()


async def test_an_address_that_is_not_allowed_is_never_connected_to(probing: ProbeMaker) -> None:
    """A name that leads into a network that is not allowed is down, and its server hears nothing; the log says why."""
    async with raw_server(lambda _: http(200)) as (url, heads):
        found = replica(url)
        probe = probing(found, guard=EgressGuard(Egress()))
        with capture_logs() as logs:
            for _ in range(2):
                await probe.once()
        assert not found.load.ready
        assert heads == []
    (entry,) = [entry for entry in logs if entry["event"] == "replica not ready"]
    assert "egress.allow" in entry["reason"]


async def test_the_first_address_that_accepts_is_used(probing: ProbeMaker, start: Start) -> None:
    """A host with several addresses, one of them dead, is up."""

    async def lookup(host: str) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1"]

    sim = await start()
    found = replica(f"http://gpu.internal:{sim.port}")
    probe = probing(found, guard=EgressGuard(LOOPBACK, lookup=lookup))
    for _ in range(2):
        await probe.once()
    assert (found.load.ready, found.load.running) == (True, 0)


async def test_a_model_that_is_not_served_is_logged_once(start: Start, probing: ProbeMaker) -> None:
    """A typing error in the configuration shows in the log, not at every probe, and stops nothing."""
    sim = await start(models=("Qwen/Qwen3-8B",))
    clock = Clock()
    found = replica(sim.url)
    probe = probing(found, clock=clock)
    with capture_logs() as logs:
        for _ in range(3):
            await probe.once()
            clock.now += MODELS_EVERY
    (entry,) = [entry for entry in logs if entry["event"] == "replica does not list its models"]
    assert entry["missing"] == [MODEL]
    assert found.load.ready


async def test_averages_fade_only_while_nothing_is_answered(start: Start, probing: ProbeMaker) -> None:
    """A replica with traffic keeps its averages; an idle one becomes attractive again."""
    sim = await start()
    found = replica(sim.url)
    probe = probing(found)
    found.load.answered(0, 8.0)
    await probe.once()
    assert found.load.ttft == 8.0
    for _ in range(30):
        await probe.once()
    assert found.load.ttft == pytest.approx(4.0)


async def test_the_loop_survives_a_defect_and_ends_when_cancelled(start: Start) -> None:
    """An exception nobody thought of ends one probe, not probing."""
    sim = await start()
    found = replica(sim.url)
    failing = 2

    async def lookup(host: str) -> Sequence[str]:
        nonlocal failing
        if failing:
            failing -= 1
            raise RuntimeError("a defect")
        return ["127.0.0.1"]

    found = replica(f"http://gpu.internal:{sim.port}")
    probe = Probe(
        found,
        [MODEL],
        EgressGuard(LOOPBACK, lookup=lookup),
        pace=replace(PATIENT, interval=0.01),
        rng=Random(1),
    )
    with capture_logs() as logs:
        task = asyncio.create_task(probe.run())
        async with asyncio.timeout(30):
            while found.load.running is None:
                await asyncio.sleep(0.01)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert sum(entry["event"] == "probe failed" for entry in logs) == 2
    assert task.cancelled()
