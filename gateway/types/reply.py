"""The caller's side of a request, as the relay sees it: one Protocol for every dialect and every server road."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from gateway.types.chunk import Chunk, Direct, Passed, TextChunk
from gateway.types.errors import WeirError
from gateway.types.ids import RequestId
from gateway.types.tokens import Usage


class Flow(Protocol):
    """What a caller's connection steers upstream."""

    def abort(self) -> None:
        """The caller left."""

    def pause(self) -> None:
        """The caller does not read."""

    def resume(self) -> None:
        """The caller reads again."""


class Bill(msgspec.Struct, frozen=True, gc=False):
    """What the caller is told an answer costs.

    Attributes:
        usage: tokens by class.
        total: nano-USD charged.
        prompt: nano-USD of it for all prompt classes and the request fee.
        completion: nano-USD of it for all completion classes.
        continuations: how often another replica went on with the answer.
        replayed: tokens that were read or made once more for that; in no other count and not charged.
        byok: whether it went with a key of the team's own.
        upstream: nano-USD that the list price of it is, which the team then pays elsewhere.
    """

    usage: Usage
    total: int
    prompt: int
    completion: int
    continuations: int = 0
    replayed: int = 0
    byok: bool = False
    upstream: int = 0


class Reply(Protocol):
    """How one request is answered.

    Attributes:
        request_id: id of the request, also of its answer.
        gone: whether the caller has left.
        arrived: monotonic seconds at which the request was whole.
    """

    request_id: RequestId
    arrived: float

    @property
    def gone(self) -> bool:
        """See the attributes."""

    @property
    def calls_sound(self) -> bool | None:
        """Whether every tool call of the answer sent so far can be run; None when there is none."""

    def steer(self, flow: Flow) -> None:
        """From now on tell ``flow`` when the caller leaves, stops reading or reads again."""

    def route(self, text: str) -> None:
        """Set the ``x-weir-route`` header, and what else is known by then; before ``begin``, ``answer`` or ``fail``."""

    def explain(self, metadata: dict[str, Any]) -> None:
        """Tell the caller how the request was routed, with the end of the answer or with the error that comes next."""

    def begin(self, model: str, provider: str) -> None:
        """Start a stream of answers from ``model`` at ``provider``."""

    def send(self, chunks: list[Chunk]) -> None:
        """Send stream chunks now."""

    def say(self, chunk: TextChunk) -> None:
        """Send a piece of text that came alone: the same as ``send([chunk])``."""

    def direct(self, probe: TextChunk) -> Direct | None:
        """See ``gateway.types.chunk.Sink``; for as long as the caller neither leaves nor stops reading."""

    def passed(self, run: Passed) -> None:
        """See ``gateway.types.chunk.Sink``."""

    def finish(self, chunks: Sequence[Chunk], bill: Bill) -> None:
        """Send the last chunks, usage where it is wanted, and the end of the stream."""

    def answer(self, answer: dict[str, Any], model: str, provider: str, bill: Bill) -> None:
        """Send a whole answer."""

    def fail(self, error: WeirError) -> None:
        """Send an error: as the whole answer, or as the last event of a stream that has begun."""
