"""Live load of one replica, as this process knows it.

Written by the event loop only (the relay's books, the probe, the breaker) and read by policies. Because decisions are
synchronous and the loop is the single writer, one decision sees one consistent moment without copying anything.
"""

from __future__ import annotations

from collections import deque
from itertools import count
from math import exp, inf, sqrt
from typing import TYPE_CHECKING, Final

from gateway.fleet.capacity import Ceiling, Quota
from gateway.fleet.estimate import BUSIEST, CHUNK, STEPS, Estimate
from gateway.fleet.prefix import PrefixIndex
from gateway.fleet.sessions import Sessions

if TYPE_CHECKING:
    from gateway.fleet.booking import Booking

EWMA_WEIGHT: Final = 0.1
"""Weight of a new sample in the moving averages."""
LONGEST_WAIT: Final = 3.0
"""Seconds of reading in the queue that make a replica saturated."""
QUEUED_IS_FULL: Final = 5
"""Requests in the engine's own queue that make a replica saturated."""
KV_IS_FULL: Final = 0.8
"""Share of the KV cache in use that makes a replica saturated."""
STEADY_SECONDS: Final = 30.0
"""Seconds over which the replica's usual load is measured."""
FROZEN: Final = 3
"""Reports in a row that repeat the one before, while requests came and went, after which they say nothing."""
_AGED: Final = 2.0
"""Seconds after which averages over time are brought up to date before use."""
Facts = tuple[float, float, float, float, float, float, float, float, float, float, float, float, float, float, float]
"""See ``ReplicaLoad.outlook``. In their order: when they were made; of the time to first token what is apart from
reading, per token read, per token for the steps between, per attention; of a step its time with one request more, per
request, per context token, alone; by how much reading stretches steps; requests around, those that reading holds up,
half of those that come per second; how full the replica is; tokens of room, none below 0."""
_turns = count(1)
TOKENIZE_SECONDS: Final = 2e-6
"""Seconds per token that engines take to tokenize a prompt before they queue it."""
_TOKENIZED_WITHIN: Final = 0.25
"""Seconds after which any prompt is in the queue."""
_READ_AT_MOST: Final = 0.95
"""Share of a prompt that counts as read as long as its first token has not come."""


class ReplicaLoad:
    """What is in flight on a replica, what it last reported, what it can take, and whether it may be used.

    Attributes:
        in_flight: requests sent from here and not ended.
        waiting_tokens: estimated uncached prompt tokens sent from here whose first token has not come.
        waiting_attention: their attention, see ``gateway.fleet.estimate.attended``.
        context_tokens: estimated tokens of context held for requests from here: prompts and expected answers.
        answers: requests whose first token came; grows only.
        running: requests running on the engine at the last scrape, or None when it does not say.
        waiting: requests queued on the engine at the last scrape, or None.
        kv_usage: share of the KV cache in use, 0 to 1, at the last scrape, or None.
        foreign: requests on the engine that did not come from here, as of the last scrape.
        scraped_at: monotonic seconds of the last good scrape, or None when there is none or it is too old.
        ttft: moving average of the time to first token in seconds, or None before the first sample.
        itl: moving average of the inter-token latency in seconds, or None.
        ready: whether the readiness probe passed; True until the first probes say otherwise.
        draining: an operator wants no new requests on it.
        failures: failed requests in a row.
        ejected_until: monotonic seconds until which the breaker keeps the replica out; 0 when it is in.
        ejections: ejections in a row, less those that good behaviour has made good.
        forgiven_at: monotonic seconds at which a success makes one ejection good.
        cooling_until: monotonic seconds until which the replica is spared because it said that it is full.
        cooling_asked: the backend itself asked for that wait, so it binds; if not, others are merely preferred.
        estimate: how long it would take; see ``gateway.fleet.estimate``.
        prefix: what it probably has of prompts already.
        sessions: conversations that it served last.
        ceiling: how many requests it runs side by side.
        quota: what an external API allows.
        kv_tokens: tokens that fit its KV cache, or None when nobody says.
        hit_trust: share of an expected cache hit that turned out true, as far as the engine says.
        mean_uncached: moving average of a request's uncached prompt tokens.
        mean_context: moving average of a request's context tokens.
        mean_life: moving average of the seconds from a request's dispatch to its end.
        read_seconds: seconds it took, as estimated, to read the prompts of requests from here; grows only.
        mean_depth: requests on the engine, averaged over the last half minute.
        busy: share of the time that reading prompts takes, averaged over the last half minute.
        arrivals: requests sent from here per second, averaged over the last half minute.
        averaged_at: monotonic seconds as of which these three are true.
        facts: what the next request depends on, or None when it has to be made anew.
        turn: number, among all requests of this process, of the last one that was sent here.
        pending: bookings whose first token has not come, oldest first; may hold some that ended.
        progress_at: monotonic seconds at which the last first token came.
        preemptions: preemptions that the engine had counted at the last scrape, or None.
        offers: models that the backend lists and that nobody has configured there.
    """

    __slots__ = (
        "_repeats",
        "_reported",
        "_traffic",
        "answers",
        "arrivals",
        "averaged_at",
        "busy",
        "ceiling",
        "context_tokens",
        "cooling_asked",
        "cooling_until",
        "draining",
        "ejected_until",
        "ejections",
        "estimate",
        "facts",
        "failures",
        "foreign",
        "forgiven_at",
        "hit_trust",
        "in_flight",
        "itl",
        "kv_tokens",
        "kv_usage",
        "mean_context",
        "mean_depth",
        "mean_life",
        "mean_uncached",
        "offers",
        "pending",
        "preemptions",
        "prefix",
        "progress_at",
        "quota",
        "read_seconds",
        "ready",
        "running",
        "scraped_at",
        "sessions",
        "ttft",
        "turn",
        "waiting",
        "waiting_attention",
        "waiting_tokens",
    )

    def __init__(
        self, estimate: Estimate | None = None, ceiling: Ceiling | None = None, quota: Quota | None = None
    ) -> None:
        self.in_flight = 0
        self.waiting_tokens = 0
        self.waiting_attention = 0.0
        self.context_tokens = 0
        self.answers = 0
        self.running: int | None = None
        self.waiting: int | None = None
        self.kv_usage: float | None = None
        self.foreign = 0
        self.scraped_at: float | None = None
        self.ttft: float | None = None
        self.itl: float | None = None
        self.ready = True
        self.draining = False
        self.failures = 0
        self.ejected_until = 0.0
        self.ejections = 0
        self.forgiven_at = 0.0
        self.cooling_until = 0.0
        self.cooling_asked = False
        self.offers: frozenset[str] = frozenset()
        self.estimate = estimate or Estimate()
        self.prefix = PrefixIndex()
        self.sessions = Sessions()
        self.ceiling = ceiling or Ceiling()
        self.quota = quota or Quota()
        self.kv_tokens: int | None = None
        self.hit_trust = 1.0
        self.mean_uncached = 0.0
        self.mean_context = 0.0
        self.mean_life = 0.0
        self.read_seconds = 0.0
        self.mean_depth = 0.0
        self.busy = 0.0
        self.arrivals = 0.0
        self.averaged_at = 0.0
        self.turn = 0
        self.facts: Facts | None = None
        self.pending: deque[Booking] = deque()
        self.progress_at = 0.0
        self.preemptions: int | None = None
        self._reported: tuple[int | None, int | None, float | None] | None = None
        self._repeats = 0
        self._traffic = 0

    @property
    def most_running(self) -> float:
        """Requests that it runs side by side as of the last look at its ceiling; infinite when there is no limit."""
        return self.ceiling.lately

    @property
    def depth(self) -> int:
        """Requests on the engine now: our own exactly, others' as of the last scrape."""
        return self.in_flight + self.foreign

    @property
    def context(self) -> float:
        """Context tokens on the engine now: those of our own requests, and of others' as if they were like ours."""
        return self.context_tokens + self.foreign * self.mean_context

    def ahead(self, now: float, prompt_tokens: int = 0) -> tuple[float, float]:
        """Return what the engine must read before a prompt that is sent ``now``: tokens and attention.

        Part of the oldest prompt that waits is read already: what the engine can read since it turned to it. And a
        short prompt overtakes a long one that was sent just before it, because engines tokenize before they queue.
        """
        tokens, attention = float(self.waiting_tokens), self.waiting_attention
        pending, estimate = self.pending, self.estimate
        for booking in pending:
            if booking.waits:
                turned_to = booking.sent_at if booking.sent_at > self.progress_at else self.progress_at
                seconds = now - turned_to
                linear, square = booking.uncached * estimate.token, booking.attention * estimate.attention
                whole = linear + square
                if seconds < whole * _READ_AT_MOST:
                    share = seconds / whole
                    if square > 0.25 * linear:  # its beginning is read quicker than its end
                        share = (sqrt(linear * linear + 4.0 * square * seconds) - linear) / (2.0 * square)
                else:
                    share = _READ_AT_MOST
                tokens -= share * booking.uncached
                attention -= share * booking.attention
                break
        if pending and now - pending[-1].sent_at < _TOKENIZED_WITHIN:
            entry = now + TOKENIZE_SECONDS * prompt_tokens
            for booking in reversed(pending):
                if now - booking.sent_at >= _TOKENIZED_WITHIN:
                    break
                if booking.waits and booking.sent_at + TOKENIZE_SECONDS * booking.prompt_tokens > entry:
                    tokens -= booking.uncached
                    attention -= booking.attention
        if self.foreign and self.waiting:
            tokens += min(self.foreign, self.waiting) * self.mean_uncached
        return (tokens if tokens > 0.0 else 0.0), (attention if attention > 0.0 else 0.0)

    def backlog(self, now: float) -> float:
        """Return the prompt tokens that are still to be read ``now``."""
        return self.ahead(now)[0]

    def usual(self, now: float) -> tuple[float, float, float]:
        """Return what it will probably be like while the next request runs, which is what it was like lately.

        The share of the time that reading takes, the requests on the engine (the mean of now and lately), and the
        requests that come per second.
        """
        busy, depth, arrivals = self.busy, self.mean_depth, self.arrivals
        at_once = self.in_flight + self.foreign
        since = now - self.averaged_at
        if since > _AGED:
            left = exp(-since / STEADY_SECONDS)
            busy *= left
            arrivals *= left
            depth = left * depth + (1.0 - left) * at_once
        return busy, 0.5 * (at_once + depth), arrivals

    def outlook(self, now: float) -> Facts:
        """Return what the next request depends on, made anew only when something changed or two seconds passed."""
        facts = self.facts
        if facts is not None and now - facts[0] < _AGED:
            return facts
        estimate = self.estimate
        depth, context = self.in_flight + self.foreign, self.context
        pace = estimate.pace(depth, context)
        busy, around, arrivals = self.usual(now)
        busy = min(BUSIEST, busy * estimate.reading)
        most, room = self.ceiling.at(now) or inf, self.kv_tokens
        full = max(depth / most, context / room if room else 0.0)
        if self.waiting:
            full = max(full, min(self.waiting, depth) / QUEUED_IS_FULL)
        if self.kv_usage is not None:
            full = max(full, self.kv_usage / KV_IS_FULL)
        self.facts = facts = (
            now,
            estimate.base + pace * estimate.steps * STEPS,
            estimate.token,
            pace * estimate.steps / CHUNK,
            estimate.attention,
            pace + estimate.per_request,
            estimate.per_request,
            estimate.per_context,
            estimate.step,
            1.0 / (1.0 - busy),
            around,
            around * estimate.reading,
            0.5 * arrivals,
            full,
            (room - context if room else inf) if depth < most else -inf,
        )
        return facts

    def pass_time(self, now: float) -> None:
        """Bring the averages over time to ``now``; to be called before what they are of changes."""
        left = exp((self.averaged_at - now) / STEADY_SECONDS)
        self.mean_depth = left * self.mean_depth + (1.0 - left) * (self.in_flight + self.foreign)
        self.busy *= left
        self.arrivals *= left
        self.averaged_at = now

    def sends(self, seconds: float, now: float) -> None:
        """Book that a prompt is sent that takes ``seconds`` to read."""
        self.pass_time(now)
        self.busy += seconds / STEADY_SECONDS
        self.arrivals += 1.0 / STEADY_SECONDS

    def standstill(self, prompt_tokens: int, now: float) -> float:
        """Return the seconds for which the engine's queue would stand still for want of room for one more request.

        What runs leaves evenly over the mean life of a request, so the share of it that has to leave tells the time.
        """
        most = self.ceiling.at(now)
        if not most:
            return 0.0
        depth = self.in_flight + self.foreign
        share = (depth + 1 - most) / depth if depth >= most else 0.0
        room = self.kv_tokens
        if room is not None:
            context = self.context
            over = context + prompt_tokens - room
            if over > 0.0 and context > 0.0:
                share = max(share, over / context)
        return share * self.mean_life

    def hit(self, blocks: tuple[int, ...], block_tokens: float, prompt_tokens: int) -> float:
        """Return how many tokens of a prompt the replica probably has already; the last token is always read."""
        matched = self.prefix.match(blocks)
        if not matched:
            return 0.0
        hit = matched * block_tokens * self.hit_trust
        return hit if hit < prompt_tokens else float(max(prompt_tokens - 1, 0))

    def saturation(self, now: float) -> float:
        """Return how full the replica is: 0 when idle, 1 when the scarcest of what it has is used up."""
        most = self.ceiling.at(now)
        full = self.depth / most if most else 0.0
        if self.kv_tokens:
            full = max(full, self.context / self.kv_tokens)
        full = max(full, self.backlog(now) / (self.estimate.rate * LONGEST_WAIT), self.quota.used(now))
        if self.waiting:
            full = max(full, min(self.waiting, self.depth) / QUEUED_IS_FULL)
        if self.kv_usage is not None:
            full = max(full, self.kv_usage / KV_IS_FULL)
        return full

    def sent(self, prompt_tokens: int, context_tokens: int = 0) -> None:
        """Book a request that goes to the engine now.

        Args:
            prompt_tokens: prompt tokens that it must read.
            context_tokens: tokens of context that it will hold at its end.
        """
        self.facts = None
        self.in_flight += 1
        self.waiting_tokens += prompt_tokens
        self.context_tokens += context_tokens
        self.turn = next(_turns)
        self._traffic += 1

    def answered(self, prompt_tokens: int, ttft: float) -> None:
        """Book the first token, ``ttft`` seconds after the request was sent."""
        self.facts = None
        self.waiting_tokens -= prompt_tokens
        self.answers += 1
        self.ttft = ttft if self.ttft is None else self.ttft + EWMA_WEIGHT * (ttft - self.ttft)

    def unanswered(self, prompt_tokens: int) -> None:
        """Book a request that ended before its first token."""
        self.waiting_tokens -= prompt_tokens

    def ended(self, context_tokens: int = 0) -> None:
        """Book the end of a request."""
        self.facts = None
        self.in_flight -= 1
        self.context_tokens -= context_tokens
        self._traffic += 1

    def streamed(self, tokens: int, seconds: float) -> None:
        """Book an answer that sent ``tokens`` tokens after its first one in ``seconds``."""
        if tokens > 0:
            itl = seconds / tokens
            self.itl = itl if self.itl is None else self.itl + EWMA_WEIGHT * (itl - self.itl)

    def reported(
        self,
        running: int | None,
        waiting: int | None,
        kv_usage: float | None,
        now: float,
        *,
        kv_tokens: int | None = None,
        preemptions: int | None = None,
    ) -> None:
        """Book the gauges the engine reported at monotonic time ``now``."""
        self.facts = None
        reported = (running, waiting, kv_usage)
        if reported == self._reported and self._traffic and (running or waiting):
            self._repeats += 1
            if self._repeats >= FROZEN:
                self.forget_gauges()
                return
        elif reported != self._reported:
            self._repeats = 0
        self._reported, self._traffic = reported, 0
        self.running, self.waiting, self.kv_usage = running, waiting, kv_usage
        self.foreign = max(0, running + (waiting or 0) - self.in_flight) if running is not None else 0
        self.scraped_at = now
        if kv_tokens:
            self.kv_tokens = kv_tokens
            self.prefix.resize(kv_tokens)
        if preemptions is not None:
            if self.preemptions is not None and preemptions > self.preemptions:
                self.ceiling.refused(self.depth, now)
            self.preemptions = preemptions

    def forget_gauges(self) -> None:
        """Forget what the engine reported: it is too old to say anything."""
        self.running = self.waiting = self.kv_usage = self.scraped_at = None
        self.foreign = 0
        self.facts = None

    def fade(self, factor: float) -> None:
        """Scale the moving averages of an idle replica by ``factor``, below 1.

        Without samples a bad average would stand for ever and keep the replica from ever being tried again.
        """
        if self.ttft is not None:
            self.ttft *= factor
        if self.itl is not None:
            self.itl *= factor
