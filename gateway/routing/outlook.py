"""What a request would meet at each candidate: cached tokens, times, and what others would pay for it.

Computed once per decision, when the first policy asks, from the fleet's live load (``gateway.fleet.estimate``,
``gateway.fleet.prefix``); scorers, tiers and pickers share it. Pure; nothing here raises. The loop over the candidates
is written out, because it is most of what a decision costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.fleet.load import LONGEST_WAIT
from gateway.fleet.snapshot import Candidate

if TYPE_CHECKING:
    from gateway.routing.interface import RouteRequest

_PICO_PER_NANO: Final = 1_000
_PICO_PER_NANO_HOUR: Final = 1_000.0 / 3_600.0
_SHARE: Final = 1.0 / 32.0
"""Share of a step that one request of an engine that is well used takes up, for the price of its time."""


class Outlook:
    """Parallel lists, one value per candidate. Times are seconds.

    Attributes:
        candidates: what the values are of, in their order.
        now: the moment they were true.
        cached: prompt tokens the replica probably has already.
        ttft: time to the first token.
        itl: time between two tokens.
        harm: time that all requests which run there, or will come while its prompt is read, lose to this one.
        full: how full the replica is, see ``ReplicaLoad.saturation``; limits of external APIs do not count here.
        engine: time of the engine that this one takes up, as a share of what runs side by side.
    """

    __slots__ = ("cached", "candidates", "engine", "full", "harm", "itl", "now", "ttft")

    def __init__(
        self,
        candidates: Sequence[Candidate],
        now: float,
        cached: list[float],
        ttft: list[float],
        itl: list[float],
        harm: list[float],
        full: list[float],
        engine: list[float],
    ) -> None:
        self.candidates = candidates
        self.now = now
        self.cached = cached
        self.ttft = ttft
        self.itl = itl
        self.harm = harm
        self.full = full
        self.engine = engine

    def of(self, candidates: Sequence[Candidate]) -> Outlook | None:
        """Return the values of ``candidates`` only, or None when there are others among them."""
        if candidates is self.candidates:
            return self
        places = {id(candidate): index for index, candidate in enumerate(self.candidates)}
        picked = [places.get(id(candidate), -1) for candidate in candidates]
        if -1 in picked:
            return None
        return Outlook(
            candidates,
            self.now,
            [self.cached[index] for index in picked],
            [self.ttft[index] for index in picked],
            [self.itl[index] for index in picked],
            [self.harm[index] for index in picked],
            [self.full[index] for index in picked],
            [self.engine[index] for index in picked],
        )


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """What a request would probably meet at a candidate.

    Attributes:
        ttft: seconds to the first token.
        itl: seconds between two tokens.
        cached: prompt tokens that need not be read.
        saturation: how full the replica is.
        cost: what it would cost the owner, in nano-USD; of an own GPU its shadow price.
        ttft_error: running median of the relative error of ``ttft`` there, or None before the first request.
    """

    ttft: float
    itl: float
    cached: int
    saturation: float
    cost: int
    ttft_error: float | None


def outlook(request: RouteRequest, candidates: Sequence[Candidate]) -> Outlook:
    """Return what ``request`` would meet at each of ``candidates`` now."""
    now = request.now
    found = request.outlook.of(candidates) if request.outlook is not None and request.outlook.now == now else None
    if found is not None:
        request.outlook = found
        return found
    prompt, blocks, block_tokens = request.prompt_tokens, request.blocks, request.block_tokens
    answer = request.expected_tokens / (request.choices or 1)
    end = prompt + 0.5 * answer
    cached: list[float] = []
    ttfts: list[float] = []
    itls: list[float] = []
    harms: list[float] = []
    full: list[float] = []
    engine: list[float] = []
    add_cached, add_ttft, add_itl, add_harm = cached.append, ttfts.append, itls.append, harms.append
    add_used, add_time = full.append, engine.append
    choices = request.choices or 1
    for candidate in candidates:
        load = candidate.replica.load
        hit = load.hit(blocks, block_tokens, prompt) if blocks else 0.0
        uncached = prompt - hit
        attention = uncached * (hit + 0.5 * uncached)
        (
            _,
            base,
            token,
            between,
            square,
            pace,
            per_request,
            per_context,
            step,
            stretch,
            around,
            held,
            coming,
            used,
            room,
        ) = load.outlook(now)
        reading = uncached * token + attention * square
        more = answer * (per_request + per_context * end)
        ttft = base + reading + uncached * between
        if load.waiting_tokens or load.foreign:
            before, attention_before = load.ahead(now, prompt)
            ttft += before * (token + between) + attention_before * square
            if before * token > used * LONGEST_WAIT:
                used = before * token / LONGEST_WAIT
        if prompt > room:
            ttft += load.standstill(prompt, now) * load.estimate.blocked
        add_cached(hit)
        add_ttft(ttft)
        add_itl((pace + per_context * end) * stretch)
        add_harm(held * reading + around * more + coming * reading * reading)
        add_used(used)
        add_time(reading + choices * (answer * step * _SHARE + more))
    request.outlook = made = Outlook(candidates, now, cached, ttfts, itls, harms, full, engine)
    return made


def owner_cost(request: RouteRequest, candidate: Candidate, cached: float, engine: float, saturation: float) -> float:
    """Return what the owner would pay for ``request`` at ``candidate``, in pico-USD.

    An external API costs its rates. An own GPU costs nothing more while it idles, and its time is worth its full price
    when it is full: the price of the time the request takes, times saturation to the fourth power (*shadow price*).
    A GPU whose hourly price is not configured is taken to be worth what it sells.

    Args:
        request: what is asked for.
        candidate: where.
        cached: prompt tokens that need not be read there.
        engine: seconds of the engine's time that it takes up.
        saturation: how full own GPUs are.
    """
    rates, backend = candidate.cost, candidate.replica.backend
    shadow = 1.0
    if rates is None:
        if backend.kind != "openai":
            shadow = saturation * saturation * saturation * saturation
            if backend.usd_per_hour is not None:
                return backend.usd_per_hour * _PICO_PER_NANO_HOUR * engine * shadow
        rates = candidate.endpoint.price
    read = rates.cache_read if rates.cache_read is not None else rates.prompt
    return shadow * (
        (request.prompt_tokens - cached) * rates.prompt
        + cached * read
        + request.expected_tokens * rates.completion
        + rates.request * _PICO_PER_NANO
    )


def predictions(request: RouteRequest, candidates: Sequence[Candidate]) -> tuple[Prediction, ...]:
    """Return what ``request`` would meet at each of ``candidates``, for people to read."""
    view, now = outlook(request, candidates), request.now
    found = []
    for index, candidate in enumerate(candidates):
        load, cached = candidate.replica.load, view.cached[index]
        full = load.saturation(now)
        cost = owner_cost(request, candidate, cached, view.engine[index], full)
        found.append(
            Prediction(
                ttft=view.ttft[index],
                itl=view.itl[index],
                cached=int(cached),
                saturation=full,
                cost=int(cost / _PICO_PER_NANO),
                ttft_error=load.estimate.ttft_error,
            )
        )
    return tuple(found)
