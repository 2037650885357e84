"""The books of one replica: what was sent there, what it reported, and what it can take.

Whether it may be used is in ``gateway.fleet.condition``. Written by the event loop only (the relay's books, the probe,
the breaker). What policies read of it is made in ``gateway.fleet.load``; whatever changes what they would read sets
``facts`` to None. Nothing here raises.
"""

from __future__ import annotations

from collections import deque
from itertools import count
from math import exp
from typing import TYPE_CHECKING, Final

from gateway.fleet.capacity import Ceiling, Quota
from gateway.fleet.condition import Conditions
from gateway.fleet.estimate import Estimate
from gateway.fleet.prefix import PrefixIndex
from gateway.fleet.sessions import Sessions

if TYPE_CHECKING:
    from gateway.fleet.booking import Booking
    from gateway.fleet.load import Facts

EWMA_WEIGHT: Final = 0.1
"""Weight of a new sample in the moving averages."""
STEADY_SECONDS: Final = 30.0
"""Seconds over which the replica's usual load is measured."""
LEAST_WATCHED: Final = 0.15
"""Share of that measure, about five seconds of it, that any load is taken to have been watched for."""
WATCHED: Final = 16
"""Answers under way that are looked at, on each replica."""
FROZEN: Final = 3
"""Reports in a row that repeat the one before, while requests came and went, after which they say nothing."""
FROZEN_SECONDS: Final = 2.0
"""Seconds for which they must have done so: some engines renew their gauges once a second only."""
STILL_SECONDS: Final = 10.0
"""Seconds after which they say nothing although nobody came: what an engine does at work moves them sooner."""
LESSONS: Final = 32.0
"""Answers that are learned from at once."""
LESSONS_PER_SECOND: Final = 8.0
"""Answers that are learned from per second beyond those: about the last hundred count anyway."""
MOST_DISTURBED: Final = 8
"""Requests in a row that others came after, of which one is learned from nevertheless."""
TOKENIZE_SECONDS: Final = 2e-6
"""Seconds per token that engines take to tokenize a prompt before they queue it."""
_IDLE: Final = exp(-1.0)
"""What is left of an average after the half minute without requests after which it begins anew."""
_FADED: Final = 1e-6
"""What is left of an average that need not fade further."""
_turns = count(1)


class Account(Conditions):
    """What is in flight on a replica, what it last reported, and what it can take.

    The attributes of ``Conditions`` say whether it may be used.

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
        faded: what ``fade`` has left of ``ttft``, as far as no answers came since.
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
        watched: share of the half minute's weight that the three are of: what came before it is not known, so they are
            too low by this factor. A replica that was idle for half a minute begins anew.
        writing: bookings whose answer is under way and is looked at, see ``ReplicaLoad.watch``.
        watched_beside: requests and context tokens that the engine worked on at the last look.
        facts: what the next request depends on, or None when it has to be made anew.
        turn: number, among all requests of this process, of the last one that was sent here.
        pending: bookings whose first token has not come, oldest first; may hold some that ended.
        latest_entry: monotonic seconds at which the last of all prompts sent so far was in the engine's queue.
        progress_at: monotonic seconds at which the last first token came.
        preemptions: preemptions that the engine had counted at the last scrape, or None.
        waiting_prompts: prompts sent from here whose first token has not come.
        disturbed: first tokens in a row that did not tell how long reading takes, see ``telling``.
        lessons: answers that may be learned from now, see ``lesson``.
        lessons_at: monotonic seconds as of which that is true.
        cold_turn: ``turn`` of the last prompt of which it had nothing.
        offers: models that the backend lists and that nobody has configured there.
    """

    __slots__ = (
        "_changed_at",
        "_repeats",
        "_reported",
        "_traffic",
        "answers",
        "arrivals",
        "averaged_at",
        "busy",
        "ceiling",
        "cold_turn",
        "context_tokens",
        "disturbed",
        "estimate",
        "facts",
        "faded",
        "foreign",
        "hit_trust",
        "in_flight",
        "itl",
        "kv_tokens",
        "kv_usage",
        "latest_entry",
        "lessons",
        "lessons_at",
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
        "running",
        "scraped_at",
        "sessions",
        "ttft",
        "turn",
        "waiting",
        "waiting_attention",
        "waiting_prompts",
        "waiting_tokens",
        "watched",
        "watched_beside",
        "writing",
    )

    def __init__(
        self, estimate: Estimate | None = None, ceiling: Ceiling | None = None, quota: Quota | None = None
    ) -> None:
        super().__init__()
        self.in_flight = 0
        self.waiting_tokens = 0
        self.waiting_attention = 0.0
        self.waiting_prompts = 0
        self.context_tokens = 0
        self.answers = 0
        self.running: int | None = None
        self.waiting: int | None = None
        self.kv_usage: float | None = None
        self.foreign = 0
        self.scraped_at: float | None = None
        self.ttft: float | None = None
        self.itl: float | None = None
        self.faded = 1.0
        self.offers: frozenset[str] = frozenset()
        self.estimate = estimate or Estimate()
        self.prefix = PrefixIndex()
        self.sessions = Sessions()
        self.ceiling = ceiling or Ceiling()
        self.quota = quota or Quota()
        self.kv_tokens: int | None = None
        self.hit_trust = 1.0
        self.mean_uncached = self.mean_context = self.mean_life = 0.0
        self.read_seconds = 0.0
        self.mean_depth = self.busy = self.arrivals = 0.0
        self.averaged_at = 0.0
        self.watched = 0.0
        self.writing: list[Booking] = []
        self.watched_beside: tuple[float, float] | None = None
        self.turn = self.cold_turn = self.disturbed = 0
        self.facts: Facts | None = None
        self.pending: deque[Booking] = deque()
        self.latest_entry = 0.0
        self.lessons = LESSONS
        self.lessons_at = 0.0
        self.progress_at = 0.0
        self.preemptions: int | None = None
        self._reported: tuple[int | None, int | None, float | None] | None = None
        self._repeats, self._changed_at, self._traffic = 0, 0.0, 0

    def pass_time(self, now: float) -> None:
        """Bring the averages over time to ``now``; to be called before what they are of changes."""
        left = exp((self.averaged_at - now) / STEADY_SECONDS)
        self.mean_depth = left * self.mean_depth + (1.0 - left) * (self.in_flight + self.foreign)
        self.busy *= left
        self.arrivals *= left
        self.watched = left * self.watched + 1.0 - left
        self.averaged_at = now

    def enter(self, booking: Booking, now: float) -> None:
        """Book a request that goes to the engine ``now``."""
        uncached, context, pending = booking.uncached, booking.context, self.pending
        left = exp((self.averaged_at - now) / STEADY_SECONDS)
        depth = self.in_flight
        if not depth and left < _IDLE:
            left = 0.0
            self.watched = 0.0
        else:
            self.watched = left * self.watched + 1.0 - left
        self.averaged_at = now
        self.mean_depth = left * self.mean_depth + (1.0 - left) * (depth + self.foreign) if self.watched else 0.0
        self.busy = left * self.busy + booking.reading_s / STEADY_SECONDS
        self.arrivals = left * self.arrivals + 1.0 / STEADY_SECONDS
        self.in_flight = depth + 1
        self.waiting_tokens += uncached
        self.waiting_attention += booking.attention
        self.waiting_prompts += 1
        self.context_tokens += context
        self.mean_uncached += EWMA_WEIGHT * (uncached - self.mean_uncached)
        self.mean_context += EWMA_WEIGHT * (context - self.mean_context)
        self.turn = next(_turns)
        if not booking.cached:
            self.cold_turn = self.turn
        self._traffic += 1
        self.quota.sent(context, now)
        while pending and not pending[0].waits:
            pending.popleft()
        if len(pending) > 2 * depth + 64:  # one that waits for long keeps those behind it
            pending = self.pending = deque(each for each in pending if each.waits)
        pending.append(booking)
        self.departed(booking)

    def departed(self, booking: Booking) -> None:
        """Book when it really was sent."""
        self.facts = None
        entry = booking.sent_at + TOKENIZE_SECONDS * booking.prompt_tokens
        if entry > self.latest_entry:
            self.latest_entry = entry

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
        if self.faded < 1.0:
            self.faded += EWMA_WEIGHT * (1.0 - self.faded)

    def unanswered(self, prompt_tokens: int) -> None:
        """Book a request that ended before its first token."""
        self.facts = None
        self.waiting_tokens -= prompt_tokens

    def ended(self, context_tokens: int = 0) -> None:
        """Book the end of a request."""
        self.facts = None
        self.in_flight -= 1
        self.context_tokens -= context_tokens
        self._traffic += 1

    def begin(self, booking: Booking, ttft: float, now: float) -> None:
        """Book the first byte of an answer."""
        self.answered(booking.uncached, ttft)
        self.waiting_attention -= booking.attention
        self.waiting_prompts -= 1
        self.read_seconds += booking.reading_s
        self.progress_at = now

    def leave(self, booking: Booking, now: float, *, waited: bool) -> None:
        """Book the end of a request; ``waited`` when nothing of its answer had come."""
        if waited:
            self.waiting_tokens -= booking.uncached
            self.waiting_attention -= booking.attention
            self.waiting_prompts -= 1
        self.pass_time(now)
        life = now - booking.sent_at
        self.mean_life = life if not self.mean_life else self.mean_life + EWMA_WEIGHT * (life - self.mean_life)
        self.ended(booking.context)
        self.quota.ended()

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
        if reported != self._reported:
            self._repeats, self._changed_at = 0, now
        elif (running or waiting or kv_usage) and self._frozen(now - self._changed_at):
            self.forget_gauges()
            return
        self._reported, self._traffic = reported, 0
        self.running, self.waiting, self.kv_usage = running, waiting, kv_usage
        self.foreign = max(0, running + (waiting or 0) - self.in_flight) if running is not None else 0
        self.scraped_at = now
        if kv_tokens:
            self.kv_tokens = kv_tokens
            self.prefix.resize(kv_tokens)
        if preemptions is not None:
            if self.preemptions is not None and preemptions > self.preemptions:
                self.ceiling.refused(self.in_flight + self.foreign, now)
            self.preemptions = preemptions

    def _frozen(self, still: float) -> bool:
        """Whether gauges that have said the same for ``still`` seconds say nothing; then they do until they change."""
        if self._traffic:
            self._repeats += 1
        elif not self.in_flight and still >= STILL_SECONDS:  # nobody is sent to a full replica, so nothing would move
            self._repeats = FROZEN
        return self._repeats >= FROZEN and still >= FROZEN_SECONDS

    def hinted(self, waiting: int | None, kv_usage: float | None) -> None:
        """Book what the engine said of itself beside an answer, in place of what was scraped; None is unsaid."""
        if self.scraped_at is None:
            return
        if waiting is not None:
            self.waiting = waiting
        if kv_usage is not None:
            self.kv_usage = kv_usage
        self.facts = None

    def forget_gauges(self) -> None:
        """Forget what the engine reported: it is too old to say anything."""
        self.running = self.waiting = self.kv_usage = self.scraped_at = None
        self.foreign = 0
        self.facts = None

    def fade(self, factor: float) -> None:
        """Scale the averages of an idle replica by ``factor``, below 1: a bad one would keep it idle for ever."""
        if self.ttft is not None and self.faded > _FADED:
            self.ttft *= factor
            self.faded *= factor
        if self.itl is not None:
            self.itl *= factor

    @property
    def measured_ttft(self) -> float | None:
        """Time to first token in seconds as it was measured, the later answers counting more; ``fade`` is not in it."""
        return None if self.ttft is None else self.ttft / self.faded

    def telling(self, turn: int) -> bool:
        """Return whether the first token of the request sent at ``turn`` tells how long reading takes.

        Of one that nobody came after it does. Who comes meanwhile may be read in the same step, or overtake it; of
        those one in so many is learned from, where there are no others.
        """
        if turn == self.turn:
            self.disturbed = 0
            return True
        self.disturbed += 1
        if self.disturbed < MOST_DISTURBED:
            return False
        self.disturbed = 0
        return True

    def lesson(self, now: float) -> bool:
        """Return whether the request that is sent ``now`` is one to learn from: all are, but so many a second."""
        left = self.lessons + (now - self.lessons_at) * LESSONS_PER_SECOND
        self.lessons_at = now
        if left < 1.0:
            self.lessons = left
            return False
        self.lessons = min(LESSONS, left) - 1.0
        return True
