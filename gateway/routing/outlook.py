"""What a request would meet at each candidate: cached tokens, times, and what others would pay for it.

Computed once per decision, when the first policy asks, from the fleet's live load (``gateway.fleet.estimate``,
``gateway.fleet.prefix``); scorers, tiers and pickers share it. Pure; nothing here raises. The loop over the candidates
is written out, because it is most of what a decision costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.fleet.account import TOKENIZE_SECONDS
from gateway.fleet.load import ATTENTION, LONGEST_WAIT, READ_AT_MOST, REST, TOKEN
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
        together: time to the end of the answer, and what all requests which run there, or will come while its prompt
            is read, lose to this one.
    """

    __slots__ = ("cached", "candidates", "itl", "now", "together", "ttft")

    def __init__(
        self,
        candidates: Sequence[Candidate],
        now: float,
        cached: list[float],
        ttft: list[float],
        itl: list[float],
        together: list[float],
    ) -> None:
        self.candidates = candidates
        self.now = now
        self.cached = cached
        self.ttft = ttft
        self.itl = itl
        self.together = together

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
            [self.together[index] for index in picked],
        )

    def alone(self, request: RouteRequest) -> list[float]:
        """Return the time to the end of the answer to ``request``, whatever others lose to it."""
        answer = request.expected_tokens / (request.choices or 1)
        return [ttft + answer * itl for ttft, itl in zip(self.ttft, self.itl, strict=True)]

    def full(self, request: RouteRequest) -> list[float]:
        """Return how full each is, see ``ReplicaLoad.saturation``; limits of external APIs do not count here."""
        now, prompt, found = self.now, request.prompt_tokens, []
        for candidate in self.candidates:
            load = candidate.load
            facts = load.outlook(now)
            before = load.ahead(now, prompt)[0] if facts[REST][0] is not None else 0.0
            full, waiting = facts[REST][1], before * facts[TOKEN] / LONGEST_WAIT
            found.append(full if full > waiting else waiting)
        return found

    def engine(self, request: RouteRequest) -> list[float]:
        """Return the time of each one's engine that ``request`` takes up, as a share of what runs side by side."""
        now, prompt, found = self.now, request.prompt_tokens, []
        choices = request.choices or 1
        answer = request.expected_tokens / choices
        end = prompt + 0.5 * answer
        for candidate, hit in zip(self.candidates, self.cached, strict=True):
            facts = candidate.load.outlook(now)
            uncached = prompt - hit
            reading = uncached * facts[TOKEN] + uncached * (hit + 0.5 * uncached) * facts[ATTENTION]
            _, _, step, _, per_request, per_context = facts[REST]
            more = answer * (per_request + per_context * end)
            found.append(reading + choices * (answer * step * _SHARE + more))
        return found


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
    now, made = request.now, request.outlook
    if made is not None and made.now == now:
        if made.candidates is candidates:
            return made
        found = made.of(candidates)
        if found is not None:
            request.outlook = found
            return found
    request.outlook = made = _expected(request, candidates)
    return made


def _expected(request: RouteRequest, candidates: Sequence[Candidate]) -> Outlook:
    """Return the outlook made anew, one look at each replica's facts."""
    # Floats throughout: mixed arithmetic gives the same and takes longer.
    now, prompt, blocks = request.now, float(request.prompt_tokens), request.blocks
    first, last = (blocks[0], blocks[-1]) if blocks else (None, None)
    whole_hit, whole_rest, whole_attention = _whole_hit(request, prompt)
    answer = request.expected_tokens / (request.choices or 1)
    end = prompt + 0.5 * answer
    unaided = 0.5 * prompt * prompt
    entry = now + TOKENIZE_SECONDS * prompt
    cached: list[float] = []
    ttfts: list[float] = []
    itls: list[float] = []
    together: list[float] = []
    for candidate in candidates:
        load = candidate.load
        facts = load.facts
        if facts is None or facts[0] <= now:
            facts = load.outlook(now)
        _, start, after, token, steps, square, itl, growth, others, more, held, came, room, due, stamps, rest = facts
        if due > now:  # what is kept of the prompts that wait holds from then on only
            line = rest[0]
            if line is None or line[8] or line[5] > now or load.latest_entry > entry:
                before, attention = load.ahead(now, prompt)
            else:  # as ``ReplicaLoad.before``, which as a call is a good part of a decision
                before, attention, foreign, oldest, its_attention, turned_to, read_after, seconds, _ = line
                share = now - turned_to
                share = share / seconds if share < read_after else READ_AT_MOST
                before += foreign - share * oldest
                attention -= share * its_attention
            after = start + before * (token + steps) + attention * square
        if first not in stamps:
            hit = 0.0
            reading = prompt * token + unaided * square
            after += reading + prompt * steps
        elif last in stamps and load.hit_trust == 1.0:
            hit = whole_hit
            reading = whole_rest * token + whole_attention * square
            after += reading + whole_rest * steps
        else:
            hit = load.hit(blocks, request.block_tokens, prompt)
            uncached = prompt - hit
            reading = uncached * token + uncached * (hit + 0.5 * uncached) * square
            after += reading + uncached * steps
        if prompt > room:
            after += load.standstill(prompt, now) * load.estimate.blocked
        cached.append(hit)
        ttfts.append(after)
        itl += growth * end
        itls.append(itl)
        together.append(after + answer * (itl + others + more * end) + reading * (held + came * reading))
    return Outlook(candidates, now, cached, ttfts, itls, together)


def _whole_hit(request: RouteRequest, prompt: float) -> tuple[float, float, float]:
    """Return what a replica that has all blocks of ``request`` need not read, what it must, and that one's attention.

    The same as ``ReplicaLoad.hit`` says of a replica whose hits all came true, so once for all of them.
    """
    hit = len(request.blocks) * request.block_tokens
    if hit >= prompt:
        hit = max(prompt - 1.0, 0.0)
    uncached = prompt - hit
    return hit, uncached, uncached * (hit + 0.5 * uncached)


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
    shadow, hourly = 1.0, candidate.hourly
    if candidate.own:
        shadow = saturation * saturation * saturation * saturation
        if hourly is not None:
            return hourly * _PICO_PER_NANO_HOUR * engine * shadow
    rates = candidate.cost or candidate.endpoint.price
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
    engine, found = view.engine(request), []
    for index, candidate in enumerate(candidates):
        load, cached = candidate.replica.load, view.cached[index]
        full = load.saturation(now)
        cost = owner_cost(request, candidate, cached, engine[index], full)
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
