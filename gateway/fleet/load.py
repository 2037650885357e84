"""Live load of one replica, as policies read it.

Because decisions are synchronous and the loop is the single writer of the books (``gateway.fleet.account``), one
decision sees one consistent moment without copying anything. Nothing here raises.
"""

from __future__ import annotations

from math import exp, inf, sqrt
from typing import Final

from gateway.fleet.account import LEAST_WATCHED, STEADY_SECONDS, TOKENIZE_SECONDS, Account
from gateway.fleet.estimate import BUSIEST

LONGEST_WAIT: Final = 3.0
"""Seconds of reading in the queue that make a replica saturated."""
QUEUED_IS_FULL: Final = 5
"""Requests in the engine's own queue that make a replica saturated."""
KV_IS_FULL: Final = 0.8
"""Share of the KV cache in use that makes a replica saturated."""
_KNOWN: Final = 1.0 - 1e-12
"""Share of the half minute's weight that was watched from which on nothing is missing of it."""
_TELLING: Final = 4
"""Tokens that say something of the time between two."""
_AGED: Final = 2.0
"""Seconds after which averages over time are brought up to date before use."""
Line = tuple[float, float, float, float, float, float, float, float, float]
"""The prompts that wait. In their order: tokens and attention of those sent from here, tokens of others'; of the oldest
one its tokens, its attention, the monotonic seconds at which the engine turned to it, the seconds after which it counts
as read, the seconds that reading it takes, those of them that grow with its square, 0 where few do."""
Rest = tuple[Line | None, float, float, float, float, float]
"""The prompts that wait; how full the replica is, apart from those prompts; of a step its time alone, with what runs
now, per request, per context token."""
Facts = tuple[
    float,
    float,
    float,
    float,
    float,
    float,
    float,
    float,
    float,
    float,
    float,
    float,
    float,
    float,
    dict[int, int],
    Rest,
]
"""See ``ReplicaLoad.outlook``. In their order: monotonic seconds until which they hold; of the time to first token what
is apart from reading, that and reading the prompts that wait, per token read, per token for the steps between, per
attention; time between two tokens, more of it per token of context; what each token of an answer takes of others'
time, more of it per token of context; requests that reading holds up, half of those that come per second; tokens of
room, none below 0; monotonic seconds from which on what is said of the prompts that wait is true for any prompt; the
blocks that are cached; the rest."""
TOKEN: Final = 3
ATTENTION: Final = 5
ITL: Final = 6
GROWTH: Final = 7
REST: Final = 15
"""Where among the facts."""
_TOKENIZED_WITHIN: Final = 0.25
"""Seconds after which any prompt is in the queue."""
READ_AT_MOST: Final = 0.95
"""Share of a prompt that counts as read as long as its first token has not come."""


class ReplicaLoad(Account):
    """What a policy may ask of a replica."""

    __slots__ = ()

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

    def beside(self, now: float) -> tuple[float, float]:
        """Return how many requests the engine works on side by side and their context tokens; others wait in it."""
        return _beside(self.depth, self.context, self.ceiling.at(now) or inf, self.kv_tokens)

    def ahead(self, now: float, prompt_tokens: float = 0.0) -> tuple[float, float]:
        """Return what the engine must read before a prompt that is sent ``now``: tokens and attention."""
        line = self.outlook(now)[REST][0]
        return (0.0, 0.0) if line is None else self.before(line, now, prompt_tokens)

    def before(self, line: Line, now: float, prompt_tokens: float) -> tuple[float, float]:
        """Return the same where the prompts that wait are ``line``.

        Part of the oldest prompt that waits is read already: what the engine can read since it turned to it. And a
        short prompt overtakes a long one that was sent just before it, because engines tokenize before they queue.
        """
        tokens, attention, foreign, oldest, its_attention, turned_to, read_after, whole, square = line
        share = _read_share(now - turned_to, read_after, whole, square)
        tokens -= share * oldest
        attention -= share * its_attention
        if self.latest_entry > now + TOKENIZE_SECONDS * prompt_tokens:
            overtaken = self._overtaken(now, prompt_tokens)
            tokens -= overtaken[0]
            attention -= overtaken[1]
        tokens += foreign
        return (tokens if tokens > 0.0 else 0.0), (attention if attention > 0.0 else 0.0)

    def _overtaken(self, now: float, prompt_tokens: float) -> tuple[float, float]:
        """Return tokens and attention of the prompts that are still being tokenized when one sent ``now`` is not."""
        tokens = attention = 0.0
        entry = now + TOKENIZE_SECONDS * prompt_tokens
        for booking in reversed(self.pending):
            if now - booking.sent_at >= _TOKENIZED_WITHIN:
                break
            if booking.waits and booking.sent_at + TOKENIZE_SECONDS * booking.prompt_tokens > entry:
                tokens += booking.uncached
                attention += booking.attention
        return tokens, attention

    def _line(self) -> Line:
        """Return the prompts that wait."""
        foreign = min(self.foreign, self.waiting) * self.mean_uncached if self.foreign and self.waiting else 0.0
        tokens, attention = float(self.waiting_tokens), self.waiting_attention
        for booking in self.pending:
            if booking.waits:
                estimate, sent_at, progress_at = self.estimate, booking.sent_at, self.progress_at
                linear, square = booking.uncached * estimate.token, booking.attention * estimate.attention
                whole = linear + square
                return (
                    tokens,
                    attention,
                    foreign,
                    booking.uncached,
                    booking.attention,
                    sent_at if sent_at > progress_at else progress_at,
                    whole * READ_AT_MOST,
                    whole,
                    square if square > 0.25 * linear else 0.0,
                )
        return tokens, attention, foreign, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0

    @property
    def prompts(self) -> int:
        """How many prompts the next one is read after, and itself."""
        ahead = self.waiting_prompts + 1
        return ahead + min(self.foreign, self.waiting) if self.foreign and self.waiting else ahead

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
        since, watched = now - self.averaged_at, self.watched
        if since > _AGED:
            left = exp(-since / STEADY_SECONDS)
            busy *= left
            arrivals *= left
            depth = left * depth + (1.0 - left) * at_once
            watched = left * watched + 1.0 - left
        if watched < _KNOWN:
            depth += (1.0 - watched) * at_once
            if watched < LEAST_WATCHED:
                watched = LEAST_WATCHED
            busy /= watched
            arrivals /= watched
        return busy, 0.5 * (at_once + depth), arrivals

    def watch(self, now: float) -> None:
        """Learn from what answers under way wrote since the last look: those that are slow do not end soon."""
        writing = self.writing = [booking for booking in self.writing if booking.writes]
        if not writing:
            return
        tokens, seconds, read, streams = 0, 0.0, 0.0, 0
        for booking in writing:
            count, took, meanwhile = booking.progress()
            if count:
                tokens += count
                seconds += took
                read += meanwhile
                streams += 1
        batch, context = self.beside(now)
        before = self.watched_beside
        self.watched_beside = batch, context
        if tokens < _TELLING:
            return
        self.facts = None
        if before is not None:
            batch, context = 0.5 * (batch + before[0]), 0.5 * (context + before[1])
        self.estimate.learn_itl(batch, context, read / tokens, seconds / tokens)

    def outlook(self, now: float) -> Facts:
        """Return what the next request depends on, made anew only when something changed or two seconds passed."""
        facts = self.facts
        if facts is not None and facts[0] > now:
            return facts
        estimate, foreign, ceiling, room = self.estimate, self.foreign, self.ceiling, self.kv_tokens
        depth, context = self.in_flight + foreign, self.context_tokens + foreign * self.mean_context
        per_request, per_context, reading = estimate.per_request, estimate.per_context, estimate.reading
        token, square = estimate.token, estimate.attention
        most = (ceiling.at(now) or inf) if ceiling.learned else ceiling.lately
        beside = depth <= most and (not room or context <= room)
        batch, held = (depth, context) if beside else _beside(depth, context, most, room)
        pace = estimate.step + per_request * batch + per_context * held
        between = pace * estimate.per_chunk
        if now - self.averaged_at > _AGED or self.watched < _KNOWN:
            busy, around, arrivals = self.usual(now)
        else:  # as they are
            busy, around, arrivals = self.busy, 0.5 * (depth + self.mean_depth), self.arrivals
        if around > most:
            around = most
        busy *= reading
        stretch = 1.0 / (1.0 - (busy if busy < BUSIEST else BUSIEST))
        full, usage = depth / most, self.kv_usage
        if room or self.waiting:
            full = self._fullness(full, depth, context)
        if usage is not None and usage / KV_IS_FULL > full:
            full = usage / KV_IS_FULL
        prompts = self.prompts if foreign else self.waiting_prompts + 1
        start = after = estimate.base + estimate.per_prompt * prompts + pace * estimate.at_start
        settled_at, line = 0.0, None
        if self.waiting_tokens or foreign:
            line = self._line()
            tokens = line[0] - READ_AT_MOST * line[3] + line[2]
            attention = line[1] - READ_AT_MOST * line[4]
            if tokens > 0.0:
                after += tokens * (token + between)
            if attention > 0.0:
                after += attention * square
            settled_at = line[5] + line[6]
            if settled_at < self.latest_entry:
                settled_at = self.latest_entry
        self.facts = facts = (
            now + _AGED,
            start,
            after,
            token,
            between,
            square,
            (pace + per_request) * stretch,
            per_context * stretch,
            around * per_request,
            around * per_context,
            around * reading,
            0.5 * arrivals,
            (room - context if room else inf) if depth < most else -inf,
            settled_at,
            self.prefix.stamps,
            (line, full, estimate.step, pace, per_request, per_context),
        )
        return facts

    def _fullness(self, full: float, depth: float, context: float) -> float:
        """Return ``full``, or how full the room for context or the engine's own queue is where that is more."""
        room = self.kv_tokens
        if room and context / room > full:
            full = context / room
        if self.waiting:
            full = max(full, min(self.waiting, depth) / QUEUED_IS_FULL)
        return full

    def standstill(self, prompt_tokens: float, now: float) -> float:
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

    def hit(self, blocks: tuple[int, ...], block_tokens: float, prompt_tokens: float) -> float:
        """Return how many tokens of a prompt the replica probably has already; the last token is always read."""
        matched = self.prefix.match(blocks)
        if not matched:
            return 0.0
        hit = matched * block_tokens * self.hit_trust
        return hit if hit < prompt_tokens else float(max(prompt_tokens - 1, 0))

    def has_room(self, now: float, full: float) -> bool:
        """Return whether the saturation is below ``full``; mostly without asking how much of a prompt is read."""
        facts = self.facts
        if facts is None or facts[0] <= now:
            facts = self.outlook(now)
        line, used = facts[REST][:2]
        if used >= full:
            return False
        if self.quota.limited or (line is not None and (line[0] + line[2]) * facts[TOKEN] >= full * LONGEST_WAIT):
            return self.saturation(now) < full
        return True

    def saturation(self, now: float) -> float:
        """Return how full the replica is: 0 when idle, 1 when the scarcest of what it has is used up."""
        facts = self.outlook(now)
        line, full = facts[REST][:2]
        if line is not None:
            full = max(full, self.backlog(now) * facts[TOKEN] / LONGEST_WAIT)
        return max(full, self.quota.used(now)) if self.quota.limited else full


def _beside(depth: float, context: float, most: float, room: float | None) -> tuple[float, float]:
    """Return how many of ``depth`` requests run side by side, and their part of ``context`` tokens."""
    if depth > most:
        context *= most / depth
        depth = most
    if room and context > room:
        depth *= room / context
        context = room
    return depth, context


def _read_share(seconds: float, read_after: float, whole: float, square: float) -> float:
    """Return the share of a prompt that is read ``seconds`` after the engine turned to it.

    Args:
        seconds: since then.
        read_after: seconds after which it counts as read as far as it can be before its first token.
        whole: seconds that reading it takes.
        square: those of them that grow with its square, 0 where they do not matter; its beginning is read quicker
            than its end.
    """
    if seconds >= read_after:
        return READ_AT_MOST
    if seconds <= 0.0:
        return 0.0
    if not square:
        return seconds / whole
    linear = whole - square
    return (sqrt(linear * linear + 4.0 * square * seconds) - linear) / (2.0 * square)
