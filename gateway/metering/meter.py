"""The meter of one request: told of every attempt and every chunk, it writes the journal and gives the receipt.

It is what the failover walk reports its tries to, and the sink of the attempt that answers. From the event that
finishes the last open choice on, chunks are held back: the caller gets them only once the CLOSE record is durable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.metering.journal import Journal
from gateway.metering.record import Close, Dimensions, Open, Progress, RowKind, Status
from gateway.metering.tap import Tap
from gateway.pricing.charge import charge
from gateway.types.call import Call
from gateway.types.charge import NO_CHARGE, Charge
from gateway.types.chunk import Chunk, TextChunk
from gateway.types.failure import Cause, Failure
from gateway.types.ids import RequestId
from gateway.types.tokens import NO_USAGE, Usage, UsageSource

PROGRESS_TOKENS: Final = 256
"""Deltas after which progress is journalled; at most this many tokens of a killed process go unbilled."""
PROGRESS_SECONDS: Final = 1.0


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What one answered attempt comes to.

    Attributes:
        status: how it ended.
        usage: tokens by class.
        source: where the counts came from.
        charge: what the team pays.
        cost: what the owner pays.
        ttft: seconds from the arrival of the request to its first output, or None.
        generation: seconds from the first output to the last.
        duration: seconds from the arrival of the request to its end.
    """

    status: Status
    usage: Usage
    source: UsageSource
    charge: Charge
    cost: Charge
    ttft: float | None
    generation: float
    duration: float


class Meter:
    """Meters one request (see ``gateway.upstream.attempts.Observer`` for ``opened`` and ``failed``).

    Attributes:
        held: chunks kept back because they finish the answer.
        tap: counts the current attempt.
    """

    __slots__ = (
        "_app",
        "_arrived",
        "_call",
        "_candidate",
        "_deliver",
        "_dims",
        "_first",
        "_journal",
        "_key_id",
        "_last",
        "_loop",
        "_number",
        "_open",
        "_opened_us",
        "_progress_at",
        "_progress_deltas",
        "_request_id",
        "_team",
        "held",
        "tap",
    )

    def __init__(
        self,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        request_id: RequestId,
        call: Call,
        *,
        team: str,
        key_id: str,
        arrived: float,
    ) -> None:
        self._journal = journal
        self._loop = loop
        self._request_id = request_id
        self._call = call
        self._team = team
        self._key_id = key_id
        self._arrived = arrived
        self._deliver: Callable[[list[Chunk]], None] | None = None
        self._candidate: Candidate | None = None
        self._dims: Dimensions | None = None
        self._number = 0
        self._open = False
        self._opened_us = 0
        self._first = 0.0
        self._last = 0.0
        self._progress_at = 0.0
        self._progress_deltas = 0
        self.held: list[Chunk] = []
        self.tap: Tap

    # The walk's observer

    def opened(self, number: int, candidate: Candidate) -> None:
        """Journal that an attempt is about to be made. Raises ``Unavailable`` when it could not be metered."""
        call, endpoint, engine = self._call, candidate.endpoint, candidate.replica.engine
        self._number, self._candidate = number, candidate
        self._dims = Dimensions(
            self._team,
            self._key_id,
            endpoint.model_id,
            endpoint.slug,
            candidate.replica.name,
            endpoint.provider,
            call.app,
            "default",
            call.operation,
            call.model,
            candidate.upstream_model,
            call.user,
            call.stream,
            endpoint.price_id,
            candidate.cost_id,
        )
        self._opened_us = time.time_ns() // 1000
        self._first = self._last = 0.0
        self._progress_deltas = 0
        self.held = []
        self.tap = Tap(
            call.operation,
            call.choices,
            call.prompt_estimate,
            delta_is_token=engine.delta_is_token,
            counts_all_choices=engine.counts_all_choices,
            prompts=call.prompts,
        )
        journal = self._journal
        journal.declare(endpoint.price_id, endpoint.price)
        if candidate.cost is not None:
            journal.declare(candidate.cost_id, candidate.cost)
        journal.append(Open(self._request_id, number, self._dims, self._opened_us, call.prompt_estimate))
        self._open = True

    def failed(self, failure: Failure) -> Usage:
        """Journal that the attempt last opened failed before its caller saw anything of it; nobody waits for the disk.

        Returns:
            The tokens that the engine made all the same; they are the owner's cost.
        """
        if failure.cause is Cause.ABORTED:
            status = Status.CLIENT_CANCEL
        else:
            status = Status.REFUSED if failure.cause is Cause.REFUSED else Status.FAILED
        usage, source = (NO_USAGE, UsageSource.NONE) if self.tap.silent else self.tap.count()
        cost = self._cost(usage)
        self._journal.append(
            self._close(status, usage, source, NO_CHARGE, cost, failure.status, "", failure.cause.value)
        )
        return usage

    # The answer's sink

    def to(self, deliver: Callable[[list[Chunk]], None]) -> Callable[[list[Chunk]], None]:
        """Return the sink for the attempt that answers; chunks that may go on at once go to ``deliver``."""
        self._deliver = deliver
        return self._feed

    def _feed(self, chunks: list[Chunk]) -> None:
        tap, now = self.tap, monotonic()
        if tap.finished:
            for chunk in chunks:
                tap.chunk(chunk)
            self.held.extend(chunks)
            return
        for position, chunk in enumerate(chunks):
            if type(chunk) is TextChunk:
                tap.text(chunk)
            elif tap.chunk(chunk):  # the last open choice has finished
                for later in chunks[position + 1 :]:
                    tap.chunk(later)
                self.held.extend(chunks[position:])
                del chunks[position:]
                break
        if tap.deltas:
            if not self._first:
                self._first = self._progress_at = now
            self._last = now
        if chunks and self._deliver is not None:
            self._deliver(chunks)
        if tap.deltas - self._progress_deltas >= PROGRESS_TOKENS or (
            now - self._progress_at >= PROGRESS_SECONDS and tap.deltas > self._progress_deltas
        ):
            self._progress_deltas, self._progress_at = tap.deltas, now
            usage, source = tap.count()
            self._journal.append(Progress(self._request_id, self._number, usage, source))

    def answered(self, answer: dict[str, Any]) -> None:
        """Count a whole answer."""
        self.tap.answer(answer)
        self._first = self._last = monotonic()

    # The end

    def settle(self, *, gone: bool, failed: bool, http_status: int, upstream_id: str, error: str) -> Receipt:
        """Journal the end of the attempt that answered and return its receipt; await the journal's commit after it.

        Args:
            gone: the caller left before the end.
            failed: the engine failed after output had begun.
            http_status: what the backend answered.
            upstream_id: the engine's own id of the answer.
            error: the cause, when it failed.
        """
        tap, candidate = self.tap, self._candidate
        assert candidate is not None
        usage, source = tap.count()
        status = Status.OK
        if failed or tap.failed:
            status, error = Status.UPSTREAM_ERROR, error or "error"
        elif gone:
            status = Status.CLIENT_CANCEL
        if status is Status.CLIENT_CANCEL and tap.silent and source is not UsageSource.UPSTREAM:
            # The engine was stopped before its first token; what prefill it did is not known.
            usage, source = NO_USAGE, UsageSource.NONE
        pays = status is not Status.UPSTREAM_ERROR and not (status is Status.OK and _empty(tap, usage))
        charged = charge(usage, candidate.endpoint.price) if pays and usage.total else NO_CHARGE
        cost = self._cost(usage)
        record = self._close(status, usage, source, charged, cost, http_status, upstream_id, error)
        self._journal.append(record)
        return Receipt(
            status,
            usage,
            source,
            charged,
            cost,
            self._first - self._arrived if self._first else None,
            self._last - self._first,
            record.duration_us / 1e6,
        )

    def abandon(self) -> Receipt | None:
        """End an attempt that neither failed nor was settled, because the request itself was torn down."""
        if not self._open:
            return None
        return self.settle(gone=True, failed=False, http_status=0, upstream_id="", error="")

    def _cost(self, usage: Usage) -> Charge:
        """Return what ``usage`` costs the owner."""
        rates = self._candidate.cost if self._candidate is not None else None
        return charge(usage, rates) if rates is not None and usage.total else NO_CHARGE

    def _close(
        self,
        status: Status,
        usage: Usage,
        source: UsageSource,
        charged: Charge,
        cost: Charge,
        http_status: int,
        upstream_id: str,
        error: str,
    ) -> Close:
        assert self._dims is not None
        self._open = False
        return Close(
            self._request_id,
            self._number,
            RowKind.USAGE,
            self._dims,
            self._opened_us,
            status,
            self.tap.finish_reason[:64],
            http_status,
            usage,
            source,
            charged,
            cost,
            int((self._first - self._arrived) * 1e6) if self._first else 0,
            int((monotonic() - self._arrived) * 1e6),
            int((self._last - self._first) * 1e6),
            upstream_id[:128],
            error,
        )


def _empty(tap: Tap, usage: Usage) -> bool:
    """Whether an answer is one nobody pays for: no completion and no reason for it (embeddings have a reason)."""
    return usage.completion == 0 and not tap.finish_reason
