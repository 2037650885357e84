"""The simulated engine under the step model: answers take the time and the memory that a real engine's would.

The same faces, exchanges and faults as with the simple timing; only when tokens come differs. As with a real engine, a
reader that does not keep up does not stop it, and an answer that stands still (a fault) keeps its place in the batch
only as long as it would have taken. ``slow`` slows the whole engine while the struck request lives. Nothing here
raises for a client's doing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from gateway.sim.cache import BLOCK_CHARACTERS, BLOCK_TOKENS
from gateway.sim.config import SimConfig
from gateway.sim.engine import Engine, GenerationRun, Phase, Reader
from gateway.sim.text import Prompt
from gateway.stepmodel import Profile, Report, Sequence, StepEngine


class SteppedRun(GenerationRun):
    """One request inside the engine.

    Attributes:
        sequence: what the step model works on.
    """

    __slots__ = ("_stands", "_stepped", "sequence")

    def __init__(self, engine: SteppedEngine, work: tuple[Prompt, int], reader: Reader, *, streamed: bool) -> None:
        prompt, steps = work
        super().__init__(engine, prompt, steps, reader, streamed=streamed)
        self._stepped = engine
        self._stands = False
        self.sequence = Sequence(prompt.tokens, max(1, steps), engine.chain(prompt))

    def resume(self) -> None:
        """Hand over what was made since ``hold``."""
        self._held = False
        if self.phase is Phase.DECODE:
            self._handle = self._stepped.loop.call_soon(self.proceed)

    def began(self) -> None:
        """Its prompt is read."""
        self.started_at = self.sequence.admitted_at or self.received_at
        self.first_at = time.monotonic()
        self.phase = Phase.DECODE
        self.cached_tokens = self.sequence.cached_tokens
        self._stepped.prefilled(self)
        self.reader.on_first()

    def proceed(self) -> None:
        """Hand over the tokens that are there and not handed over yet; end when there will be no more."""
        self._handle = None
        if self.phase is not Phase.DECODE or self._held or self._stands:
            return
        made, over, reader = min(self._produced(), self.limit), self.sequence.ended_at is not None, self.reader
        if made > self.done and (self.streamed or over):
            first, self.done = self.done, made
            if self.streamed:
                reader.on_steps(first, made)
        if self.done >= self.limit:
            self._stands = True
            reader.on_limit()
        elif over and self.done >= self.steps:
            self._end()
        elif self.streamed:
            reader.flush()

    def _produced(self) -> int:
        return min(self.steps, self._stepped.generated(self))


class SteppedEngine(Engine):
    """Batch, queue and KV cache of one simulated backend."""

    def __init__(self, config: SimConfig, loop: asyncio.AbstractEventLoop, profile: Profile) -> None:
        super().__init__(config, loop)
        self.instant = False
        profile = replace(profile, kv_tokens=config.kv_tokens, max_running=config.slots)
        self._model = StepEngine(profile, seed=config.seed, longest_run=1)
        self._timer: asyncio.TimerHandle | None = None
        self._runs: dict[Sequence, SteppedRun] = {}
        self._entering: dict[SteppedRun, asyncio.TimerHandle] = {}

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that requests hold, 0 to 1; cached blocks nobody uses count as free."""
        return self._model.kv_usage

    def generation(self, prompt: Prompt, steps: int, reader: Reader, *, streamed: bool) -> GenerationRun:
        """Return a request for ``submit``."""
        return SteppedRun(self, (prompt, steps), reader, streamed=streamed)

    def chain(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the chain hashes of the full blocks of a prompt; none when nothing is cached."""
        if self._cache is None:
            return ()
        text, chain, parent = prompt.text, [], 0
        for start in range(0, len(text) - BLOCK_CHARACTERS + 1, BLOCK_CHARACTERS):
            parent = hash((parent, text[start : start + BLOCK_CHARACTERS]))
            chain.append(parent)
        return tuple(chain[: prompt.tokens // BLOCK_TOKENS])

    def generated(self, run: SteppedRun) -> int:
        """Return the tokens of its answer that are made."""
        return self._model.generated(run.sequence)

    def submit(self, run: GenerationRun) -> None:
        """Put ``run`` at the end of the queue, once the front of the engine is through with it."""
        assert isinstance(run, SteppedRun)
        self.unread_tokens += run.prompt.tokens
        self.waiting[run] = None
        delay = self._model.profile.overhead(run.prompt.tokens) + run.delay
        self._entering[run] = self.loop.call_later(delay, self._enter, run)

    def left(self, run: GenerationRun, was: Phase) -> None:
        """Count ``run`` as over and take it out of the batch."""
        assert isinstance(run, SteppedRun)
        entering = self._entering.pop(run, None)
        if entering is not None:
            entering.cancel()
        self.waiting.pop(run, None)
        self.running.pop(run, None)
        if was is not Phase.DECODE:
            self.unread_tokens -= run.prompt.tokens
        if self._runs.pop(run.sequence, None) is not None:
            self._model.cancel(run.sequence, time.monotonic())
            self._watch()

    def _enter(self, run: SteppedRun) -> None:
        del self._entering[run]
        now = time.monotonic()
        self._runs[run.sequence] = run
        if run.slowness != 1.0:
            self._model.slow_down(run.slowness, now)
        self._model.submit(run.sequence, now)
        self._watch()

    def _wake(self) -> None:
        self._timer = None
        for report, sequence in self._model.advance(time.monotonic()):
            run = self._runs.get(sequence)
            if run is None:
                continue
            if report is Report.FIRST:
                run.began()
            elif run.alive:
                run.proceed()
        for sequence in self._model.decoding:
            run = self._runs.get(sequence)
            if run is not None:
                run.proceed()
        self._watch()

    def _watch(self) -> None:
        """Come back when the model is next due, and see who was admitted or thrown out since."""
        model = self._model
        if len(self.running) != model.running or len(self.waiting) != model.waiting + len(self._entering):
            for sequence, run in self._runs.items():
                inside = model.holds(sequence)
                self.running.pop(run, None)
                self.waiting.pop(run, None)
                if inside:
                    run.phase = Phase.PREFILL if run.phase is Phase.QUEUED else run.phase
                    self.running[run] = None
                elif sequence.ended_at is None:
                    self.waiting[run] = None
        self.counters.preemptions = model.preemptions
        self.counters.cache_queries, self.counters.cache_hits = model.queried_tokens, model.hit_tokens
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        factor = max((run.slowness for run in self._runs.values()), default=1.0)
        if factor != model.slowness:
            model.slow_down(factor, time.monotonic())
        if model.next_at < float("inf"):
            self._timer = self.loop.call_later(max(0.0, model.next_at - time.monotonic()), self._wake)
