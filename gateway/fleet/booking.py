"""The books of one request on one replica, from its dispatch to its end, and what is learned from it.

The same class keeps them in the gateway and in the lab; time is an argument. Every step is harmless when it comes
twice or late. Nothing here raises.
"""

from __future__ import annotations

import msgspec

from gateway.fleet.estimate import attended
from gateway.fleet.load import EWMA_WEIGHT, ReplicaLoad
from gateway.fleet.prefix import BLOCK_TOKENS


class Work(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a request asks of a replica.

    Attributes:
        prompt_tokens: estimate of the prompt's tokens.
        expected_tokens: tokens that all its answers will probably have.
        blocks: chain hashes of the prompt's blocks, or none.
        block_tokens: tokens of a block.
        session: the conversation it belongs to, or ``""``.
        whole: the answer comes in one piece, so its first byte says nothing of its first token.
    """

    prompt_tokens: int
    expected_tokens: int
    blocks: tuple[int, ...] = ()
    block_tokens: float = BLOCK_TOKENS
    session: str = ""
    whole: bool = False


class Booking:
    """One request on one replica.

    Args:
        load: the replica's books.
        work: what the request asks of it.
        now: monotonic seconds at which it is sent.

    Attributes:
        prompt_tokens: estimate of the prompt's tokens.
        ahead: prompt tokens that the engine must read before.
        attention: what reading it takes beyond its tokens, see ``gateway.fleet.estimate.attended``.
        cached: prompt tokens that the replica probably had.
        uncached: prompt tokens that it must read.
        sent_at: monotonic seconds.
        waits: whether its first token is still to come.
        standstill: seconds for which the engine's queue was expected to stand still.
        predicted_ttft: seconds to the first token, as predicted when it was sent.
    """

    __slots__ = (
        "_context",
        "_ended",
        "_first_at",
        "_first_batch",
        "_first_context",
        "_first_read",
        "_load",
        "_reading",
        "_seconds",
        "_step",
        "_work",
        "ahead",
        "attention",
        "cached",
        "predicted_ttft",
        "prompt_tokens",
        "sent_at",
        "standstill",
        "uncached",
        "waits",
    )

    def __init__(self, load: ReplicaLoad, work: Work, now: float) -> None:
        self._load = load
        self._work = work
        self.sent_at = now
        self.prompt_tokens = work.prompt_tokens
        self.ahead, before = load.ahead(now, work.prompt_tokens)
        hit = load.hit(work.blocks, work.block_tokens, work.prompt_tokens) if work.blocks else 0.0
        self.cached = int(hit)
        self.uncached = work.prompt_tokens - self.cached
        self.standstill = load.standstill(work.prompt_tokens, now)
        self.attention = attended(self.uncached, self.cached)
        self._reading = (self.ahead + self.uncached, before + self.attention)
        self._step = load.estimate.pace(load.depth, load.context)
        self.predicted_ttft = load.estimate.ttft(*self._reading, self._step, self.standstill)
        self.waits = True
        self._ended = False
        self._first_at = 0.0
        self._first_batch = 0
        self._first_context = 0.0
        self._first_read = 0.0
        self._context = work.prompt_tokens + work.expected_tokens
        self._seconds = load.estimate.reading_time(self.uncached, self.attention)
        load.sends(self._seconds, now)
        load.sent(self.uncached, self._context)
        load.waiting_attention += self.attention
        load.quota.sent(self._context, now)
        load.mean_uncached += EWMA_WEIGHT * (self.uncached - load.mean_uncached)
        load.mean_context += EWMA_WEIGHT * (self._context - load.mean_context)
        if work.blocks:
            load.prefix.use(work.blocks, int(work.expected_tokens / work.block_tokens), work.block_tokens)
        if work.session:
            load.sessions.served(work.session, now)
        pending = load.pending
        while pending and not pending[0].waits:
            pending.popleft()
        pending.append(self)

    def answered(self, now: float) -> None:
        """Book the first byte of the answer."""
        if not self.waits:
            return
        load, work = self._load, self._work
        self.waits = False
        ttft = now - self.sent_at
        load.answered(self.uncached, ttft)
        load.waiting_attention -= self.attention
        load.read_seconds += self._seconds
        load.progress_at = now
        self._first_at = now
        self._first_read = load.read_seconds
        self._first_batch, self._first_context = load.depth, load.context
        if not work.whole:
            load.estimate.learn_ttft(*self._reading, self._step, ttft, self.standstill)

    def cached_in_truth(self, tokens: int) -> None:
        """Learn how many prompt tokens the engine says it had; engines that never say more than 0 are not believed."""
        if self.cached <= 0 or (tokens <= 0 and self._load.hit_trust == 1.0):
            return
        true = min(1.0, tokens * self._load.hit_trust / self.cached)
        self._load.hit_trust = max(0.05, self._load.hit_trust + EWMA_WEIGHT * (true - self._load.hit_trust))

    def wrote(self, tokens: int, last_at: float) -> None:
        """Learn from an answer whose ``tokens`` tokens came one after another, the last one at ``last_at``."""
        load = self._load
        if not self.waits and tokens > 1 and not self._work.whole and not self._ended:
            seconds = (last_at - self._first_at) / (tokens - 1)
            batch, context = (self._first_batch + load.depth) / 2, (self._first_context + load.context) / 2
            load.streamed(tokens - 1, last_at - self._first_at)
            read = (load.read_seconds - self._first_read) / (tokens - 1)
            load.estimate.learn_itl(batch, context, read, seconds)

    def ended(self, now: float, tokens: int = 0) -> None:
        """Book the end ``now``; with ``tokens``, of an answer whose tokens came one after another until then."""
        if self._ended:
            return
        self.wrote(tokens, now)
        self._ended = True
        load = self._load
        if self.waits:
            self.waits = False
            load.unanswered(self.uncached)
            load.waiting_attention -= self.attention
        load.pass_time(now)
        life = now - self.sent_at
        load.mean_life = life if not load.mean_life else load.mean_life + EWMA_WEIGHT * (life - load.mean_life)
        load.ended(self._context)
        load.quota.ended()
