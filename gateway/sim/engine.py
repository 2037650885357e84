"""The simulated engine: slots, a queue, and the clock of every request.

One loop timer per running request; with zero latencies a request is answered inside ``submit``. A request that is
cancelled stops at once and its slot goes to the next one waiting. Nothing here raises for a client's doing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from enum import Enum
from typing import Literal, Protocol

from gateway.sim.cache import PrefixCache
from gateway.sim.config import SimConfig
from gateway.sim.counters import Counters
from gateway.sim.text import Prompt

Refusal = Literal["queue_full", "queued_tokens"]

_BURST = 256
"""Decode steps handed over together when tokens take no time: the loop and the reader get a turn in between."""


class Phase(Enum):
    """Where a request is in the engine."""

    QUEUED = "queued"
    PREFILL = "prefill"
    DECODE = "decode"
    DONE = "done"
    STOPPED = "stopped"


class Reader(Protocol):
    """Who reads what a generation produces."""

    def on_first(self) -> None:
        """Prefill is over; ``cached_tokens`` of the generation is known."""

    def on_steps(self, first: int, last: int) -> None:
        """Decode steps ``first`` up to, not including, ``last`` are done (streamed generations only)."""

    def on_limit(self) -> None:
        """``limit`` steps are done and the generation stands still until it is stopped."""

    def on_end(self) -> None:
        """All steps are done and the slot is free: the last report."""

    def flush(self) -> None:
        """Everything that is due now was reported, and more will follow."""


class _Nobody:
    """The reader of a run that is over."""

    def on_first(self) -> None:
        """Ignore it."""

    def on_steps(self, first: int, last: int) -> None:
        """Ignore it."""

    def on_limit(self) -> None:
        """Ignore it."""

    def on_end(self) -> None:
        """Ignore it."""

    def flush(self) -> None:
        """Ignore it."""


_NOBODY = _Nobody()


class GenerationRun:
    """One request inside the engine.

    Attributes:
        steps: decode steps of its longest choice; 0 for an embedding.
        limit: steps after which it stands still; more than ``steps`` lets it end.
        slowness: factor on both latencies; ``delay``: seconds added before the first token.
        received_at, started_at, first_at, ended_at: monotonic seconds; 0.0 while not reached.
    """

    __slots__ = (
        "_engine",
        "_handle",
        "_held",
        "_itl",
        "_next_at",
        "cached_tokens",
        "delay",
        "done",
        "ended_at",
        "first_at",
        "limit",
        "phase",
        "prompt",
        "reader",
        "received_at",
        "slowness",
        "started_at",
        "steps",
        "streamed",
    )

    def __init__(self, engine: Engine, prompt: Prompt, steps: int, reader: Reader, *, streamed: bool) -> None:
        self._engine = engine
        self._handle: asyncio.TimerHandle | asyncio.Handle | None = None
        self._held = False
        self._itl = self._next_at = 0.0
        self.prompt = prompt
        self.steps = steps
        self.reader = reader
        self.streamed = streamed
        self.limit = steps + 1
        self.slowness = 1.0
        self.delay = 0.0
        self.done = 0
        self.cached_tokens = 0
        self.phase = Phase.QUEUED
        self.received_at = time.monotonic()
        self.started_at = self.first_at = self.ended_at = 0.0

    @property
    def alive(self) -> bool:
        """Whether it waits or runs."""
        return self.phase is not Phase.DONE and self.phase is not Phase.STOPPED

    def start(self) -> None:
        """Take the slot it was given: read the prompt, then produce the first token."""
        engine = self._engine
        self.started_at = time.monotonic()
        self.phase = Phase.PREFILL
        self.cached_tokens = engine.cached(self.prompt)
        wait = self.delay
        if not engine.instant:
            self._itl = engine.itl() * self.slowness
            wait += engine.ttft(self.prompt.tokens - self.cached_tokens) * self.slowness
        if wait > 0:
            self._handle = engine.loop.call_later(wait, self._first)
        else:
            self._first()

    def hold(self) -> None:
        """Stop producing because the reader cannot take more; the slot stays taken."""
        self._held = True

    def resume(self) -> None:
        """Go on after ``hold``."""
        self._held = False
        if self.phase is Phase.DECODE and self._handle is None and self.streamed and self.done < self.limit:
            self._next_at = time.monotonic()
            self._handle = self._engine.loop.call_soon(self._advance)

    def stop(self) -> None:
        """Stop at once, wherever it is, and free the slot."""
        if not self.alive:
            return
        was = self.phase
        if was is Phase.DECODE and not self.streamed:
            self.done = min(self.limit, self._produced())
        self._leave(Phase.STOPPED, was)

    def _produced(self) -> int:
        """Return the decode steps of a whole answer that are done by now."""
        if self._itl <= 0:
            return self.steps
        return min(self.steps, int((time.monotonic() - self.first_at) / self._itl) + 1)

    def _first(self) -> None:
        self._handle = None
        self.first_at = self._next_at = time.monotonic()
        self.phase = Phase.DECODE
        self._engine.prefilled(self)
        self.reader.on_first()
        if not self.alive:
            return
        if self.streamed or self.limit <= 0 or self.steps == 0:
            self._advance()
            return
        remaining = (self.steps - 1) * self._itl
        if remaining > 0:
            self._handle = self._engine.loop.call_later(remaining, self._whole)
        else:
            self._whole()

    def _whole(self) -> None:
        self._handle = None
        self.done = self.steps
        self._end()

    def _advance(self) -> None:
        self._handle = None
        if not self.alive or self._held:
            return
        reader = self.reader
        last = min(self.done + (1 if self._itl > 0 else _BURST), self.steps, self.limit)
        if last > self.done:
            first, self.done = self.done, last
            reader.on_steps(first, last)
        if self.done >= self.limit:
            reader.on_limit()
        elif self.done >= self.steps:
            self._end()
            return
        reader.flush()
        if self.alive and self.done < self.limit:
            self._schedule()

    def _schedule(self) -> None:
        if self._held or self._handle is not None:
            return
        self._next_at += self._itl
        wait = self._next_at - time.monotonic()
        loop = self._engine.loop
        self._handle = loop.call_later(wait, self._advance) if wait > 0 else loop.call_soon(self._advance)

    def _end(self) -> None:
        reader = self.reader
        self._leave(Phase.DONE, self.phase)
        reader.on_end()

    def _leave(self, phase: Phase, was: Phase) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.phase = phase
        self.ended_at = time.monotonic()
        # The reader knows its run: without this the pair would wait for the garbage collector.
        self.reader = _NOBODY
        self._engine.left(self, was)


class Engine:
    """Slots and queue of one simulated backend.

    ``running`` and ``waiting`` are in order of arrival. ``counters`` is what ``/metrics`` shows. ``instant``: nothing
    takes any time.
    """

    def __init__(self, config: SimConfig, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.timing = config.timing
        self.counters = Counters()
        self.running: dict[GenerationRun, None] = {}
        self.waiting: OrderedDict[GenerationRun, None] = OrderedDict()
        self.unread_tokens = 0
        self._slots = config.slots
        self._limit = config.waiting_limit
        self._kv_tokens = config.kv_tokens
        self._cache = PrefixCache(config.kv_tokens) if config.prompt_cache else None
        self._random = random.Random(config.seed)  # noqa: S311 - repeatable jitter, not a secret
        self._filling = False
        timing = config.timing
        self.instant = not (timing.base_ttft or timing.prefill_tokens_per_s or timing.itl)

    def refusal(self, prompt_tokens: int) -> Refusal | None:
        """Return why a request with ``prompt_tokens`` is not taken now, or None."""
        reason: Refusal | None = None
        most = self.timing.queue_token_limit
        if self._limit is not None and len(self.running) >= self._slots and len(self.waiting) >= self._limit:
            reason = "queue_full"
        elif most is not None and self.unread_tokens > 0 and self.unread_tokens + prompt_tokens > most:
            reason = "queued_tokens"
        if reason is not None:
            self.counters.refused[reason] += 1
        return reason

    def generation(self, prompt: Prompt, steps: int, reader: Reader, *, streamed: bool) -> GenerationRun:
        """Return a request for ``submit``."""
        return GenerationRun(self, prompt, steps, reader, streamed=streamed)

    def submit(self, run: GenerationRun) -> None:
        """Start ``run``, or put it at the end of the queue."""
        self.unread_tokens += run.prompt.tokens
        if len(self.running) < self._slots and not self.waiting:
            self.running[run] = None
            run.start()
        else:
            self.waiting[run] = None

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that running requests hold, 0 to 1; cached blocks nobody uses count as free."""
        held = sum(run.prompt.tokens + run.done for run in self.running)
        return min(1.0, held / self._kv_tokens)

    def ttft(self, uncached_tokens: int) -> float:
        """Return the seconds from slot to first token."""
        timing = self.timing
        rate = timing.prefill_tokens_per_s
        return (timing.base_ttft + (uncached_tokens / rate if rate > 0 else 0.0)) * self._jitter()

    def itl(self) -> float:
        """Return the seconds between two tokens of a request that starts now."""
        return self.timing.itl * self._jitter()

    def cached(self, prompt: Prompt) -> int:
        """Return how many tokens of ``prompt`` are cached, and cache the rest."""
        cached = 0 if self._cache is None else self._cache.read(prompt)
        self.counters.cache_queries += prompt.tokens
        self.counters.cache_hits += cached
        return cached

    def prefilled(self, run: GenerationRun) -> None:
        """Count the prompt of ``run`` as read."""
        self.unread_tokens -= run.prompt.tokens
        self.counters.prompt_tokens += run.prompt.tokens

    def left(self, run: GenerationRun, was: Phase) -> None:
        """Count ``run`` as over and give its slot away."""
        if was is Phase.QUEUED:
            self.waiting.pop(run, None)
        else:
            self.running.pop(run, None)
        if was is not Phase.DECODE:
            self.unread_tokens -= run.prompt.tokens
        if self._filling or not self.waiting:
            return
        # Starting a request may end it at once and come back here: one loop, not one stack frame per request.
        self._filling = True
        try:
            while self.waiting and len(self.running) < self._slots:
                first, _ = self.waiting.popitem(last=False)
                self.running[first] = None
                first.start()
        finally:
            self._filling = False

    def _jitter(self) -> float:
        spread = self.timing.jitter
        return 1.0 if spread <= 0 else max(0.0, self._random.gauss(1.0, spread))
