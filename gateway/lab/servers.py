"""What stands behind the gateways: replicas that run the step model, and an external API with limits.

Both tell a ``Listener`` what happens to a job; refusals and losses are told as ``Failure`` values, as an attempt of the
gateway would report them. Nothing here raises.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.lab.agenda import Agenda
from gateway.lab.job import Job
from gateway.lab.setting import External
from gateway.stepmodel import Profile, Report, Sequence, StepEngine
from gateway.types.failure import Cause, Failure
from gateway.types.money import NANO_PER_USD

_REFUSED: Final = Failure(Cause.CONNECT, "connection refused", sent=False)
_LOST: Final = Failure(Cause.RESET, "the replica died")
_CUT: Final = Failure(Cause.CUT, "the replica died while it answered")
_CONNECT_S: Final = 0.001
"""Seconds until a refused connection is known."""
_MINUTE: Final = 60.0


class Listener(Protocol):
    """Who is told what happens to a job."""

    def on_first(self, job: Job) -> None:
        """Its first token is there."""

    def on_end(self, job: Job) -> None:
        """Its last token is there."""

    def on_failure(self, job: Job, failure: Failure) -> None:
        """It is lost or was refused."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a metrics page says."""

    running: int
    waiting: int
    kv_usage: float
    preemptions: int


class Progress:
    """An answer under way, as its caller sees it: what came until now."""

    __slots__ = ("_replica", "_sequence")

    def __init__(self, replica: SimReplica, sequence: Sequence) -> None:
        self._replica = replica
        self._sequence = sequence

    @property
    def chunks(self) -> int:
        """Tokens that came."""
        return self._replica.engine.generated(self._sequence)

    @property
    def last_at(self) -> float:
        """Seconds at which the last of them came."""
        return self._replica.engine.stepped_at


class SimReplica:
    """One own GPU replica.

    Attributes:
        engine: the step model.
        alive: whether it answers at all.
    """

    def __init__(self, agenda: Agenda, listener: Listener, profile: Profile, seed: int, segment_tokens: int) -> None:
        self._agenda = agenda
        self._listener = listener
        self._jobs: dict[Sequence, Job] = {}
        self._coming: dict[Job, None] = {}
        self._due = 0
        self._shown: Page | None = None
        self.engine = StepEngine(profile, seed=seed, segment_tokens=segment_tokens)
        self.alive = True

    def send(self, job: Job) -> None:
        """Take a request that a gateway sends now."""
        if not self.alive:
            self._agenda.at(self._agenda.now + _CONNECT_S, self._listener.on_failure, job, _REFUSED)
            return
        arrival = job.arrival
        job.sequence = Sequence(
            arrival.prompt_tokens + job.answered, arrival.answer_tokens - job.answered, arrival.chain
        )
        self._coming[job] = None
        due = self._agenda.now + self.engine.profile.overhead(arrival.prompt_tokens)
        self._agenda.at(due, self._enter, job, job.sequence)

    def die(self) -> None:
        """Lose everything and refuse connections."""
        now = self._agenda.now
        lost = [self._jobs[sequence] for sequence in self.engine.stop(now)]
        lost += self._coming
        self._jobs.clear()
        self._coming.clear()
        self.alive = False
        for job in lost:
            begun = job.sequence is not None and job.sequence.first_at is not None
            self._listener.on_failure(job, _CUT if begun else _LOST)

    def revive(self) -> None:
        """Come back, empty."""
        self.alive = True

    def slow_down(self, factor: float) -> None:
        """Take ``factor`` times as long for every step."""
        self.engine.slow_down(factor, self._agenda.now)
        self._watch()

    def freeze(self) -> None:
        """Show what the metrics page shows now until ``thaw``."""
        self._shown = self._page()

    def thaw(self) -> None:
        """Show true metrics again."""
        self._shown = None

    def settle(self) -> None:
        """Book what the engine has done until now."""
        self.engine.settle(self._agenda.now)
        self._watch()

    def page(self) -> Page:
        """Return what the metrics page shows."""
        return self._shown or self._page()

    def _page(self) -> Page:
        self.settle()
        engine = self.engine
        return Page(engine.running, engine.waiting, engine.kv_usage, engine.preemptions)

    def _enter(self, job: Job, sequence: Sequence) -> None:
        if job not in self._coming or job.sequence is not sequence:
            return  # lost on the way
        del self._coming[job]
        self._jobs[sequence] = job
        self.engine.submit(sequence, self._agenda.now)
        self._watch()

    def _watch(self) -> None:
        """Come back when the engine is next due; an appointment made before that is void."""
        self._due += 1
        if self.engine.next_at < float("inf"):
            self._agenda.at(self.engine.next_at, self._wake, self._due)

    def _wake(self, due: int) -> None:
        if due != self._due:
            return
        for report, sequence in self.engine.advance(self._agenda.now):
            if report is Report.FIRST:
                self._listener.on_first(self._jobs[sequence])
            else:
                self._listener.on_end(self._jobs.pop(sequence))
        self._watch()


class SimApi:
    """An external API: no queue, but limits.

    Attributes:
        taken: requests that were served or are.
    """

    def __init__(self, agenda: Agenda, listener: Listener, spec: External, seed: int) -> None:
        self._agenda = agenda
        self._listener = listener
        self._spec = spec
        self._random = random.Random(seed)  # noqa: S311 - repeatable, not a secret
        self._window: deque[tuple[float, int]] = deque()
        self._window_tokens = 0
        self._running = 0
        self.taken = 0

    def send(self, job: Job) -> None:
        """Take or refuse a request that a gateway sends now."""
        now, spec, arrival = self._agenda.now, self._spec, job.arrival
        prompt, answer = arrival.prompt_tokens + job.answered, arrival.answer_tokens - job.answered
        wait = self._full(now, prompt + answer)
        draw = self._random.lognormvariate(0.0, spec.spread)
        if wait:
            failure = Failure(Cause.OVERLOADED, "rate limit", 429, retry_after=wait)
            self._agenda.at(now + spec.ttft_s * 0.2 * draw, self._listener.on_failure, job, failure)
            return
        self._window.append((now, prompt + answer))
        self._window_tokens += prompt + answer
        self._running += 1
        self.taken += 1
        job.sequence = None
        job.usd += (prompt * spec.cost.prompt + answer * spec.cost.completion) / 1_000 / NANO_PER_USD
        first = now + spec.ttft_s * draw + prompt / spec.prefill_tokens_per_s
        last = first + (answer - 1) * spec.itl_s * self._random.lognormvariate(0.0, spec.spread)
        self._agenda.at(first, self._listener.on_first, job)
        self._agenda.at(last, self._end, job)

    def _end(self, job: Job) -> None:
        self._running -= 1
        self._listener.on_end(job)

    def _full(self, now: float, tokens: int) -> float:
        """Return the seconds to wait until there is room again, 0 when there is."""
        window, spec = self._window, self._spec
        while window and window[0][0] <= now - _MINUTE:
            self._window_tokens -= window.popleft()[1]
        if self._running >= spec.concurrent:
            return 1.0
        if len(window) >= spec.rpm or (window and self._window_tokens + tokens > spec.tpm):
            return max(0.001, window[0][0] + _MINUTE - now)
        return 0.0
