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
from gateway.telemetry.traces import AttemptTrace
from gateway.types.call import WHOLE, Call
from gateway.types.dialect import Dialect
from gateway.types.failure import Cause
from gateway.upstream.attempt import Attempt
from gateway.upstream.deadlines import Deadlines
from gateway.upstream.speech import speech_of
from gateway.upstream.wire import AttemptFailed, Connection, Pool

_CHAT: Final = Dialect.CHAT
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
        "_deadlines",
        "_loop",
        "_open",
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
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        number: int,
        candidate: Candidate,
        call: Call,
        span: AttemptTrace,
        work: Work | None = None,
    ) -> None:
        self._loop = loop
        self._deadlines = deadlines
        self.call = call
        self._aborted = False
        self._connecting: asyncio.Task[Connection] | None = None
        self._open = True
        self.number = number
        self.candidate = candidate
        self.span = span
        self.sent_at = 0.0
        plain = call.dialect is _CHAT and candidate.replica.engine.speaks is _CHAT
        self.speech = None if plain else speech_of(candidate, call)
        self.attempt = self._receiver()
        whole = call.operation in WHOLE or not (call.stream or candidate.replica.engine.always_stream)
        if work is None:
            work = Work(call.prompt_estimate, 0)
        elif work.prompt_tokens != call.prompt_estimate:
            work = Work(call.prompt_estimate, work.expected_tokens, work.blocks, session=work.session)
        self.booking = Booking(candidate.load, work, monotonic(), whole=whole)
        self.key = key = candidate.key
        if key is None and candidate.load.quota.keys:
            self.key = key = candidate.load.quota.take(self.booking.context, monotonic())
        if key is not None:
            key.quota.sent(self.booking.context, monotonic())

    async def run(self, pool: Pool, request: bytes) -> Attempt:
        """Send ``request`` over ``pool`` and wait until the answer begins or fails; return the attempt."""
        timeouts = self.candidate.replica.backend.timeouts
        connection = pool.take()
        while True:
            attempt = self.attempt
            if connection is None:
                connection = await self._connect(pool, timeouts.connect)
                if connection is None:
                    return attempt
                attempt.deadline = monotonic() + self._first_byte
            self.sent_at = now = monotonic()
            self.booking.departs(now)
            attempt.start(connection, request)
            self._deadlines.watch(attempt)
            await attempt.begun()
            failure = attempt.failure
            if failure is None:
                self.booking.answered(attempt.began_at, attempt)
                return attempt
            stale = failure.cause is Cause.RESET and not connection.fresh and monotonic() - self.sent_at < STALE_S
            if stale and not self._aborted:
                self._deadlines.forget(attempt)
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
        self._deadlines.forget(self.attempt)
        replica = self.candidate.replica
        if self.key is not None:
            self.key.quota.ended()
            self.key.quota.heard(self.attempt.headers, monotonic())
        elif replica.engine.metrics_path is None:
            replica.load.quota.heard(self.attempt.headers, monotonic())
        else:
            for name, value in self.attempt.headers:
                if name == orca.HEADER:
                    replica.load.hinted(*orca.read(value))
        self.booking.ended(monotonic())

    @property
    def _first_byte(self) -> float:
        """Seconds that the first event may take: the backend's limit, or the model's where that is tighter."""
        first_byte, ttft = self.candidate.replica.backend.timeouts.first_byte, self.candidate.endpoint.pace.ttft
        return first_byte if ttft is None else min(first_byte, ttft)

    def _receiver(self) -> Attempt:
        candidate = self.candidate
        idle, gap = candidate.replica.backend.timeouts.idle, candidate.endpoint.pace.inter_token
        strict = gap is not None and gap < idle
        return Attempt(
            self._loop,
            candidate.replica.engine,
            self.call.operation,
            first_byte=self._first_byte,
            idle=gap if strict and gap is not None else idle,
            strict=strict,
            translator=None if self.speech is None else self.speech.translator(self.call),
        )

    async def _connect(self, pool: Pool, limit: float) -> Connection | None:
        """Open a connection; on failure note it in the attempt and return None."""
        attempt = self.attempt
        self._connecting = self._loop.create_task(pool.connect(limit))
        try:
            connection = await self._connecting
            if not self._aborted:
                return connection
            connection.abort()  # called off when the connection was there, but not yet used
            attempt.abort()
        except AttemptFailed as error:
            attempt.lost(error.failure)
        except asyncio.CancelledError:
            if not self._aborted:
                self._connecting.cancel()
                raise
            attempt.abort()
        finally:
            self._connecting = None
        return None
