"""What a decision by time and cost must come to, written as plainly as possible: the quick code is held against it.

Every figure comes from the replicas' books and the learned coefficients alone, by the formulas of the decision records;
nothing that the quick code keeps between decisions is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, sqrt
from random import Random

from gateway.fleet.load import ReplicaLoad
from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest

NEAR, EXPLORE, SLACK = 0.02, 0.01, 0.05


@dataclass(frozen=True)
class Expected:
    """What a request meets at one candidate; times are seconds."""

    cached: float
    ttft: float
    itl: float
    harm: float
    full: float
    engine: float


def ahead(load: ReplicaLoad, now: float, prompt: int) -> tuple[float, float]:
    """Return tokens and attention that are read before a prompt sent ``now``."""
    waiting = [booking for booking in load.pending if booking.waits]
    tokens, attention, estimate = float(load.waiting_tokens), load.waiting_attention, load.estimate
    if waiting:
        oldest = waiting[0]
        seconds = max(0.0, now - max(oldest.sent_at, load.progress_at))
        linear, square = oldest.uncached * estimate.token, oldest.attention * estimate.attention
        share = 0.95
        if seconds < 0.95 * (linear + square):
            share = seconds / (linear + square)
            if square > 0.25 * linear:
                share = (sqrt(linear * linear + 4.0 * square * seconds) - linear) / (2.0 * square)
        tokens -= share * oldest.uncached
        attention -= share * oldest.attention
    for booking in waiting:
        if now - booking.sent_at < 0.25 and booking.sent_at + 2e-6 * booking.prompt_tokens > now + 2e-6 * prompt:
            tokens -= booking.uncached
            attention -= booking.attention
    if load.foreign and load.waiting:
        tokens += min(load.foreign, load.waiting) * load.mean_uncached
    return max(0.0, tokens), max(0.0, attention)


def cached(load: ReplicaLoad, request: RouteRequest) -> float:
    """Return the prompt tokens that the replica probably has."""
    matched = 0
    for block in request.blocks:
        if not load.prefix.holds(block):
            break
        matched += 1
    hit = matched * request.block_tokens * load.hit_trust
    return hit if hit < request.prompt_tokens else float(max(request.prompt_tokens - 1, 0))


def expected(request: RouteRequest, candidate: Candidate) -> Expected:
    """Return what ``request`` meets at ``candidate``."""
    load, now, prompt = candidate.replica.load, request.now, request.prompt_tokens
    estimate, choices = load.estimate, request.choices or 1
    answer = request.expected_tokens / choices
    depth = load.in_flight + load.foreign
    context = load.context_tokens + load.foreign * load.mean_context
    most = load.ceiling.at(now) or inf
    beside, held = min(depth, most), context * min(1.0, most / depth) if depth else context
    if load.kv_tokens and held > load.kv_tokens:
        beside, held = beside * load.kv_tokens / held, load.kv_tokens
    pace = estimate.step + estimate.per_request * beside + estimate.per_context * held
    since = now - load.averaged_at
    left = exp(-since / 30.0) if since > 2.0 else 1.0
    watched = left * load.watched + 1.0 - left
    busy = min(0.9, load.busy * left / max(watched, 0.15) * estimate.reading)
    usual = left * load.mean_depth + (1.0 - left) * depth + (1.0 - watched) * depth
    around = min(most, 0.5 * (depth + usual))
    coming = 0.5 * load.arrivals * left / max(watched, 0.15)
    hit = cached(load, request)
    uncached = prompt - hit
    reading = uncached * estimate.token + uncached * (hit + 0.5 * uncached) * estimate.attention
    before, attention = ahead(load, now, prompt)
    chunks = (uncached + before) / 8_192
    prompts = sum(booking.waits for booking in load.pending) + 1
    if load.foreign and load.waiting:
        prompts += min(load.foreign, load.waiting)
    ttft = (
        estimate.base
        + prompts * estimate.per_prompt
        + reading
        + before * estimate.token
        + attention * estimate.attention
    )
    ttft += pace * estimate.steps * (1.5 + chunks) + load.standstill(prompt, now) * estimate.blocked
    end = prompt + 0.5 * answer
    more = answer * (estimate.per_request + estimate.per_context * end)
    full = max(depth / (load.ceiling.at(now) or inf), context / load.kv_tokens if load.kv_tokens else 0.0)
    full = max(full, min(load.waiting or 0, depth) / 5, (load.kv_usage or 0.0) / 0.8, before * estimate.token / 3.0)
    return Expected(
        cached=hit,
        ttft=ttft,
        itl=(pace + estimate.per_request + estimate.per_context * end) / (1.0 - busy),
        harm=around * estimate.reading * reading + around * more + coming * reading * reading,
        full=full,
        engine=reading + choices * (answer * estimate.step / 32.0 + more),
    )


def cost(request: RouteRequest, candidate: Candidate, met: Expected, saturation: float) -> float:
    """Return the owner's cost in pico-USD."""
    hourly, rates, shadow = candidate.replica.backend.usd_per_hour, candidate.cost, 1.0
    if rates is None and candidate.replica.backend.kind != "openai":
        shadow = saturation**4
        if hourly is not None:
            return hourly * 1_000 / 3_600 * met.engine * shadow
    rates = rates or candidate.endpoint.price
    read = rates.prompt if rates.cache_read is None else rates.cache_read
    return shadow * (
        (request.prompt_tokens - met.cached) * rates.prompt
        + met.cached * read
        + request.expected_tokens * rates.completion
        + rates.request * 1_000
    )


def scores(request: RouteRequest, candidates: Sequence[Candidate]) -> list[float]:
    """Return the score of each candidate: half by time, half by cost."""
    met = [expected(request, candidate) for candidate in candidates]
    answer = request.expected_tokens / (request.choices or 1)
    times = [each.ttft + answer * each.itl + each.harm + SLACK for each in met]
    own = [each.cost is None and each.replica.backend.kind != "openai" for each in candidates]
    prices = {each.replica.backend.usd_per_hour or id(each.endpoint) for each in candidates}
    costly = [1.0] * len(met)
    if not all(own) or len(prices) > 1:
        full = [min(each.full, 2.0) for each, mine in zip(met, own, strict=True) if mine]
        saturation = sum(full) / len(full) if full else 0.0
        sold = min(
            request.prompt_tokens * each.endpoint.price.prompt
            + request.expected_tokens * each.endpoint.price.completion
            + 1_000 * each.endpoint.price.request
            for each in candidates
        )
        costly = [
            (sold or 1) / ((sold or 1) + cost(request, each, what, saturation))
            for each, what in zip(candidates, met, strict=True)
        ]
    return [0.5 * min(times) / time + 0.5 * score for time, score in zip(times, costly, strict=True)]


def ranks(request: RouteRequest, candidates: Sequence[Candidate]) -> list[tuple[float, float]]:
    """Return the tiers of each candidate: whether it misses the caller's limits, whether it lacks the prompt."""
    met = [expected(request, candidate) for candidate in candidates]
    late = [0.0] * len(met)
    if request.slo_ttft is not None or request.slo_itl is not None:
        itl = 0.9 * (0.06 if request.slo_itl is None else request.slo_itl)
        for place, each in enumerate(met):
            most = 2.0 + 0.125e-3 * (request.prompt_tokens - each.cached)
            most = 0.9 * (most if request.slo_ttft is None else request.slo_ttft)
            late[place] = 0.0 if each.ttft <= most and each.itl <= itl else 1.0
    enough = min(0.8 * request.prompt_tokens, 4_096)
    sticky = min((each.ttft for each in met if each.cached >= enough), default=inf)
    other = min((each.ttft for each in met if each.cached < enough), default=inf)
    if sticky == inf or sticky - other > 3.0 or not any(each.cached for each in met):
        return [(each, 0.0) for each in late]
    return [(each, 0.0 if what.cached >= enough else 1.0) for each, what in zip(late, met, strict=True)]


def order(request: RouteRequest, candidates: Sequence[Candidate], rng: Random) -> list[int]:
    """Return indexes of ``candidates`` in the order in which they are tried."""
    totals, tiers = scores(request, candidates), ranks(request, candidates)
    found: list[int] = []
    for tier in sorted(set(tiers)):
        group = sorted((each for each in range(len(totals)) if tiers[each] == tier), key=lambda each: -totals[each])
        found += _picked(group, totals, [candidates[each].replica.load for each in range(len(totals))], rng)
    return found


def _picked(group: list[int], totals: list[float], loads: list[ReplicaLoad], rng: Random) -> list[int]:
    """Put the better of two drawn near-ties of the best first."""
    if len(group) == 1:
        return group
    draw = rng.random()
    if draw < EXPLORE:
        group.insert(0, group.pop(int(draw / EXPLORE * len(group))))
        return group
    ties = sum(totals[each] >= totals[group[0]] * (1.0 - NEAR) for each in group)
    if ties > 1:
        first, second = divmod(int((draw - EXPLORE) / (1.0 - EXPLORE) * (ties * ties - ties)), ties - 1)
        second += second >= first
        one, other = loads[group[first]], loads[group[second]]
        if (other.depth, other.waiting_tokens) < (one.depth, one.waiting_tokens):
            first = second
        group.insert(0, group.pop(first))
    return group
