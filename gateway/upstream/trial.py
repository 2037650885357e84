"""One try on its way: a request sent to one replica, until it begins to answer, fails, or is called off.

A try opens a connection or takes one that is idle, and once repeats itself on a new one when the idle one turns out to
have been closed meanwhile. It keeps the replica's books: what was sent is taken out again on every way out.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from gateway.fleet import orca
from gateway.fleet.booking import Booking, Work
from gateway.fleet.snapshot import Candidate
from gateway.step import STEP
from gateway.telemetry.traces import AttemptTrace
from gateway.types.call import WHOLE, Call
from gateway.types.dialect import Dialect
from gateway.types.failure import Cause
from gateway.upstream.attempt import Attempt
from gateway.upstream.backends import Upstream
from gateway.upstream.speech import speech_of
from gateway.upstream.wire import AttemptFailed, Connection, Pool

_CHAT: Final = Dialect.CHAT
_REPORT: Final = orca.HEADER
STALE_S: Final = 0.5
"""Seconds in which a kept connection that had been closed answers with a reset. Later, an engine died at work."""


class Trial:
    """See the module.

    Attributes:
        number: 1-based number of the try.
        candidate: where it goes.
        call: what is asked.
        span: its trace.
        speech: how it is said there, or None in the chat form.
        key: what it is asked with, when that is not the one key of the backend.
        booking: its entry in the replica's books.
        attempt: what receives the answer; another one after a repetition.
        sent_at: monotonic seconds at which it was sent.
    """

    __slots__ = (
        "_aborted",
        "_connecting",
        "_first_byte",
        "_open",
        "_upstream",
        "attempt",
        "booking",
        "call",
        "candidate",
        "key",
        "number",
        "sent_at",
        "span",
        "speech",
    )

    def __init__(
        self,
        upstream: Upstream,
        number: int,
        candidate: Candidate,
        call: Call,
        span: AttemptTrace,
        work: Work | None = None,
    ) -> None:
        replica, load = candidate.replica, candidate.load
        engine, now = replica.engine, monotonic()
        self._upstream = upstream
        self.call = call
        self._aborted = False
        self._connecting: asyncio.Task[Connection] | None = None
        self._open = True
        self.number = number
        self.candidate = candidate
        self.span = span
        self.sent_at = 0.0
        plain = call.dialect is _CHAT and engine.speaks is _CHAT
        self.speech = None if plain else speech_of(candidate, call)
        first_byte, ttft = replica.backend.timeouts.first_byte, candidate.endpoint.pace.ttft
        if ttft is not None and ttft < first_byte and streamed(candidate, call):
            first_byte = ttft  # of a whole answer nobody sees the first token
        self._first_byte = first_byte
        self.attempt = self._receiver()
        estimate = call.prompt_estimate
        if work is None:
            work = Work(estimate, 0)
        elif work.prompt_tokens != estimate:
            work = Work(estimate, work.expected_tokens, work.blocks, session=work.session)
        whole = not (call.stream or engine.always_stream) or call.operation in WHOLE
        self.booking = Booking(load, work, now, whole)
        self.key = key = candidate.key
        if key is None and load.quota.keys:
            self.key = key = load.quota.take(self.booking.context, now)
        if key is not None:
            key.quota.sent(self.booking.context, now)

    async def run(self, pool: Pool, request: bytes) -> Attempt:
        """Send ``request`` over ``pool`` and wait until the answer begins or fails; return the attempt."""
        await STEP
        if self._aborted:  # called off before anything was sent
            self.attempt.abort()
            return self.attempt
        connection = pool.take()
        while True:
            attempt = self.attempt
            if connection is None:
                connection = await self._connect(pool, self.candidate.replica.backend.timeouts.connect)
                if connection is None:
                    return attempt
                attempt.deadline = monotonic() + self._first_byte
            self.sent_at = now = monotonic()
            self.booking.departs(now)
            attempt.start(connection, request)
            self._upstream.deadlines.watch(attempt)
            await attempt.begun()
            failure = attempt.failure
            if failure is None:
                self.booking.answered(attempt.began_at, attempt)
                return attempt
            stale = failure.cause is Cause.RESET and not connection.fresh and monotonic() - self.sent_at < STALE_S
            if stale and not self._aborted:
                self._upstream.deadlines.forget(attempt)
                connection = None  # it had been closed while it was idle: the engine never saw the request
                self.attempt = self._receiver()
                continue
            return attempt

    @property
    def drains(self) -> bool:
        """Whether the backend bills for all of the answer that is under way, whether or not somebody reads it."""
        return bool(self.sent_at) and not self.attempt.over and self.candidate.replica.backend.on_disconnect == "drain"

    def abort(self) -> None:
        """Stop whatever is going on, at once."""
        self._aborted = True
        if self._connecting is not None:
            self._connecting.cancel()
        if not self.attempt.over:
            self.attempt.abort()

    def ended(self) -> None:
        """Take the try out of the replica's books; harmless when it is out already."""
        if not self._open:
            return
        self._open = False
        attempt, replica, now = self.attempt, self.candidate.replica, monotonic()
        self._upstream.deadlines.forget(attempt)
        if self.key is not None:
            self.key.quota.ended()
            self.key.quota.heard(attempt.headers, now)
        elif replica.engine.metrics_path is None:
            replica.load.quota.heard(attempt.headers, now)
        else:
            for name, value in attempt.headers:
                if name == _REPORT:
                    replica.load.hinted(*orca.read(value))
        self.booking.ended(now)

    def _receiver(self) -> Attempt:
        replica, gap, speech = self.candidate.replica, self.candidate.endpoint.pace.inter_token, self.speech
        idle = replica.backend.timeouts.idle
        strict = gap is not None and gap < idle
        return Attempt(
            self._upstream.loop,
            replica.engine,
            self.call.operation,
            self._first_byte,
            gap if strict and gap is not None else idle,
            strict,
            None if speech is None else speech.translator(self.call),
        )

    async def _connect(self, pool: Pool, limit: float) -> Connection | None:
        """Open a connection; on failure note it in the attempt and return None."""
        attempt = self.attempt
        connecting = self._connecting = self._upstream.loop.create_task(pool.connect(limit))
        try:
            connection = await connecting
            if not self._aborted:
                return connection
            connection.abort()  # called off when the connection was there, but not yet used
            attempt.abort()
        except AttemptFailed as error:
            attempt.lost(error.failure)
        except asyncio.CancelledError:
            connecting.cancel()
            connecting.add_done_callback(_unwanted)  # it may be done: then nobody else has its connection
            if not self._aborted:
                raise
            attempt.abort()
        finally:
            self._connecting = None
        return None


def streamed(candidate: Candidate, call: Call) -> bool:
    """Whether ``candidate`` is asked for a stream, which the caller need not have asked for."""
    replica = candidate.replica
    wanted = call.stream or replica.engine.always_stream or replica.backend.on_disconnect == "count"
    return wanted and call.operation not in WHOLE


def _unwanted(connecting: asyncio.Task[Connection]) -> None:
    """Close what was opened for a try that has been called off."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().abort()
