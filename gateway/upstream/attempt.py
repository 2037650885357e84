"""One try of one request on one replica.

An attempt *begins* when the first event of a stream, or a whole JSON answer, has come: until then another replica can
take over unnoticed. From then on every read goes, chunk by chunk in canonical form, straight to the sink.
"""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from gateway.engines.kind import Engine
from gateway.types.call import Operation
from gateway.types.chunk import Chunk, Sink, TextChunk
from gateway.types.failure import Cause, Failure
from gateway.upstream.event_stream import NOT_JSON, EventStream, Heard
from gateway.upstream.fast_path import entered
from gateway.upstream.openai import failure_of
from gateway.upstream.reading import Reading
from gateway.upstream.whole_answer import whole_answer
from gateway.upstream.wire import Connection

if TYPE_CHECKING:
    from gateway.upstream.speech import Translator


MAX_ANSWER: Final = 128 * 1024 * 1024
ALIKE: Final = 2
"""Pieces of text that came one by one, after which those that follow may take the fast path; four times as many when
it could not begin there, or nothing followed that was alike."""
MAX_ERROR: Final = 64 * 1024
"""Bytes of an error that are read; no engine has more to say."""
ERROR_TIME: Final = 5.0
"""Seconds an error may take once its status has come: the request waits for another replica meanwhile."""
HOLD: Final = 64 * 1024
"""Bytes of a stream that wait for its sink; the backend is not read beyond them. One read can be 256 KiB, and a loop
takes 32 of them in a row before it wakes the task that attaches."""
_TOO_MUCH: Final = Failure(Cause.MALFORMED, "the backend's answer is too large", 200)
_TOO_DEEP: Final = Failure(Cause.MALFORMED, "an event of the backend is nested too deeply", 200)


class Attempt(Reading):
    """Receives one upstream response (see ``gateway.upstream.wire.Receiver``).

    Args:
        loop: the event loop.
        engine: who answers.
        operation: what was asked for.
        first_byte: seconds to the first event or the whole answer.
        idle: seconds between two reads of an answer.
        strict: ``idle`` is between two chunks of it, and a sign of life does not do.
        translator: understands what is not said in the chat form, or None.

    Attributes:
        deadline: monotonic seconds at which the current limit strikes.
        status: HTTP status, 0 before the head.
        headers: of the answer, names in lower case; none before they came.
        answer: the whole answer, when it was JSON.
        failure: why it failed, or None.
        began_at: monotonic seconds of the first event or the whole answer; 0 before.
        ended_at: monotonic seconds at which it was over; 0 before.
        upstream_id: the engine's own id of the answer.
    """

    __slots__ = (
        "_alike",
        "_begins_at",
        "_body",
        "_chunks",
        "_done",
        "_engine",
        "_events",
        "_last_at",
        "_loop",
        "_operation",
        "_pending",
        "_sink",
        "_size",
        "_strict",
        "_translator",
        "answer",
        "began_at",
        "ended_at",
        "failure",
        "headers",
        "status",
        "upstream_id",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        operation: Operation,
        first_byte: float,
        idle: float,
        strict: bool = False,
        translator: Translator | None = None,
    ) -> None:
        super().__init__(loop, first_byte, idle)
        self._loop = loop
        self._engine = engine
        self._operation = operation
        self._translator = translator
        self._strict = strict
        self._done: asyncio.Future[None] | None = None
        self._events: EventStream | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._pending: list[Chunk] | None = None
        self._sink: Sink | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.answer: dict[str, Any] | None = None
        self.failure: Failure | None = None
        self.began_at = self.ended_at = 0.0
        self.upstream_id = ""
        self._last_at = 0.0
        self._chunks = self._alike = 0
        self._begins_at = ALIKE

    # What the walk and the relay do with it

    def start(self, connection: Connection, request: bytes) -> None:
        """Send the request."""
        self._connection = connection
        connection.send(request, self)

    async def done(self) -> None:
        """Wait until the answer is over, well or badly; look at ``failure``."""
        if self._done is None:
            self._done = self._loop.create_future()
            if self._connection is None:
                self._done.set_result(None)
        await self._done

    def attach(self, sink: Sink) -> None:
        """Send everything that came so far, and all that comes, to ``sink``."""
        self._sink = sink
        pending, self._pending = self._pending, None
        if pending:
            sink.send(pending)
        self.release()

    def redirect(self, sink: Sink) -> None:
        """Send all that comes from now on to ``sink``."""
        self._sink = sink

    def unfold(self, chunks: list[Chunk]) -> None:
        """Take a whole answer as the ``chunks`` of a stream that says the same."""
        self.answer = None
        self._pending = chunks

    def reject(self, message: str) -> None:
        """Fail an attempt whose answer is not what was asked for."""
        self._fail(Failure(Cause.MALFORMED, message, self.status))

    def abort(self) -> None:
        """Give up: close the upstream socket at once."""
        self._fail(Failure(Cause.ABORTED, "the caller left"))

    @property
    def chunks(self) -> int:
        """How many chunks came."""
        if self._fast is not None:
            self._fast.tell()
        return self._chunks

    @property
    def last_at(self) -> float:
        """Monotonic seconds of the last event; 0 before the first."""
        if self._fast is not None:
            self._fast.tell()
        return self._last_at

    # The fast path

    def passed(self, count: int, size: int, last: float) -> None:
        """See ``gateway.upstream.fast_path.Passing``."""
        self._chunks += count
        self._last_at = last
        if self.deadline < math.inf:
            self.deadline = last + self._idle
        self._size += size
        if self._size > MAX_ANSWER:
            self._fail(_TOO_MUCH)

    def slowed(self, *, fruitful: bool) -> None:
        """See ``gateway.upstream.fast_path.Passing``."""
        self._fast = None
        self._alike, self._begins_at = 0, ALIKE if fruitful else 4 * self._begins_at

    @property
    def plain(self) -> bool:
        """See ``gateway.upstream.fast_path.Passing``."""
        return self._events is not None and self._events.plain

    def _enter(self, read: bytes, event: bytes) -> None:
        """Take the fast path from here on, where there is one."""
        if self._connection is not None and self._sink is not None:
            self._fast = entered(self, self._connection, self._sink, read, event)
        if self._fast is None:
            self._begins_at *= 4

    # Deadlines

    def expire(self) -> None:
        """The first-byte or the idle limit has struck."""
        if self._fast is not None:
            self._fast.tell()
            if self._connection is not None and self.deadline >= monotonic():
                self._connection.deadlines.watch(self)  # pieces came since it was last told
                return
        if self._begun.done():
            self._fail(Failure(Cause.IDLE, f"the backend sent nothing for {self._idle:g} s", self.status))
        elif self.status in {0, 200}:
            self._fail(Failure(Cause.FIRST_BYTE, "the backend did not begin its answer in time", self.status))
        else:
            self._refused(broken=True)

    # Receiver

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Decide by status and content type how the body is read."""
        self.status = status
        self.headers = headers
        if status != 200:
            self.deadline = min(self.deadline, monotonic() + ERROR_TIME)
            return
        for name, value in headers:
            if name == b"content-type" and value[:17].lower() == b"text/event-stream":
                self._events = EventStream(self._engine, self._operation, self._translator)
                return

    def data(self, data: bytes) -> None:
        """Take the body bytes of one read."""
        self._size = size = self._size + len(data)
        if size > MAX_ANSWER:
            self._fail(_TOO_MUCH)
            return
        events = self._events
        if events is None:
            self._body.append(data)
            if size > MAX_ERROR and self.status != 200:
                self._refused(broken=True)
            return
        text = events.text(data)
        if text is None:
            heard = events.read(data)
            if heard is not None:
                self._hear(heard)
            elif self.began_at and not self._strict:
                self.deadline = monotonic() + self._idle  # nothing is said, but the backend is alive
            return
        sink = self._sink
        if sink is None or not self.began_at:
            self._deliver([text])
            return
        self._last_at = now = monotonic()
        self.deadline = now + self._idle
        self._chunks += 1
        sink.say(text)
        self._alike += 1
        if self._alike == self._begins_at and self._connection is not None:
            self._connection.on_piece = self._enter

    def end(self) -> None:
        """The message is complete."""
        events = self._events
        if events is not None:
            self._hear(events.rest())
            if events.cut:
                self._fail(NOT_JSON, broken=False)
            elif self._connection is not None:
                self._finish()
            return
        if self.status != 200:
            self._refused(broken=False)
            return
        body = self._body
        whole = body[0] if len(body) == 1 else b"".join(body)
        answer = whole_answer(whole, self._engine, self._operation, self._translator)
        if isinstance(answer, Failure):
            self._fail(answer, broken=False)
        else:
            self._take(answer)

    def lost(self, failure: Failure) -> None:
        """The connection broke; of an error the status was said before that."""
        if self.status in {0, 200}:
            self._fail(failure)
        else:
            self._refused(broken=True)

    # Internals

    def _refused(self, *, broken: bool) -> None:
        """Fail with the error that came, or as much of it as is read; ``broken`` when there is more of it."""
        body = b"".join(self._body)
        self._fail(failure_of(self._engine, self.status, self.headers, body, self._operation), broken=broken)

    def _hear(self, heard: Heard) -> None:
        """Pass on what one read gave, then end the attempt if it gave its end."""
        if heard.chunks:
            self._deliver(heard.chunks)
        if heard.failure is not None:
            self._fail(heard.failure)
        elif heard.finished and self._connection is not None:
            self._finish()

    def _finish(self) -> None:
        """The stream has come to its end; one without a single event is no answer."""
        if self.began_at:
            self._close(None)
        else:
            self._fail(Failure(Cause.CUT, "the backend ended its answer before it began", self.status), broken=False)

    def _deliver(self, chunks: list[Chunk]) -> None:
        self._last_at = now = monotonic()
        self.deadline = now + self._idle
        self._chunks += len(chunks)
        if not self.began_at:
            self.began_at = now
            first = chunks[0]
            identity = first.id if type(first) is TextChunk else first.get("id")
            self.upstream_id = identity if isinstance(identity, str) else ""
        if self._sink is not None:
            try:
                self._sink.send(chunks)
            except RecursionError:  # read at the deepest level there is, and too deep to be written again
                self._fail(_TOO_DEEP)
            return
        if self._pending is None:
            self._pending = chunks
        else:
            self._pending += chunks
        if self._size > HOLD:
            self.hold()
        if not self._begun.done():
            self._begun.set_result(None)

    def _take(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        identity = answer.get("id")
        self.upstream_id = identity if isinstance(identity, str) else ""
        self._close(None)
        self.began_at = self.ended_at

    def _fail(self, failure: Failure, *, broken: bool = True) -> None:
        if self.ended_at:
            return
        self.failure = failure
        self._close(failure if broken else None)

    def _close(self, broken: Failure | None) -> None:
        """Let go of the connection and wake whoever waits."""
        if self._fast is not None:
            self._fast.leave()
        connection, self._connection = self._connection, None
        self.ended_at = monotonic()
        if connection is not None:
            if broken is not None:
                connection.abort()
            else:
                connection.detach()
        if not self._begun.done():
            self._begun.set_result(None)
        if self._done is not None and not self._done.done():
            self._done.set_result(None)
