"""What a replay is judged by: goodput at the SLO, latencies, cache hits, cost, fairness, prediction error.

Pure. A figure that nothing was observed for is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

import msgspec

from gateway.lab.job import Fate, Job
from gateway.lab.trace import Trace
from gateway.lab.world import Replay

SLO_TTFT_S: Final = 2.0
SLO_TTFT_TOKENS_PER_S: Final = 8_000.0
SLO_ITL_S: Final = 0.060
INTERVAL_S: Final = 20.0
"""Seconds of the intervals over which service between teams is compared."""


class Figures(msgspec.Struct, frozen=True):
    """The figures of one policy, trace and seed; the fields, in this order, are the JSON of ``weir lab run``.

    Attributes:
        policy: name of the preset.
        seed: of the replay.
        requests: requests of the trace.
        rejected: requests refused by the gateway, and those lost.
        goodput_per_s: requests within the SLO per second of arrivals.
        slo_attainment: share of all requests within the SLO.
        ttft_p50_s, ttft_p90_s, ttft_p99_s: time to first token of the requests that got one.
        itl_p99_s: 99th percentile of the mean inter-token time of requests.
        hit_ratio: share of prompt tokens that replicas found in their prefix caches.
        ideal_hit_ratio: the same for one cache without limits over the whole trace.
        usd_per_1k_requests: cost of replicas while requests came, and of external APIs, per 1,000 requests served.
        jain: Jain's index of service between backlogged teams; None where no two teams were backlogged.
        ttft_error: median of |predicted - true| / true time to first token; None when nothing was predicted.
    """

    policy: str
    seed: int
    requests: int
    rejected: int
    goodput_per_s: float
    slo_attainment: float
    ttft_p50_s: float | None
    ttft_p90_s: float | None
    ttft_p99_s: float | None
    itl_p99_s: float | None
    hit_ratio: float | None
    ideal_hit_ratio: float
    usd_per_1k_requests: float | None
    jain: float | None
    ttft_error: float | None


def figures(policy: str, seed: int, trace: Trace, result: Replay) -> Figures:
    """Return what ``result``, a replay of ``trace`` by ``policy``, comes to."""
    jobs = result.jobs
    good = sum(within_slo(job) for job in jobs)
    served = sum(job.fate is Fate.SERVED for job in jobs)
    ttfts = sorted(job.ttft for job in jobs if job.ttft is not None)
    itls = sorted(job.itl for job in jobs if job.itl is not None)
    errors = [
        abs(job.predicted_ttft - true) / true
        for job in jobs
        if job.predicted_ttft is not None
        and job.first_at is not None
        and (true := job.first_at - job.first_sent_at) > 0
    ]
    return Figures(
        policy=policy,
        seed=seed,
        requests=len(jobs),
        rejected=len(jobs) - served,
        goodput_per_s=good / result.span,
        slo_attainment=good / len(jobs),
        ttft_p50_s=percentile(ttfts, 0.50),
        ttft_p90_s=percentile(ttfts, 0.90),
        ttft_p99_s=percentile(ttfts, 0.99),
        itl_p99_s=percentile(itls, 0.99),
        hit_ratio=result.hit_tokens / result.queried_tokens if result.queried_tokens else None,
        ideal_hit_ratio=trace.ideal_hit_ratio,
        usd_per_1k_requests=1_000 * result.usd / served if served else None,
        jain=jain(jobs),
        ttft_error=median(errors) if errors else None,
    )


def within_slo(job: Job) -> bool:
    """Whether a request was served within the SLO."""
    ttft, itl = job.ttft, job.itl
    return (
        job.fate is Fate.SERVED
        and ttft is not None
        and ttft <= SLO_TTFT_S + job.uncached / SLO_TTFT_TOKENS_PER_S
        and (itl is None or itl <= SLO_ITL_S)
    )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the value below or at which ``share`` of ``ordered`` lies (nearest rank), or None of nothing."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def index_of(shares: Sequence[float]) -> float:
    """Return Jain's fairness index of ``shares``: 1 when all are equal, 1/n when one has all."""
    squares = math.fsum(share * share for share in shares)
    return math.fsum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def jain(jobs: Iterable[Job], interval: float = INTERVAL_S) -> float | None:
    """Return the mean of Jain's index over the intervals in which two or more teams were backlogged.

    A team is backlogged in an interval when at every moment of it a request of it waits, at the gateway or in an
    engine: it has come, no engine has begun to read it, and it has not been refused. Service is prompt tokens, in full
    when the first token comes, and twice the answer's tokens, spread evenly from the first to the last (Sheng et al.,
    "Fairness in Serving Large Language Models").
    """
    waits: dict[str, list[tuple[float, float]]] = {}
    service: dict[tuple[str, int], float] = {}
    for job in jobs:
        team, until, first = job.arrival.team, job.waited_until, job.first_at
        if until is not None:
            waits.setdefault(team, []).append((job.at, until))
        if first is not None:
            _add(service, team, first, first, job.arrival.prompt_tokens, interval)
            _add(service, team, first, job.ended_at or first, 2.0 * job.arrival.answer_tokens, interval)
    backlogged: dict[int, list[str]] = {}
    for team, spans in waits.items():
        for start, end in _merged(spans):
            for number in range(math.ceil(start / interval), int(end / interval)):
                backlogged.setdefault(number, []).append(team)
    found = [
        index_of([service.get((team, number), 0.0) for team in teams])
        for number, teams in backlogged.items()
        if len(teams) > 1
    ]
    return math.fsum(found) / len(found) if found else None


def _add(
    service: dict[tuple[str, int], float], team: str, start: float, end: float, tokens: float, interval: float
) -> None:
    """Spread ``tokens`` over the intervals between ``start`` and ``end``."""
    first, last = int(start / interval), int(end / interval)
    if first == last:
        service[team, first] = service.get((team, first), 0.0) + tokens
        return
    for number in range(first, last + 1):
        inside = min(end, (number + 1) * interval) - max(start, number * interval)
        service[team, number] = service.get((team, number), 0.0) + tokens * inside / (end - start)


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the union of ``spans`` as spans that do not touch."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
