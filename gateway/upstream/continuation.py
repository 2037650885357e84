"""Continuation: when a replica breaks a stream its caller has begun to read, another one goes on from there.

The caller sees one unbroken stream. Where it cannot be (docs/continuation.md), ``follow`` returns None and the stream
ends in an honest error. Failure behaviour: whatever goes wrong while another replica is asked is told to breaker and
books as for any attempt, and never hides the failure that the caller is told.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec

from gateway.engines.resume import can_resume, hindrance, resumed_body
from gateway.fleet.snapshot import Candidate
from gateway.telemetry.metrics import GatewayMetrics
from gateway.types.call import Call, Operation
from gateway.types.chunk import Chunk, ListSink, Sink
from gateway.types.dialect import Dialect
from gateway.types.errors import WeirError
from gateway.types.failure import Failure
from gateway.upstream.attempt import Attempt
from gateway.upstream.attempts import Observer, Walk
from gateway.upstream.fold import unfold
from gateway.upstream.seam import Seam, Transcript

MOST: Final = 2
"""Continuations of one request."""


class Outcome(StrEnum):
    """What became of a stream that broke."""

    CONTINUED = "continued"
    """Another replica went on."""
    RESTARTED = "restarted"
    """Another replica began anew: the caller had seen no output yet."""
    EXHAUSTED = "exhausted"
    """It could have been continued, but no replica, no retry or no time was left for it."""
    UNSUPPORTED = "unsupported"
    """This request, this output or this engine cannot be continued."""


class Legs(Observer, Protocol):
    """Who keeps the books of an answer that several attempts give: metering."""

    @property
    def silent(self) -> bool:
        """Whether the current attempt has given no output."""

    def produced(self) -> tuple[int, bool]:
        """Return the completion tokens given so far by all attempts, and whether they were counted exactly."""

    def parted(self, attempt: Attempt, failure: Failure, again: int) -> None:
        """The current attempt broke and another one goes on; ``again`` tokens of it were made once more."""


class Resumption:
    """What a replica needs to go on with a broken answer (see ``gateway.upstream.attempts.Resumption``)."""

    def __init__(self, call: Call, began: Candidate, text: str, reasoning: str, produced: int) -> None:
        self._call = call
        self._began = began
        self._text = text
        self._reasoning = reasoning
        self._produced = produced

    def takes(self, candidate: Candidate) -> bool:
        """Whether ``candidate`` can go on: the same model, behind an engine that can."""
        if candidate.endpoint.model_id != self._began.endpoint.model_id:
            return False
        return can_resume(candidate.replica.engine, self._began.replica.engine, self._call)

    def call(self, candidate: Candidate) -> Call:
        """Return what ``candidate`` is asked."""
        call, produced = self._call, self._produced
        body = resumed_body(candidate.replica.engine, call, self._text, self._reasoning)
        least = body.get("min_tokens")
        if isinstance(least, int):
            body["min_tokens"] = max(0, least - produced)
        limit = None if call.max_tokens is None else max(1, call.max_tokens - produced)
        resumed: Call = msgspec.structs.replace(
            call,
            body=body,
            max_tokens=limit,
            prompt_estimate=call.prompt_estimate + produced,
            dialect=Dialect.CHAT,  # in no other form can an engine be asked to go on
            native=None,
        )
        return resumed


class Continuation:
    """Carries one answer over breaks.

    Attributes:
        count: how often another replica went on.
        to: who sends to the caller, so that it is known what the caller has read.
    """

    __slots__ = ("_attached", "_call", "_legs", "_metrics", "_seam", "_sink", "_transcript", "_walk", "count", "to")

    def __init__(self, walk: Walk, call: Call, legs: Legs, reply: Sink, metrics: GatewayMetrics) -> None:
        self._walk = walk
        self._call = call
        self._legs = legs
        self._metrics = metrics
        self._transcript = Transcript(reply) if call.stream and not hindrance(call) else None
        self._sink: Sink | None = None
        self._seam: Seam | None = None
        self._attached: Attempt | None = None
        self.count = 0
        self.to: Sink = reply if self._transcript is None else self._transcript

    @property
    def attached(self) -> bool:
        """Whether the caller has been sent anything."""
        return self._attached is not None

    @property
    def again(self) -> int:
        """Tokens that the current attempt made once more."""
        return self._seam.again if self._seam is not None else 0

    def attach(self, attempt: Attempt, sink: Sink) -> None:
        """Send what ``attempt`` gives to ``sink``; of a continuation, what is new in it."""
        self._sink, self._attached = sink, attempt
        if self._seam is None:
            attempt.attach(sink)
            return
        attempt.attach(ListSink(self._join))

    async def follow(self, attempt: Attempt, failure: Failure) -> Attempt | None:
        """Return the attempt that follows one that broke, or None when the answer must end as it is.

        Raises:
            WeirError: nobody began the answer anew of which the caller has seen nothing.
            AttemptFailed: the caller left meanwhile.
        """
        if not self._call.stream:
            return await self._restart(failure)
        if not failure.retryable or self._call.choices != 1:
            self._missed(failure, Outcome.UNSUPPORTED)
            return None
        if self._legs.silent and not self.count:
            return await self._restart(failure)
        transcript = self._transcript
        text = transcript.text if transcript is not None else ""
        if not text or transcript is None or transcript.hindrance or self._walk.candidate.replica.engine.resume is None:
            self._missed(failure, Outcome.UNSUPPORTED)
            return None
        produced, exact = self._legs.produced()
        if exact and self._call.max_tokens is not None and produced >= self._call.max_tokens:
            self._finish()
            return None
        if self.count >= MOST or not self._walk.give_up(failure):
            self._missed(failure, Outcome.EXHAUSTED)
            return None
        return await self._go_on(attempt, failure, transcript, text, produced)

    async def _go_on(
        self, attempt: Attempt, failure: Failure, transcript: Transcript, text: str, produced: int
    ) -> Attempt | None:
        """Ask other replicas to go on behind ``text``."""
        if self._legs.silent:
            self._legs.failed(failure)
        else:
            self._legs.parted(attempt, failure, self.again)
        self._walk.go_on(Resumption(self._call, self._walk.candidate, text, transcript.reasoning, produced))
        try:
            following = await self._walk.begin()
        except WeirError:
            self._missed(failure, Outcome.EXHAUSTED)
            return None
        self._stream(following)
        self.count += 1
        self._metrics.continuations.add((Outcome.CONTINUED.value,))
        engine, replica = self._walk.candidate.replica.engine, self._walk.candidate.replica.name
        verbatim = self._call.operation is not Operation.CHAT or (engine.resume is not None and engine.resume.verbatim)
        self._seam = Seam(
            text,
            verbatim=verbatim,
            tokens=produced,
            singly=engine.delta_is_token,
            echoes=self._walk.echoes.get(replica),
        )
        return following

    async def _restart(self, failure: Failure) -> Attempt | None:
        """Begin anew: the caller has seen nothing, or nothing but that an answer began."""
        stream = self._call.stream
        if not self._walk.give_up(failure):
            if stream:
                self._missed(failure, Outcome.EXHAUSTED)
            return None
        endpoint = self._walk.candidate.endpoint
        self._metrics.answer(endpoint.model_id, endpoint.slug, self._legs.failed(failure), None, 0.0)
        following = await self._walk.begin()
        if stream:
            self._stream(following)
            self._metrics.continuations.add((Outcome.RESTARTED.value,))
            self._seam = Seam("", verbatim=True, tokens=0, singly=False, echoes=None)
        return following

    def _stream(self, attempt: Attempt) -> None:
        """Make a stream of a whole answer, which some engines give although a stream was asked for."""
        if attempt.answer is not None:
            attempt.unfold(unfold(attempt.answer, self._call.operation))

    def _join(self, chunks: list[Chunk]) -> None:
        """Take chunks until the seam is clear."""
        seam, attempt, sink = self._seam, self._attached, self._sink
        assert seam is not None
        assert attempt is not None
        assert sink is not None
        chunks = seam.feed(chunks)
        if seam.strayed:
            attempt.reject("the backend did not go on with the answer")
            return
        if seam.clear:
            if seam.echoed is not None:
                self._walk.echoes[self._walk.candidate.replica.name] = seam.echoed
            attempt.redirect(sink)
        if chunks:
            sink.send(chunks)

    def _finish(self) -> None:
        """Say what the broken stream left out: every token that was asked for is there."""
        assert self._sink is not None
        piece: dict[str, Any] = {"delta": {}} if self._call.operation is Operation.CHAT else {"text": ""}
        choice = {"index": 0, **piece, "finish_reason": "length", "native_finish_reason": "length"}
        self._sink.send([{"choices": [choice]}])

    def _missed(self, failure: Failure, outcome: Outcome) -> None:
        if failure.retryable:
            self._metrics.continuations.add((outcome.value,))
