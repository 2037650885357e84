"""The books of one request on one replica, from its dispatch to its end, and what is learned from it.

The same class keeps them in the gateway and in the lab; time is an argument. Every step is harmless when it comes
twice or late. Nothing here raises.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from gateway.fleet.account import EWMA_WEIGHT, WATCHED
from gateway.fleet.estimate import attended
from gateway.fleet.load import ReplicaLoad
from gateway.fleet.prefix import BLOCK_TOKENS

SHORTEST_LOOK: Final = 0.5
"""Seconds of an answer that say something of its pace."""


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


class Stream(Protocol):
    """An answer that is under way.

    Attributes:
        chunks: pieces of it that came, about a token each.
        last_at: monotonic seconds at which the last of them came.
    """

    @property
    def chunks(self) -> int:
        """See above."""

    @property
    def last_at(self) -> float:
        """See above."""


class Booking:
    """One request on one replica.

    Args:
        load: the replica's books.
        work: what the request asks of it.
        now: monotonic seconds at which it is sent.
        whole: its answer comes in one piece, whatever ``work`` says.

    Attributes:
        prompt_tokens: estimate of the prompt's tokens.
        ahead: prompt tokens that the engine must read before.
        attention: what reading it takes beyond its tokens, see ``gateway.fleet.estimate.attended``.
        cached: prompt tokens that the replica probably had.
        uncached: prompt tokens that it must read.
        sent_at: monotonic seconds.
        waits: whether its first token is still to come.
        standstill: seconds for which the engine's queue was expected to stand still.
        context: tokens of context that it will hold at its end.
        reading_s: seconds that reading its prompt takes.
    """

    __slots__ = (
        "_ended",
        "_first_at",
        "_first_batch",
        "_first_context",
        "_first_read",
        "_learns",
        "_load",
        "_looked_at",
        "_prompts",
        "_reading",
        "_seen",
        "_seen_at",
        "_seen_read",
        "_step",
        "_stream",
        "_turn",
        "_whole",
        "_work",
        "ahead",
        "attention",
        "cached",
        "context",
        "prompt_tokens",
        "reading_s",
        "sent_at",
        "standstill",
        "uncached",
        "waits",
    )

    _seen: int
    _seen_at: float
    _seen_read: float

    def __init__(self, load: ReplicaLoad, work: Work, now: float, whole: bool = False) -> None:
        prompt = work.prompt_tokens
        self._load = load
        self._work = work
        self._whole = whole or work.whole
        self.sent_at = now
        self.prompt_tokens = prompt
        facts = load.facts  # as they were for the decision
        if facts is None or facts[0] <= now:
            facts = load.outlook(now)
        _, _, _, token, _, square, _, _, _, _, _, _, room, _, stamps, (line, _, _, pace, _, _) = facts
        ahead, before = load.before(line, now, prompt) if line is not None else (0.0, 0.0)
        blocks, expected = work.blocks, work.expected_tokens
        hit = int(load.hit(blocks, work.block_tokens, prompt)) if blocks and blocks[0] in stamps else 0
        self.cached = hit
        self.uncached = uncached = prompt - hit
        self.attention = attention = attended(uncached, hit)
        self.ahead = ahead
        self.standstill = load.standstill(prompt, now) if prompt > room else 0.0
        self._reading = ahead + uncached, before + attention
        self._step = pace
        self._prompts = load.prompts if load.foreign else load.waiting_prompts + 1
        self.waits = True
        self._ended = False
        self._looked_at = False
        self._stream: Stream | None = None
        self._learns = not self._whole and load.lesson(now)
        self.context = prompt + expected
        self.reading_s = uncached * token + attention * square
        load.enter(self, now)
        self._turn = load.turn
        if blocks:
            load.prefix.use(blocks, int(expected / work.block_tokens), work.block_tokens)
        if work.session:
            load.sessions.served(work.session, now)

    @property
    def predicted_ttft(self) -> float:
        """Seconds to the first token, as predicted now from what was known when it was sent."""
        return self._load.estimate.ttft(*self._reading, self._step, self.standstill, self._prompts)

    def departs(self, now: float) -> None:
        """Say that it is really sent only ``now``: there was a connection to open first."""
        self.sent_at = now
        self._load.departed(self)

    @property
    def writes(self) -> bool:
        """Whether its answer is under way."""
        return not self._ended

    def progress(self) -> tuple[int, float, float]:
        """Return the tokens that came since the last look, the seconds they took and those of reading meanwhile."""
        stream = self._stream
        if stream is None:
            return 0, 0.0, 0.0
        tokens, at, read = stream.chunks, stream.last_at, self._load.read_seconds
        count, seconds = tokens - self._seen, at - self._seen_at
        if count < 1 or seconds < SHORTEST_LOOK:
            return 0, 0.0, 0.0
        meanwhile = read - self._seen_read
        self._seen, self._seen_at, self._seen_read = tokens, at, read
        self._looked_at = True
        return count, seconds, meanwhile

    def answered(self, now: float, stream: Stream | None = None) -> None:
        """Book the first byte of the answer; ``stream`` is what comes of it from now on, where that can be seen."""
        if not self.waits:
            return
        load = self._load
        self.waits = False
        ttft = now - self.sent_at
        load.begin(self, ttft, now)
        if self._whole:
            return
        self._first_at = now
        self._first_read = load.read_seconds
        self._first_batch, self._first_context = load.beside(now)
        if stream is not None and len(load.writing) < WATCHED:
            self._stream = stream
            self._seen, self._seen_at, self._seen_read = 1, now, load.read_seconds
            load.writing.append(self)
        if self._learns:
            telling = load.telling(self._turn)
            load.estimate.learn_ttft(*self._reading, self._step, ttft, self.standstill, self._prompts, telling=telling)

    def cached_in_truth(self, tokens: int) -> None:
        """Learn how many prompt tokens the engine says it had; engines that never say more than 0 are not believed."""
        if self.cached <= 0 or (tokens <= 0 and self._load.hit_trust == 1.0):
            return
        true = min(1.0, tokens * self._load.hit_trust / self.cached)
        self._load.hit_trust = max(0.05, self._load.hit_trust + EWMA_WEIGHT * (true - self._load.hit_trust))

    def wrote(self, tokens: int, last_at: float) -> None:
        """Learn from an answer whose ``tokens`` tokens came one after another, the last one at ``last_at``."""
        load = self._load
        if not self.waits and tokens > 1 and not self._whole and not self._ended:
            seconds = (last_at - self._first_at) / (tokens - 1)
            load.streamed(tokens - 1, last_at - self._first_at)
            if self._learns and not self._looked_at:
                load.facts = None
                batch, context = load.beside(last_at)
                batch, context = (self._first_batch + batch) / 2, (self._first_context + context) / 2
                read = (load.read_seconds - self._first_read) / (tokens - 1)
                load.estimate.learn_itl(batch, context, read, seconds)

    def ended(self, now: float, tokens: int = 0) -> None:
        """Book the end ``now``; with ``tokens``, of an answer whose tokens came one after another until then."""
        if self._ended:
            return
        if tokens > 1:
            self.wrote(tokens, now)
        self._ended = True
        self._stream = None  # the books keep ended entries for a while, but not what the answer was
        waited, self.waits = self.waits, False
        self._load.leave(self, now, waited=waited)
