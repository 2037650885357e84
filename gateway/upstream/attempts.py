"""The failover walk: candidates of a plan are tried in order until one begins its answer.

Before an answer has begun, another replica takes over unnoticed, within the retry budget; a connection that was refused
or reset before the request was sent costs none. After it has begun, failures are the relay's to report honestly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, Protocol

import msgspec

from gateway.engines.body import upstream_body
from gateway.fleet.health import Health
from gateway.fleet.snapshot import Candidate
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.traces import AttemptTrace, RequestTrace
from gateway.types.call import Call, Operation
from gateway.types.errors import Unavailable, UpstreamFailed, WeirError
from gateway.types.failure import Cause, Failure
from gateway.types.ids import RequestId
from gateway.types.tokens import Usage
from gateway.upstream.attempt import Attempt
from gateway.upstream.budget import RetryBudget
from gateway.upstream.deadlines import Deadlines
from gateway.upstream.wire import AttemptFailed, Connection, Pool, Resolve

_LEFT: Final = Failure(Cause.ABORTED, "the caller left before an answer began", sent=False)
_encoder: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Tried:
    """One failed try of a walk."""

    candidate: Candidate
    failure: Failure


class Observer(Protocol):
    """Who is told of each try: metering and tracing."""

    def opened(self, number: int, candidate: Candidate) -> None:
        """Try ``number`` is about to go to ``candidate``. May raise ``WeirError`` to stop the walk."""

    def failed(self, failure: Failure) -> Usage:
        """The try last opened failed before its caller saw anything of it; return the tokens it made all the same."""


class Upstream:
    """The data plane's way to all backends of a worker: pools, deadlines, retry budget, health."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, health: Health, resolve: Resolve, metrics: GatewayMetrics
    ) -> None:
        self.loop = loop
        self.metrics = metrics
        self.deadlines = Deadlines(loop)
        self.health = health
        self.budget = RetryBudget()
        self._resolve = resolve
        self._pools: dict[str, Pool] = {}
        self._heads: dict[tuple[str, Operation, bool], bytes] = {}

    def pool(self, candidate: Candidate) -> Pool:
        """Return the connection pool of a candidate's backend; backends that share a URL share it."""
        url = candidate.replica.backend.url
        pool = self._pools.get(url)
        if pool is None:
            pool = self._pools[url] = Pool(url, loop=self.loop, deadlines=self.deadlines, resolve=self._resolve)
        return pool

    def request(self, candidate: Candidate, call: Call, *, stream: bool, extra: bytes) -> bytes:
        """Return the whole HTTP request for ``call`` as ``candidate``'s engine wants it.

        Args:
            candidate: where it goes.
            call: what is asked.
            stream: whether the engine shall stream.
            extra: more header lines, each ended by CRLF.
        """
        engine = candidate.replica.engine
        limit, most = call.max_tokens, candidate.endpoint.max_output
        if most is not None and limit is not None and limit > most:
            limit = most
        body = _encoder.encode(
            upstream_body(
                engine,
                call.operation,
                call.body,
                upstream_model=candidate.upstream_model,
                max_tokens=limit,
                stream=stream,
            )
        )
        return b"%s%scontent-length: %d\r\n\r\n%s" % (
            self._head(candidate, call.operation, stream),
            extra,
            len(body),
            body,
        )

    def _head(self, candidate: Candidate, operation: Operation, stream: bool) -> bytes:
        """Return the request line and the headers that never change, made once per backend."""
        backend = candidate.replica.backend
        key = (backend.name, operation, stream)
        head = self._heads.get(key)
        if head is None:
            pool = self.pool(candidate)
            path = pool.path + candidate.replica.engine.paths[operation].removeprefix(
                "/v1" if pool.path.endswith("/v1") else ""
            )
            secret = backend.api_key
            head = (
                b"POST %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\naccept: %s\r\n"
                b"accept-encoding: identity\r\nuser-agent: weir\r\n"
                % (path.encode("ascii"), pool.host, b"text/event-stream" if stream else b"application/json")
            )
            if secret is not None:
                head += b"authorization: Bearer %s\r\n" % secret.reveal().encode("ascii")
            self._heads[key] = head
        return head

    def reconfigured(self) -> None:
        """Forget what was derived from the old configuration; running requests keep their connections."""
        self._heads.clear()
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def close(self) -> None:
        """Close all idle connections."""
        self.reconfigured()


class Walk:
    """One request's way along its plan.

    Attributes:
        attempt: the try that is going on or has begun, or None.
        candidate: where ``attempt`` went.
        number: 1-based number of the current try.
        tried: the tries that failed.
        sent_at: monotonic seconds at which the current try was sent.
    """

    __slots__ = (
        "_aborted",
        "_booked",
        "_call",
        "_connecting",
        "_identity",
        "_left",
        "_observer",
        "_span",
        "_trace",
        "_upstream",
        "attempt",
        "candidate",
        "number",
        "sent_at",
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
    ) -> None:
        self._upstream = upstream
        self._call = call
        self._left = iter(steps)
        self._observer = observer
        self._trace = trace
        self._span: AttemptTrace | None = None
        self._identity = b"x-request-id: gen-%s\r\n" % request_id.hex().encode("ascii")
        self._aborted = False
        self._booked = 0
        self._connecting: asyncio.Task[Connection] | None = None
        self.attempt: Attempt | None = None
        self.candidate = steps[0]
        self.number = 0
        self.tried: list[Tried] = []
        self.sent_at = 0.0

    async def begin(self) -> Attempt:
        """Try candidates until one begins its answer and return that attempt; after ``give_up``, those that are left.

        Raises:
            WeirError: none did; the error says why, with the tries in its metadata.
            AttemptFailed: the caller left.
        """
        if not self.tried:
            self._upstream.budget.request(monotonic())
        for candidate in self._left:
            if self._aborted:
                raise AttemptFailed(_LEFT)
            if self.tried and not self._may_retry(self.tried[-1].failure):
                break
            self.candidate = candidate
            self.number += 1
            self._observer.opened(self.number, candidate)
            backend = candidate.replica.backend
            self._span = self._trace.attempt(
                self.number, candidate.endpoint.provider, candidate.upstream_model, backend.url
            )
            attempt = await self._try(candidate, self._identity + self._span.headers())
            failure = attempt.failure
            if failure is None:
                return attempt
            self.judge(failure)
            self._ended()
            self._observer.failed(failure)
            if failure.cause is Cause.ABORTED:
                raise AttemptFailed(failure)
            self.tried.append(Tried(candidate, failure))
            if not failure.retryable:
                break
        raise self._error()

    async def finish(self, attempt: Attempt) -> Failure | None:
        """Wait for the end of the attempt that began; return its failure, if it failed. Then ``judge`` is due."""
        if not attempt.over:
            await attempt.done()
        if attempt.chunks > 1:
            self.candidate.replica.load.streamed(attempt.chunks - 1, attempt.last_at - attempt.began_at)
        return attempt.failure

    def give_up(self, failure: Failure) -> bool:
        """Let go of the attempt that began and failed; return whether ``begin`` may be asked for another one."""
        if self._aborted or not failure.retryable:
            return False
        self._ended()
        self.tried.append(Tried(self.candidate, failure))
        return True

    def judge(self, failure: Failure | None) -> None:
        """Tell the breaker and the metrics how the current try ended."""
        cause = failure.cause if failure is not None else None
        self._upstream.metrics.attempt(self.candidate.replica.name, cause)
        if self._span is not None:
            self._span.end(cause, self.attempt.status if self.attempt is not None else 0)
        health, replica, now = self._upstream.health, self.candidate.replica, monotonic()
        if failure is None or failure.cause is Cause.REFUSED:
            health.succeeded(replica, now)
        elif failure.cause is Cause.OVERLOADED:
            health.overloaded(replica, now, failure.retry_after)
        elif failure.unhealthy:
            health.failed(replica, now)

    def abort(self) -> None:
        """The caller left: stop whatever is going on, at once."""
        self._aborted = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self.attempt is not None and not self.attempt.over:
            self.attempt.abort()

    def pause(self) -> None:
        """The caller does not keep up: stop reading."""
        if self.attempt is not None:
            self.attempt.pause()

    def resume(self) -> None:
        """The caller reads again."""
        if self.attempt is not None:
            self.attempt.resume()

    def close(self) -> None:
        """Free everything; call it on every path out."""
        if self.attempt is not None and not self.attempt.over:
            self.attempt.abort()
        self._ended()

    async def _try(self, candidate: Candidate, extra: bytes) -> Attempt:
        """Send the request, with the header lines ``extra``, to one candidate and wait until it begins or fails."""
        upstream, call, engine = self._upstream, self._call, candidate.replica.engine
        timeouts = candidate.replica.backend.timeouts
        stream = call.operation is not Operation.EMBEDDINGS and (call.stream or engine.always_stream)
        request = upstream.request(candidate, call, stream=stream, extra=extra)
        pool = upstream.pool(candidate)
        load = candidate.replica.load
        self._booked = call.prompt_estimate
        load.sent(self._booked)
        connection = pool.take()
        while True:
            attempt = self.attempt = Attempt(
                upstream.loop, engine, call.operation, first_byte=timeouts.first_byte, idle=timeouts.idle
            )
            if connection is None:
                connection = await self._connect(pool, timeouts.connect, attempt)
                if connection is None:
                    return attempt
                attempt.deadline = monotonic() + timeouts.first_byte
            self.sent_at = monotonic()
            attempt.start(connection, request)
            upstream.deadlines.watch(attempt)
            await attempt.begun()
            failure = attempt.failure
            if failure is None:
                load.answered(self._booked, attempt.began_at - self.sent_at)
                self._booked = -1
                return attempt
            if failure.cause is Cause.RESET and not connection.fresh and not self._aborted:
                upstream.deadlines.forget(attempt)
                connection = None  # a stale keep-alive connection: the engine never saw the request
                continue
            return attempt

    async def _connect(self, pool: Pool, limit: float, attempt: Attempt) -> Connection | None:
        """Open a connection; on failure note it in ``attempt`` and return None."""
        self._connecting = self._upstream.loop.create_task(pool.connect(limit))
        try:
            connection = await self._connecting
            if not self._aborted:
                return connection
            connection.abort()  # the caller left when the connection was there, but not yet used
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

    def _may_retry(self, failure: Failure) -> bool:
        return not failure.sent or self._upstream.budget.take(monotonic())

    def _ended(self) -> None:
        """Take the current try out of the replica's books; harmless when it is out already."""
        attempt = self.attempt
        if attempt is None:
            return
        self._upstream.deadlines.forget(attempt)
        load = self.candidate.replica.load
        if self._booked >= 0:
            load.unanswered(self._booked)
        load.ended()
        self.attempt = None

    def _error(self) -> WeirError:
        """Return the error for a walk on which no answer began."""
        last = self.tried[-1]
        failure = last.failure
        metadata = {
            "provider_name": last.candidate.endpoint.provider,
            "attempts": [
                {
                    "provider": tried.candidate.endpoint.provider,
                    "cause": tried.failure.cause,
                    "status": tried.failure.status,
                }
                for tried in self.tried
            ],
        }
        if failure.cause is Cause.REFUSED:
            detail = {**failure.detail}
            kind = detail.pop("error_type", "invalid_request")
            param = detail.pop("param", None)
            return UpstreamFailed(
                failure.message,
                code=failure.status,
                kind=kind,
                metadata={**metadata, "raw": detail},
                param=param if isinstance(param, str) else None,
            )
        causes = {tried.failure.cause for tried in self.tried}
        if Cause.OVERLOADED in causes:
            waits = [tried.failure.retry_after for tried in self.tried if tried.failure.retry_after]
            return Unavailable(
                "every backend of this model is full", metadata=metadata, retry_after=min(waits, default=1.0)
            )
        if causes <= {Cause.CONNECT, Cause.EGRESS}:
            return Unavailable("no backend of this model can be reached", metadata=metadata, retry_after=1.0)
        if failure.cause is Cause.FIRST_BYTE:
            return UpstreamFailed(failure.message, code=504, kind="timeout", metadata=metadata)
        return UpstreamFailed(failure.message, metadata=metadata, quoted=failure.cause is Cause.ERROR)
