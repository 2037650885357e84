"""A reply that notes the answer it passes on, in canonical form.

Noting never fails a request: an answer over the limit is passed on and not noted any further.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import msgspec

from gateway.edge.reply import CallerReply, OpeningReply
from gateway.types.call import Call
from gateway.types.chunk import Chunk, Passed, TextChunk
from gateway.types.errors import WeirError
from gateway.types.ids import RequestId
from gateway.types.reply import Bill, Flow

_encode: Final = msgspec.json.Encoder().encode
_decode_text: Final = msgspec.json.Decoder(TextChunk).decode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """An answer in canonical form.

    Attributes:
        model, provider: who gave it.
        streamed: whether it came in chunks.
        parts: JSON of each chunk and whether it is a text chunk; or of the whole answer.
    """

    model: str
    provider: str
    streamed: bool
    parts: tuple[tuple[bool, bytes], ...]

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks anew, or the whole answer."""
        for text, part in self.parts:
            yield _decode_text(part) if text else _decode(part)


class Witness:
    """Passes everything on to ``reply`` and notes the answer; see ``gateway.types.reply.Reply``.

    Args:
        reply: that of the dialect.
        limit: bytes that are noted at most.

    Attributes:
        call: what is answered.
        whole: whether the answer was given to its end.
        over: whether it was larger than the limit.
        error: what the caller was told in place of an answer, or of its end.
    """

    __slots__ = (
        *("_left", "_model", "_parts", "_provider", "_reply", "_streamed"),
        *("arrived", "call", "error", "over", "request_id", "whole"),
    )

    def __init__(self, reply: CallerReply, limit: int) -> None:
        self._reply = reply
        self._left = limit
        self._model = ""
        self._provider = ""
        self._streamed = False
        self._parts: list[tuple[bool, bytes]] = []
        self.call: Call = reply.call
        self.request_id: RequestId = reply.request_id
        self.arrived: float = reply.arrived
        self.whole = False
        self.over = False
        self.error: WeirError | None = None

    @property
    def seen(self) -> Seen:
        """What was noted so far."""
        return Seen(self._model, self._provider, self._streamed, tuple(self._parts))

    @property
    def size(self) -> int:
        """Bytes that were noted."""
        return sum(len(part) for _, part in self._parts)

    # Reply

    @property
    def gone(self) -> bool:
        """See ``Reply``."""
        return self._reply.gone

    @property
    def calls_sound(self) -> bool | None:
        """See ``Reply``."""
        return self._reply.calls_sound

    @property
    def comfort(self) -> bytes:
        """See ``OpeningReply``."""
        return cast("OpeningReply", self._reply).comfort

    def steer(self, flow: Flow) -> None:
        """See ``Reply``."""
        self._reply.steer(flow)

    def route(self, text: str) -> None:
        """See ``Reply``."""
        self._reply.route(text)

    def explain(self, metadata: dict[str, Any]) -> None:
        """See ``Reply``."""
        self._reply.explain(metadata)

    def open(self) -> None:
        """Begin the response before there is anything to say; only of replies that can, see ``Inference.comfort``."""
        cast("OpeningReply", self._reply).open()

    def begin(self, model: str, provider: str) -> None:
        """See ``Reply``."""
        self._model, self._provider, self._streamed = model, provider, True
        self._reply.begin(model, provider)

    def send(self, chunks: list[Chunk]) -> None:
        """See ``Reply``."""
        self._note(chunks)
        self._reply.send(chunks)

    def say(self, chunk: TextChunk) -> None:
        """See ``Reply``."""
        self.send([chunk])

    def direct(self, probe: TextChunk) -> None:
        """See ``Reply``: every piece is noted."""

    def passed(self, run: Passed) -> None:
        """See ``Reply``."""

    def finish(self, chunks: Sequence[Chunk], bill: Bill) -> None:
        """See ``Reply``."""
        self._note(chunks)
        self.whole = True
        self._reply.finish(chunks, bill)

    def answer(self, answer: dict[str, Any], model: str, provider: str, bill: Bill) -> None:
        """See ``Reply``."""
        self._model, self._provider = model, provider
        self._note((answer,))
        self.whole = True
        self._reply.answer(answer, model, provider, bill)

    def fail(self, error: WeirError) -> None:
        """See ``Reply``."""
        self.error = error
        self._reply.fail(error)

    def _note(self, chunks: Sequence[Chunk]) -> None:
        """Note chunks before the reply, which changes them, has them."""
        if self.over:
            return
        for chunk in chunks:
            part = _encode(chunk)
            self._left -= len(part)
            self._parts.append((type(chunk) is TextChunk, part))
        if self._left < 0:
            self.over = True
            self._parts.clear()
