"""An engine's event stream, read into canonical chunks: what one read of it says.

Nearly every read is one whole event that is the next piece of a choice's text; ``EventStream.text`` gives that without
a detour. Failure behaviour: nothing here raises; what an engine says against its own rules is a ``Failure`` in what
was heard, behind the chunks that came before it.
"""

from __future__ import annotations

from operator import length_hint
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.engines.kind import Engine
from gateway.types.call import Operation
from gateway.types.chunk import Chunk, TextChunk
from gateway.types.failure import Cause, Failure
from gateway.upstream import halves
from gateway.upstream.call_numbers import CallNumbers
from gateway.upstream.openai import (
    UNREADABLE,
    decode,
    decode_mended,
    decode_text,
    error_event,
    is_error,
    mend_chunk,
)
from gateway.upstream.sse import EventReader, LineTooLong

if TYPE_CHECKING:
    from gateway.upstream.speech import Translator

MAX_PARTIAL: Final = 1024 * 1024
"""Bytes of a document over several ``data:`` lines."""
MOST_LINES: Final = 256
"""Lines of a document over several ``data:`` lines, which is tried to be read with each: nobody sends so many."""
NOT_JSON: Final = Failure(Cause.MALFORMED, "an event of the backend is not JSON", 200)
_TOO_LARGE: Final = Failure(Cause.MALFORMED, "an event of the backend is too large", 200)
_NO_CHUNK: Final = Failure(Cause.MALFORMED, "an event of the backend is not a chunk", 200)


class Heard(NamedTuple):
    """What a read of a stream said.

    Attributes:
        chunks: what is to be passed on.
        failure: what was wrong behind them, or None.
        finished: whether the stream said its end.
    """

    chunks: list[Chunk]
    failure: Failure | None = None
    finished: bool = False


class EventStream(EventReader):
    """Reads the events of one answer, whose status was 200.

    Args:
        engine: who answers.
        operation: what was asked for.
        translator: understands what is not said in the chat form, or None.
    """

    __slots__ = ("_chat", "_engine", "_halves", "_numbers", "_operation", "_partial", "_translator", "_untold")

    def __init__(self, engine: Engine, operation: Operation, translator: Translator | None) -> None:
        super().__init__()
        self._engine = engine
        self._operation = operation
        self._translator = translator
        self._chat = operation is Operation.CHAT and translator is None
        self._untold = self._chat
        self._partial = b""
        self._halves: halves.Halves | None = None
        self._numbers: CallNumbers | None = None

    @property
    def cut(self) -> bool:
        """Whether the last document is not whole."""
        return bool(self._partial)

    @property
    def plain(self) -> bool:
        """Whether what comes next is read by itself, and may be a piece of text."""
        return self._chat and not self._tail and not self.boundaries

    def text(self, data: bytes) -> TextChunk | None:
        """Return the piece of text that ``data`` is; None when it is anything else, which ``read`` understands."""
        if self._chat:
            payload = self.event(data)
            if payload is not None:
                try:
                    return decode_text(payload)
                except UNREADABLE:
                    self._untold = False
        return None

    def read(self, data: bytes) -> Heard | None:
        """Return what ``data``, which ``text`` has not taken, says; None when it is a sign of life and no more."""
        untold, self._untold = self._untold, self._chat
        try:
            payloads = self.feed(data)
        except LineTooLong:
            return Heard([], _TOO_LARGE)
        if not payloads:
            return None
        if self._translator is not None:
            return self._said(self._translator, payloads)
        return self._events(payloads, untold=untold)

    def rest(self) -> Heard:
        """Return what a last line without an end says."""
        payloads = self.close()
        if self._translator is not None:
            return self._said(self._translator, payloads) or Heard([])
        return self._events(payloads, untold=self._chat)

    def _events(self, payloads: list[bytes], *, untold: bool) -> Heard:
        """Decode and mend ``payloads``; ``untold`` is whether they may be pieces of text."""
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
            elif untold:
                try:
                    chunks.append(decode_text(payload))
                    continue
                except UNREADABLE:
                    pass
            chunk = decode(payload)
            if (chunk is None and not self._partial) or self._halves is not None:
                chunk = self._joined(payload, chunk)
                untold = untold and self._halves is None
            if chunk is None:
                if payload == b"null":
                    continue  # llama.cpp begins a stream over several prompts so
                self._partial = payload
                if self.boundaries:
                    continue
                # It may go on in the next data line, but not behind a blank one: from here on these count.
                following = self._events(self.again(length_hint(rest)), untold=self._chat)
                return Heard(chunks + following.chunks, following.failure, following.finished)
            self._partial = b""
            if is_error(chunk):
                failure = error_event(self._engine, chunk)
                break
            if not mend_chunk(chunk, self._operation):
                failure = _NO_CHUNK
                break
            self._number(chunk)
            chunks.append(chunk)
        else:
            self.boundaries = bool(self._partial)
            return Heard(chunks)
        if failure is None and self._partial:
            failure = NOT_JSON
        return Heard(chunks, failure, finished)

    def _joined(self, payload: bytes, chunk: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return ``chunk``, or what ``payload`` is, without half a character; None when it is not even that.

        A stream that has cut one is read in this way to its end: what waits for its other half goes before the rest.
        """
        if chunk is None and not self._partial:
            chunk = halves.read(payload)
        if chunk is None:
            return None
        if self._halves is None:
            self._halves = halves.Halves()
            self._chat = self._untold = False
        return self._halves.join(chunk)

    def _number(self, chunk: dict[str, Any]) -> None:
        """Give the tool calls in ``chunk`` numbers of their own."""
        for choice in chunk["choices"]:
            calls = choice["delta"].get("tool_calls") if "delta" in choice else None
            if calls:
                if self._numbers is None:
                    self._numbers = CallNumbers()
                self._numbers.amend(choice["index"], calls)

    def _said(self, translator: Translator, payloads: list[bytes]) -> Heard | None:
        """Return what events in another dialect say; there every document is on a line of its own."""
        chunks: list[Chunk] = []
        failure: Failure | None = None
        for payload in payloads:
            if not payload or payload == b"[DONE]":
                continue
            document = decode_mended(payload)
            said = translator.event(document) if document is not None else NOT_JSON
            if isinstance(said, Failure):
                failure = said
                break
            chunks += said
            if translator.ended:
                break
        if not chunks and failure is None and not translator.ended:
            return None
        return Heard(chunks, failure, translator.ended)
