"""One round of one contestant: warm-up, then every figure in turn, each on its own.

A figure that fails is left out and its reason kept; the others are still measured. CPU of a load is read from
`/proc` before and after it, so everything the contestant does meanwhile counts, probes of backends included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop

from bench import streams
from bench.calm import CalmError, ask_calmly
from bench.contestants.base import ROOT, ContestantError, OffPath, Server
from bench.figures import percentile
from bench.load import LoadError, Target, wrk
from bench.payload import CHUNKS
from bench.streams import StreamError

_JSON_SIZE: Final = 500
_BURST_SIZE: Final = 100 * CHUNKS
_STREAMS: Final = 1000
_TRANSLATION_S: Final = 300.0
_DRIP_SPREAD: Final = 1.02
"""Seconds over which 100 streams of 1 s begin: 10.2 ms apart, so chunks spread evenly over the 20 ms gap."""

_CALM_PER_S: Final = 100.0
"""JSON answers in a second of the calm load: the rate of the dripped streams."""

_FAILURES: Final = (
    CalmError,
    ContestantError,
    LoadError,
    StreamError,
    OSError,
    TimeoutError,
    subprocess.TimeoutExpired,
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How long each part of a round is, and how many rounds there are; `_s` in seconds."""

    rounds: int
    heavy_rounds: int
    warm_up_s: float
    json_s: float
    calm_s: float
    lone_s: float
    burst_s: float
    drip_turns: int
    """Streams one after the other on each of the 100 connections."""
    first_chunks: int
    """Streams for the first-chunk delay."""
    hold_s: float
    stall_s: float
    ship_s: float
    """The longest wait for the shipper to catch up."""


FULL: Final = Sizes(4, 3, 2, 5, 4, 3, 4, 4, 50, 3, 2, 15)
QUICK: Final = Sizes(2, 1, 1, 2, 2, 1, 1, 2, 20, 1, 1, 5)


@dataclass(slots=True)
class Round:
    """What one round of one contestant gave."""

    figures: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def attempt(self, name: str, part: Callable[[], dict[str, float]]) -> None:
        """Measures one part; a failure is kept by its name."""
        try:
            self.figures.update(part())
        except _FAILURES as error:
            self.failures.append(f"{name}: {str(error) or type(error).__name__}")


def direct(target: Target, sizes: Sizes, work: Path) -> Round:
    """Measures the mock alone: the baseline of delays, and proof that the mock is not the limit."""
    seen = Round()
    seen.attempt("warm-up", lambda: _warm_up(target, sizes, work, connections=8))
    seen.attempt("json", lambda: _saturated(target, "json", sizes.json_s, work, 32).figures("json"))
    seen.attempt("lone", lambda: _lone(target, sizes, work))
    seen.attempt("drip", lambda: _chunks(_drip(target, sizes, at_once=100)))
    seen.attempt("first chunk", lambda: _first_chunk(target, sizes))
    return seen


def contestant(server: Server, baseline: Round, sizes: Sizes, work: Path) -> Round:
    """Measures a running contestant. `baseline` is `direct` of the same round."""
    target, heavy = server.target, server.contestant.heavy
    # Requests in flight when wrk ends cost CPU without being counted: few connections where few are done.
    connections = 2 if heavy else 32
    seen = Round()
    seen.attempt("warm-up", lambda: _warm_up(target, sizes, work, connections=2 if heavy else 8))
    seen.attempt("idle", lambda: _idle(server))
    seen.attempt("json", lambda: _wrk_cost(server, "json", sizes.json_s, work, connections))
    if not heavy:
        seen.attempt("calm", lambda: _calm_cost(server, sizes))
    seen.attempt("lone", lambda: _lone(target, sizes, work))
    seen.attempt("burst", lambda: _wrk_cost(server, "burst", sizes.burst_s, work, connections))
    seen.attempt("drip", lambda: _drip_cost(server, sizes, at_once=10 if heavy else 100))
    seen.attempt("first chunk", lambda: _first_chunk(target, sizes))
    seen.attempt("slow reader", lambda: _slow_reader(server, sizes))
    if not heavy:
        seen.attempt("1,000 streams", lambda: _many_streams(server, sizes))
    seen.attempt("shipper", lambda: _shipper(server, sizes))
    if server.contestant.translates:
        seen.attempt("translation", _translation)
    _subtract(seen.figures, baseline.figures)
    return seen


def _subtract(figures: dict[str, float], baseline: dict[str, float]) -> None:
    """Adds the differences to the direct way, where both were measured."""
    for name, added in (
        ("lone_p50_us", "lone_added_us"),
        ("chunk_p50_ms", "chunk_added_p50_ms"),
        ("chunk_p99_ms", "chunk_added_p99_ms"),
        ("first_chunk_ms", "first_chunk_added_ms"),
    ):
        if name in figures and name in baseline:
            figures[added] = figures[name] - baseline[name]


def _warm_up(target: Target, sizes: Sizes, work: Path, *, connections: int) -> dict[str, float]:
    """Plays every kind of answer for a while, so that code, pools and caches are warm."""
    half = sizes.warm_up_s / 2
    wrk(target, "json", connections=connections, seconds=half, work=work, least_size=_JSON_SIZE)
    wrk(target, "burst", connections=connections, seconds=half, work=work, least_size=_BURST_SIZE)
    _play(streams.play(target, "ttft20", at_once=4, each=4, spread=0.05, limit=30))
    return {}


@dataclass(frozen=True, slots=True)
class _Load:
    """A load that ran: requests, what wrk said."""

    requests: int
    per_s: float
    p99_us: float

    def figures(self, kind: str) -> dict[str, float]:
        """Returns throughput and tail, which are told for JSON only."""
        return {"json_per_s": self.per_s, "json_p99_ms": self.p99_us / 1e3} if kind == "json" else {}


def _saturated(target: Target, mode: str, seconds: float, work: Path, connections: int) -> _Load:
    """Loads without pause."""
    least = _JSON_SIZE if mode == "json" else _BURST_SIZE
    done = wrk(target, mode, connections=connections, seconds=seconds, work=work, least_size=least)
    return _Load(done.requests, done.requests / done.seconds, done.p99_us)


def _cost(server: Server, kind: str, load: Callable[[], int]) -> dict[str, float]:
    """Returns CPU per request of `load`, which returns how many requests it played.

    For a contestant that reports work off the path, also without the part of it that fell into the load.
    """
    off_before, before = server.off_path(), server.cpu()
    requests = load()
    spent, off_after = server.cpu() - before, server.off_path()
    figures = {f"{kind}_cpu_us": spent / requests * 1e6}
    if off_before is not None and off_after is not None:
        off_path = off_after.seconds - off_before.seconds
        if not 0 <= off_path <= spent:
            raise ContestantError(f"it reports {off_path:.3f} s of CPU off the path, it used {spent:.3f} s in all")
        figures[f"{kind}_serving_cpu_us"] = (spent - off_path) / requests * 1e6
    return figures


def _wrk_cost(server: Server, mode: str, seconds: float, work: Path, connections: int) -> dict[str, float]:
    """Measures CPU per request under wrk."""
    figures: dict[str, float] = {}

    def load() -> int:
        done = _saturated(server.target, mode, seconds, work, connections)
        figures.update(done.figures(mode))
        return done.requests

    return _cost(server, mode, load) | figures


def _calm_cost(server: Server, sizes: Sizes) -> dict[str, float]:
    """Measures CPU per request where the gateway rests between requests."""
    limit = 10 + 2 * sizes.calm_s

    def load() -> int:
        return uvloop.run(ask_calmly(server.target, per_s=_CALM_PER_S, seconds=sizes.calm_s, limit=limit))

    return _cost(server, "calm", load)


def _lone(target: Target, sizes: Sizes, work: Path) -> dict[str, float]:
    """Measures the latency one client sees alone."""
    done = wrk(target, "json", connections=1, seconds=sizes.lone_s, work=work, least_size=_JSON_SIZE)
    return {"lone_p50_us": done.p50_us}


def _play(work: Coroutine[object, object, streams.Timings]) -> streams.Timings:
    """Runs a streaming load to its end."""
    return uvloop.run(work)


def _drip(target: Target, sizes: Sizes, *, at_once: int) -> streams.Timings:
    """Plays dripped streams."""
    turns = sizes.drip_turns
    return _play(streams.play(target, "drip", at_once=at_once, each=turns, spread=_DRIP_SPREAD, limit=20 + 10 * turns))


def _chunks(timings: streams.Timings) -> dict[str, float]:
    """Returns the delays of dripped chunks."""
    delays = timings.chunk_delays
    return {"chunk_p50_ms": percentile(delays, 0.5) * 1e3, "chunk_p99_ms": percentile(delays, 0.99) * 1e3}


def _drip_cost(server: Server, sizes: Sizes, *, at_once: int) -> dict[str, float]:
    """Measures CPU per dripped stream and the delay of its chunks."""
    figures: dict[str, float] = {}

    def load() -> int:
        timings = _drip(server.target, sizes, at_once=at_once)
        figures.update(_chunks(timings))
        return timings.streams

    return _cost(server, "drip", load) | figures


def _first_chunk(target: Target, sizes: Sizes) -> dict[str, float]:
    """Measures the time to the first chunk, one stream at a time."""
    timings = _play(
        streams.play(target, "ttft20", at_once=1, each=sizes.first_chunks, spread=0, limit=30 + sizes.first_chunks)
    )
    return {"first_chunk_ms": percentile(timings.first_chunks, 0.5) * 1e3}


def _idle(server: Server) -> dict[str, float]:
    """Measures memory after a second of rest."""
    time.sleep(1)
    return {"idle_mb": server.memory()}


def _many_streams(server: Server, sizes: Sizes) -> dict[str, float]:
    """Measures memory with 1,000 open streams."""
    held = streams.hold(server.target, count=_STREAMS, seconds=sizes.hold_s, limit=30, sample=server.memory)
    return {"streams_mb": uvloop.run(held)}


def _slow_reader(server: Server, sizes: Sizes) -> dict[str, float]:
    """Measures what a reader that does not read costs in memory."""
    return {"slow_reader_mb": uvloop.run(streams.stall(server.target, seconds=sizes.stall_s, sample=server.memory))}


def _translation() -> dict[str, float]:
    """Measures what other dialects cost beyond the chat form, in a process of its own; the dearest case counts."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.translation", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=False,
        timeout=_TRANSLATION_S,
        text=True,
    )
    try:
        cases = [(str(each["name"]), float(each["beyond_us"])) for each in json.loads(done.stdout)]
    except (ValueError, TypeError, KeyError) as error:
        raise ContestantError("bench.translation said nothing") from error
    return {
        f"translated_{kind}_us": max(beyond for name, beyond in cases if name.endswith(kind))
        for kind in ("answer", "chunk")
    }


def _shipper(server: Server, sizes: Sizes) -> dict[str, float]:
    """Waits until the shipper has caught up and returns its cost per record; nothing for who reports none."""
    seen: OffPath | None = server.off_path()
    until = time.monotonic() + sizes.ship_s
    while seen is not None and time.monotonic() < until:
        time.sleep(1)
        latest = server.off_path()
        if latest is not None and latest.records == seen.records > 0:
            break
        seen = latest
    if seen is None:
        return {}
    if not seen.records:
        raise ContestantError("no record was shipped")
    return {"shipper_us_per_record": seen.seconds / seen.records * 1e6}
