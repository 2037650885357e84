"""The failover walk: candidates of a plan are tried in order until one begins its answer.

Before an answer has begun, another replica takes over unnoticed, within the retry budget; a connection that was refused
or reset before the request was sent costs none. Where the model says so, a stream's slow start sets a second own
replica beside the first. After an answer has begun, what comes of a failure is for ``gateway.upstream.continuation``
to decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from itertools import chain
from time import monotonic
from typing import Any, Final, Protocol

from gateway.fleet.booking import Work
from gateway.fleet.keychain import UpstreamKey
from gateway.fleet.load import ReplicaLoad
from gateway.fleet.snapshot import Candidate
from gateway.step import STEP
from gateway.telemetry.traces import RequestTrace
from gateway.types.call import Call
from gateway.types.failure import Cause, Failure
from gateway.types.ids import RequestId
from gateway.types.tokens import Usage
from gateway.upstream.attempt import Attempt
from gateway.upstream.backends import Upstream
from gateway.upstream.drain import Drain
from gateway.upstream.trial import Trial, streamed
from gateway.upstream.tries import Tried, no_answer
from gateway.upstream.wire import AttemptFailed

_LEFT: Final = Failure(Cause.ABORTED, "the caller left before an answer began", sent=False)
_LATER: Final = Failure(Cause.HEDGED, "another backend began to answer first")


class Observer(Protocol):
    """Who is told of each try: metering and tracing."""

    def opened(self, number: int, candidate: Candidate) -> None:
        """Try ``number`` is about to go to ``candidate``. May raise ``WeirError`` to stop the walk."""

    def turn(self, number: int) -> None:
        """Of two tries under way, what comes next concerns ``number``."""

    def failed(self, failure: Failure) -> Usage:
        """The current try failed before its caller saw anything of it; return the tokens it made all the same."""


class Resumption(Protocol):
    """What the replicas that are left are asked for in place of the call, once an answer has broken."""

    def takes(self, candidate: Candidate) -> bool:
        """Whether ``candidate`` can do it."""

    def call(self, candidate: Candidate) -> Call:
        """Return what ``candidate`` is asked."""


class Walk:
    """One request's way along its plan.

    Attributes:
        candidate: where the current try goes.
        number: how many tries there were.
        tried: the tries that failed.
    """

    __slots__ = (
        "_aborted",
        "_call",
        "_drain",
        "_identity",
        "_left",
        "_observer",
        "_paused",
        "_resumption",
        "_rival",
        "_trace",
        "_trial",
        "_upstream",
        "_was_sent_at",
        "_work",
        "candidate",
        "number",
        "tried",
    )

    def __init__(
        self,
        upstream: Upstream,
        call: Call,
        steps: Sequence[Candidate],
        observer: Observer,
        trace: RequestTrace,
        request_id: RequestId,
        work: Work | None = None,
    ) -> None:
        self._upstream = upstream
        self._work = work
        self._call = call
        self._left: Iterator[Candidate] = iter(steps)
        self._observer = observer
        self._trace = trace
        self._identity = b"x-request-id: gen-%s\r\n" % request_id.hex().encode("ascii")
        self._aborted = False
        self._drain: Drain | None = None
        self._resumption: Resumption | None = None
        self._trial: Trial | None = None
        self._rival: Trial | None = None
        self._was_sent_at = 0.0
        self._paused = False
        self.candidate = steps[0]
        self.number = 0
        self.tried: list[Tried] = []

    @property
    def failures(self) -> Sequence[tuple[Candidate, int]]:
        """The tries that failed and the status that each backend gave, 0 for none."""
        return [(tried.candidate, tried.failure.status) for tried in self.tried]

    @property
    def tries(self) -> Sequence[tuple[Candidate, int]]:
        """As ``failures``, and after them the try that is under way or broke off in its answer, if there is one."""
        trial = self._trial
        return self.failures if trial is None else [*self.failures, (trial.candidate, trial.attempt.status)]

    async def begin(self) -> Attempt:
        """Try candidates until one begins its answer and return that attempt; after ``give_up``, those that are left.

        Raises:
            WeirError: none did; the error says why, with the tries in its metadata.
            AttemptFailed: the caller left.
        """
        if not self.tried:
            self._upstream.budget.request(monotonic())
        while (candidate := next(self._left, None)) is not None:
            if self._aborted:
                raise AttemptFailed(_LEFT)
            if self.tried and not self._may_retry(self.tried[-1].failure):
                break
            trial = self._open(candidate)
            self._trial, self.candidate = trial, candidate
            await STEP  # it is in the books now: who decides next knows of it
            after = candidate.endpoint.pace.hedge_after
            if after is None or not self._may_race(candidate):
                attempt = await self._run(trial)
            else:
                attempt = await self._race(trial, after)
            failure = attempt.failure
            if failure is None:
                if self._paused:
                    attempt.pause()  # the caller did not read when the try before broke, and will say when it does
                return attempt
            candidate = self.candidate
            key, again = self._key, False
            self.judge(failure)
            if key is not None and candidate.key is None and key.resting_until > monotonic():
                again = candidate.load.quota.able(0, monotonic())
            self._ended()
            self._observer.failed(failure)
            if failure.cause is Cause.ABORTED:
                raise AttemptFailed(failure)
            self.tried.append(Tried(candidate, failure))
            if again:
                self._left = chain((candidate,), self._left)  # with another key
            self._spare(candidate, failure)
        raise no_answer(self.tried)

    async def finish(self, attempt: Attempt) -> Failure | None:
        """Wait for the end of the attempt that began; return its failure, if it failed. Then ``judge`` is due."""
        if not attempt.ended_at:
            await attempt.done()
        if attempt.chunks > 1:
            self._wrote(attempt)
        return attempt.failure

    def give_up(self, failure: Failure) -> bool:
        """Let go of the attempt that began and failed; return whether ``begin`` may be asked for another one."""
        if self._aborted or not failure.retryable:
            return False
        self._ended()
        self.tried.append(Tried(self.candidate, failure))
        self._spare(self.candidate, failure)
        return True

    def go_on(self, resumption: Resumption) -> None:
        """Ask the replicas that are left for ``resumption`` from now on, those that seem able to answer first."""
        self._resumption = resumption
        now = monotonic()
        able = [candidate for candidate in self._left if resumption.takes(candidate)]
        self._left = iter(sorted(able, key=lambda candidate: not _seems_able(candidate.replica.load, now)))

    @property
    def echoes(self) -> dict[str, bool]:
        """See ``Upstream``."""
        return self._upstream.echoes

    def judge(self, failure: Failure | None) -> None:
        """Tell the breaker and the metrics how the current try ended."""
        cause = failure.cause if failure is not None else None
        upstream, candidate, trial = self._upstream, self.candidate, self._trial
        replica = candidate.replica
        upstream.metrics.attempt(replica.name, cause)
        now = monotonic()
        if trial is not None:
            trial.span.end(cause, trial.attempt.status)
            if trial.key is not None and trial.key.ended(failure, now):
                return
        candidate.endpoint.track.ended(failure, now)
        if failure is None or cause is Cause.REFUSED:
            upstream.health.succeeded(replica, now)
            if failure is None and replica.load.gaps is not None:
                upstream.health.had(candidate, self._call.operation)
        elif failure.lacks:
            if candidate.key is None:  # what a team's own key may not use others may
                upstream.health.lacked(candidate, self._call.operation, now)
        elif cause is Cause.OVERLOADED:
            upstream.health.overloaded(replica, now, failure.retry_after)
        elif failure.unhealthy:
            upstream.health.failed(replica, now, failure.loggable)

    @property
    def _key(self) -> UpstreamKey | None:
        return self._trial.key if self._trial is not None else None

    def abort(self) -> None:
        """The caller left: stop whatever is going on, at once; or read on where the backend bills on."""
        if self._drain is not None:
            return
        self._aborted = True
        trial = self._trial
        if trial is not None and trial.drains and self._rival is None:
            self._drain = self._upstream.drains.begin(trial.abort)
            if self._drain is not None:
                self.resume()
                return
        for trial in (self._trial, self._rival):
            if trial is not None:
                trial.abort()

    def pause(self) -> None:
        """The caller does not keep up: stop reading."""
        self._paused = True
        if self._trial is not None:
            self._trial.attempt.pause()

    def resume(self) -> None:
        """The caller reads again."""
        self._paused = False
        if self._trial is not None:
            self._trial.attempt.resume()

    def close(self) -> None:
        """Free everything; call it on every path out."""
        if self._drain is not None:
            self._upstream.drains.end(self._drain)
            self._drain = None
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.abort()
            trial.ended()
        rival, self._rival = self._rival, None
        if rival is not None:
            rival.abort()
            rival.ended()

    @property
    def sent_at(self) -> float:
        """Monotonic seconds at which the current try, or the last one, was sent; 0 before the first."""
        return self._trial.sent_at if self._trial is not None else self._was_sent_at

    def settled(self, usage: Usage) -> None:
        """Learn from the usage of the answer what the replica had of the prompt."""
        if self._trial is not None:
            self._trial.booking.cached_in_truth(usage.cache_read)

    def _wrote(self, attempt: Attempt) -> None:
        if self._trial is not None:
            self._trial.booking.wrote(attempt.chunks, attempt.last_at)

    def _open(self, candidate: Candidate) -> Trial:
        """Begin the next try, with ``candidate``."""
        self.number += 1
        self._observer.opened(self.number, candidate)
        url = candidate.replica.backend.url
        span = self._trace.attempt(self.number, candidate.endpoint.provider, candidate.upstream_model, url)
        call = self._call if self._resumption is None else self._resumption.call(candidate)
        return Trial(self._upstream, self.number, candidate, call, span, self._work)

    def _run(self, trial: Trial) -> Coroutine[Any, Any, Attempt]:
        """Return what sends a try on its way and waits until it begins or fails."""
        candidate, call, upstream = trial.candidate, trial.call, self._upstream
        stream = streamed(candidate, call)
        extra = self._identity + trial.span.headers()
        request = upstream.request(candidate, call, trial.speech, stream=stream, extra=extra, key=trial.key)
        return trial.run(upstream.pool(candidate), request)

    def _may_race(self, candidate: Candidate) -> bool:
        """Whether a slow start says anything: of a whole answer nobody sees the first token. Never at a price."""
        if self._resumption is not None or candidate.replica.engine.external:
            return False
        return streamed(candidate, self._call)

    async def _race(self, trial: Trial, after: float) -> Attempt:
        """Return the attempt that begins, or failed; ``after`` so many seconds a second try runs beside the first."""
        first = self._upstream.loop.create_task(self._run(trial))
        tasks = [first]
        try:
            await asyncio.wait(tasks, timeout=after)
            candidate = None if first.done() or self._aborted else self._second(trial)
            if candidate is None:
                return await first
            rival = self._rival = self._open(candidate)
            tasks.append(self._upstream.loop.create_task(self._run(rival)))
            return await self._winner((trial, first), (rival, tasks[1]))
        finally:
            for task in tasks:
                task.cancel()

    def _second(self, trial: Trial) -> Candidate | None:
        """Return whom to ask beside ``trial``: another own replica that seems able to answer, if a retry is left."""
        left, now = list(self._left), monotonic()
        self._left = iter(left)
        for place, candidate in enumerate(left):
            able = not candidate.replica.engine.external and _seems_able(candidate.replica.load, now)
            if able and candidate.endpoint.model_id == trial.candidate.endpoint.model_id:
                if not self._upstream.budget.take(now):
                    return None
                self._left = iter(left[:place] + left[place + 1 :])
                return candidate
        return None

    async def _winner(self, *pairs: tuple[Trial, asyncio.Task[Attempt]]) -> Attempt:
        """Return the attempt that begins first; what became of the other one is told here."""
        await asyncio.wait([task for _, task in pairs], return_when=asyncio.FIRST_COMPLETED)
        done = [pair for pair in pairs if pair[1].done()]
        begun = [pair for pair in done if pair[1].result().failure is None]
        winner, task = begun[0] if begun else next((pair for pair in pairs if pair not in done), done[0])
        loser, other = next(pair for pair in pairs if pair[0] is not winner)
        failure = other.result().failure if other.done() else None
        if failure is None:
            failure = _LATER
            loser.abort()
        # The walk looks at the loser only for as long as it takes to write down how it ended.
        self._trial, self._rival, self.candidate = loser, winner, loser.candidate
        self._observer.turn(loser.number)
        self.judge(failure)
        loser.ended()
        self._observer.failed(failure)
        if failure is not _LATER:
            self.tried.append(Tried(loser.candidate, failure))
        self._trial, self._rival, self.candidate = winner, None, winner.candidate
        attempt = await task
        outcome = "none" if attempt.failure is not None else "first" if winner is pairs[0][0] else "second"
        self._upstream.metrics.hedges.add((outcome,))
        return attempt

    def _spare(self, refused: Candidate, failure: Failure) -> None:
        """Leave those out who would refuse the same as ``refused`` did."""
        if failure.cause is Cause.REFUSED and self._resumption is None:
            self._left = iter([each for each in self._left if _may_take(each, refused, failure)])

    def _may_retry(self, failure: Failure) -> bool:
        refused = failure.cause is Cause.REFUSED
        return not failure.sent or self._upstream.budget.take(monotonic(), refused=refused)

    def _ended(self) -> None:
        """Take the current try out of the replica's books; harmless when it is out already."""
        if self._trial is not None:
            self._was_sent_at = self._trial.sent_at
            self._trial.ended()
            self._trial = None


def _seems_able(load: ReplicaLoad, now: float) -> bool:
    """Whether nothing speaks against a replica that a plan chose some time ago."""
    return load.ready and not load.draining and load.ejected_until <= now and load.cooling_until <= now


def _may_take(candidate: Candidate, refused: Candidate, failure: Failure) -> bool:
    """Whether ``candidate`` may take what ``refused`` refused: another model, or if it says so another provider.

    What is too large for an account's minute (413) may suit another account of the same provider.
    """
    if candidate.endpoint.model_id != refused.endpoint.model_id:
        return True
    return failure.elsewhere and (failure.status == 413 or candidate.endpoint.provider != refused.endpoint.provider)
