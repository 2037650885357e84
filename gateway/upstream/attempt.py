"""One try of one request on one replica.

An attempt *begins* when the first event of a stream, or a whole JSON answer, has come: until then another replica can
take over unnoticed. From then on every read goes, chunk by chunk in canonical form, straight to the sink.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from operator import length_hint
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from gateway.engines.kind import Engine
from gateway.types.call import Operation
from gateway.types.chunk import Chunk, TextChunk
from gateway.types.failure import Cause, Failure
from gateway.upstream.openai import (
    UNREADABLE,
    decode,
    decode_ranking,
    decode_text,
    error_event,
    failure_of,
    is_error,
    mend_answer,
    mend_chunk,
)
from gateway.upstream.sse import EventReader, LineTooLong
from gateway.upstream.wire import Connection

if TYPE_CHECKING:
    from gateway.upstream.speech import Translator

Sink = Callable[[list[Chunk]], None]

MAX_ANSWER: Final = 128 * 1024 * 1024
MAX_ERROR: Final = 64 * 1024
MAX_PARTIAL: Final = 1024 * 1024
_NOT_JSON: Final = Failure(Cause.MALFORMED, "an event of the backend is not JSON", 200)
MOST_LINES: Final = 256
"""Lines of a document over several ``data:`` lines, which is tried to be read with each: nobody sends so many."""


class Attempt:
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
        answer: the whole answer, when it was JSON.
        failure: why it failed, or None.
        began_at: monotonic seconds of the first event or the whole answer; 0 before.
        last_at: monotonic seconds of the last event.
        ended_at: monotonic seconds at which it was over; 0 before.
        upstream_id: the engine's own id of the answer.
        chunks: how many chunks came.
    """

    __slots__ = (
        "_begun",
        "_body",
        "_chat",
        "_connection",
        "_done",
        "_engine",
        "_error_body",
        "_headers",
        "_idle",
        "_loop",
        "_operation",
        "_partial",
        "_pending",
        "_reader",
        "_sink",
        "_size",
        "_strict",
        "_translator",
        "answer",
        "began_at",
        "chunks",
        "deadline",
        "ended_at",
        "failure",
        "last_at",
        "status",
        "upstream_id",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        operation: Operation,
        *,
        first_byte: float,
        idle: float,
        strict: bool = False,
        translator: Translator | None = None,
    ) -> None:
        self._loop = loop
        self._engine = engine
        self._operation = operation
        self._chat = operation is Operation.CHAT and translator is None
        self._translator = translator
        self._idle = idle
        self._strict = strict
        self._begun: asyncio.Future[None] = loop.create_future()
        self._done: asyncio.Future[None] | None = None
        self._connection: Connection | None = None
        self._reader: EventReader | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._error_body = False
        self._partial = b""
        self._pending: list[Chunk] = []
        self._sink: Sink | None = None
        self.deadline = monotonic() + first_byte
        self.status = 0
        self.answer: dict[str, Any] | None = None
        self.failure: Failure | None = None
        self.began_at = 0.0
        self.last_at = 0.0
        self.ended_at = 0.0
        self.upstream_id = ""
        self.chunks = 0

    # What the walk and the relay do with it

    def start(self, connection: Connection, request: bytes) -> None:
        """Send the request."""
        self._connection = connection
        connection.send(request, self)

    async def begun(self) -> None:
        """Wait until the attempt has begun or failed; look at ``failure``."""
        await self._begun

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
        pending, self._pending = self._pending, []
        if pending:
            sink(pending)

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

    def pause(self) -> None:
        """Stop reading from the backend; while it is not read it cannot be idle."""
        if self._connection is not None:
            self.deadline = math.inf
            self._connection.pause()

    def resume(self) -> None:
        """Read again."""
        if self._connection is not None:
            self.deadline = monotonic() + self._idle
            self._connection.resume()

    @property
    def over(self) -> bool:
        """Whether no more will come."""
        return self._connection is None

    # Deadlines

    def expire(self) -> None:
        """The first-byte or the idle limit has struck."""
        if self._begun.done():
            self._fail(Failure(Cause.IDLE, f"the backend sent nothing for {self._idle:g} s", self.status))
        else:
            self._fail(Failure(Cause.FIRST_BYTE, "the backend did not begin its answer in time", self.status))

    # Receiver

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the answer, names in lower case; none before they came."""
        return self._headers

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Decide by status and content type how the body is read."""
        self.status = status
        self._headers = headers
        if status != 200:
            self._error_body = True
            return
        for name, value in headers:
            if name == b"content-type" and value[:17].lower() == b"text/event-stream":
                self._reader = EventReader()
                return

    def data(self, data: bytes) -> None:
        """Take the body bytes of one read."""
        self._size += len(data)
        if self._size > MAX_ANSWER:
            self._fail(Failure(Cause.MALFORMED, "the backend's answer is too large", self.status))
            return
        if self._reader is not None:
            try:
                payloads = self._reader.feed(data)
            except LineTooLong:
                self._fail(Failure(Cause.MALFORMED, "an event of the backend is too large", self.status))
                return
            if len(payloads) == 1 and self._chat and not self._partial:
                try:
                    text = decode_text(payloads[0])
                except UNREADABLE:
                    self._events(payloads)
                else:
                    self._deliver([text])
                return
            if payloads:
                if self._translator is not None:
                    self._said(self._translator, payloads)
                else:
                    self._events(payloads)
            elif self.began_at and not self._strict:
                self.deadline = monotonic() + self._idle  # a comment: the backend is alive
            return
        if self._error_body and self._size > MAX_ERROR:
            return
        self._body.append(data)

    def end(self) -> None:
        """The message is complete."""
        if self._error_body:
            self._fail(failure_of(self._engine, self.status, self._headers, b"".join(self._body)), broken=False)
        elif self._reader is not None:
            payloads = self._reader.close()
            if self._translator is not None:
                self._said(self._translator, payloads)
            else:
                self._events(payloads)
            if self._partial:
                self._fail(Failure(Cause.MALFORMED, "an event of the backend is not JSON", self.status), broken=False)
            elif self._connection is not None:
                self._finish()
        else:
            read = decode_ranking if self._operation is Operation.RERANK else decode
            self._whole(read(b"".join(self._body)))

    def lost(self, failure: Failure) -> None:
        """The connection broke."""
        self._fail(failure)

    # Internals

    def _events(self, payloads: list[bytes]) -> None:
        """Decode payloads, mend them, and pass them on in one call."""
        reader = self._reader
        assert reader is not None
        chunks: list[Chunk] = []
        failure: Failure | None = None
        finished = False
        rest = iter(payloads)
        for payload in rest:
            if payload == b"[DONE]":
                finished = True
                break
            if self._partial or not payload:
                if not self._partial:
                    continue
                if not payload or len(self._partial) > MAX_PARTIAL or self._partial.count(b"\n") > MOST_LINES:
                    break
                payload = self._partial + b"\n" + payload  # noqa: PLW2901 - a document over several data lines
            text = self._text(payload)
            if text is not None:
                chunks.append(text)
                continue
            chunk = decode(payload)
            if chunk is None:
                if payload == b"null":
                    continue  # llama.cpp begins a stream over several prompts so
                self._partial = payload
                if reader.boundaries:
                    continue
                # It may go on in the next data line, but not behind a blank one: from here on these count.
                self._conclude(chunks, None, finished=False)
                if self._connection is not None:
                    self._events(reader.again(length_hint(rest)))
                return
            self._partial = b""
            if is_error(chunk):
                failure = error_event(self._engine, chunk)
                break
            if not mend_chunk(chunk, self._operation):
                failure = Failure(Cause.MALFORMED, "an event of the backend is not a chunk", self.status)
                break
            chunks.append(chunk)
        else:
            reader.boundaries = bool(self._partial)
            self._conclude(chunks, None, finished=False)
            return
        if failure is None and self._partial:
            failure = Failure(Cause.MALFORMED, "an event of the backend is not JSON", self.status)
        self._conclude(chunks, failure, finished=finished)

    def _said(self, translator: Translator, payloads: list[bytes]) -> None:
        """Pass on what events in another dialect say, in one call; there every document is on a line of its own."""
        chunks: list[Chunk] = []
        failure: Failure | None = None
        for payload in payloads:
            if not payload or payload == b"[DONE]":
                continue
            document = decode(payload)
            said = translator.event(document) if document is not None else _NOT_JSON
            if isinstance(said, Failure):
                failure = said
                break
            chunks += said
            if translator.ended:
                break
        if not chunks and self.began_at and not self._strict:
            self.deadline = monotonic() + self._idle  # an event that says nothing: the backend is alive
        self._conclude(chunks, failure, finished=translator.ended)

    def _text(self, payload: bytes) -> TextChunk | None:
        """Return the chunk in ``payload`` when it is nothing but a piece of text."""
        if self._chat and not self._partial:
            with suppress(*UNREADABLE):
                return decode_text(payload)
        return None

    def _conclude(self, chunks: list[Chunk], failure: Failure | None, *, finished: bool) -> None:
        """Pass on what one read gave, then end the attempt if it gave its end."""
        if chunks:
            self._deliver(chunks)
        if failure is not None:
            self._fail(failure)
        elif finished and self._connection is not None:
            self._finish()

    def _finish(self) -> None:
        """The stream has come to its end; one without a single event is no answer."""
        if self.began_at:
            self._close(None)
        else:
            self._fail(Failure(Cause.CUT, "the backend ended its answer before it began", self.status), broken=False)

    def _deliver(self, chunks: list[Chunk]) -> None:
        self.last_at = now = monotonic()
        self.deadline = now + self._idle
        self.chunks += len(chunks)
        if not self.began_at:
            self.began_at = now
            first = chunks[0]
            identity = first.id if type(first) is TextChunk else first.get("id")
            self.upstream_id = identity if isinstance(identity, str) else ""
        if self._sink is not None:
            try:
                self._sink(chunks)
            except RecursionError:  # read at the deepest level there is, and too deep to be written again
                self._fail(Failure(Cause.MALFORMED, "an event of the backend is nested too deeply", self.status))
            return
        self._pending.extend(chunks)
        if not self._begun.done():
            self._begun.set_result(None)

    def _whole(self, answer: dict[str, Any] | None) -> None:
        """Take a JSON answer."""
        if answer is None:
            self._fail(Failure(Cause.MALFORMED, "the backend's answer is not JSON", self.status), broken=False)
        elif self._translator is not None:
            said = self._translator.answer(answer)
            if isinstance(said, Failure):
                self._fail(said, broken=False)
            else:
                self._take(said)
        elif is_error(answer):
            self._fail(error_event(self._engine, answer), broken=False)
        elif not mend_answer(answer, self._operation):
            self._fail(Failure(Cause.MALFORMED, "the backend's answer has the wrong shape", 200), broken=False)
        else:
            self._take(answer)

    def _take(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.began_at = monotonic()
        identity = answer.get("id")
        self.upstream_id = identity if isinstance(identity, str) else ""
        self._close(None)

    def _fail(self, failure: Failure, *, broken: bool = True) -> None:
        if self.ended_at:
            return
        self.failure = failure
        self._close(failure if broken else None)

    def _close(self, broken: Failure | None) -> None:
        """Let go of the connection and wake whoever waits."""
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
