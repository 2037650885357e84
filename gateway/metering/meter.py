"""The meter of one request: told of every attempt and every chunk, it writes the journal and gives the receipt.

It is what the failover walk reports its tries to, and the sink of the attempt that answers. From the event that
finishes the last open choice on, chunks are held back: the caller gets them only once the CLOSE record is durable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, Protocol

from gateway.fleet.snapshot import Candidate
from gateway.metering.ceiling import capped
from gateway.metering.journal import Journal
from gateway.metering.legs import Leg, at_served_tier, cost, price, share, shares
from gateway.metering.receipt import Receipt, summed
from gateway.metering.record import Close, Dimensions, Open, Progress, RowKind, Status
from gateway.metering.tap import Tap
from gateway.pricing.charge import NOTHING, payable
from gateway.types.budgets import Paid
from gateway.types.call import Call
from gateway.types.charge import NO_CHARGE, Charge
from gateway.types.chunk import Chunk, TextChunk
from gateway.types.failure import Cause, Failure
from gateway.types.ids import RequestId
from gateway.types.money import DEFAULT_TIER
from gateway.types.tokens import NO_USAGE, Usage, UsageSource

PROGRESS_TOKENS: Final = 256
"""Deltas after which progress is journalled; at most this many tokens of a killed process go unbilled."""
PROGRESS_SECONDS: Final = 1.0
MOST_HELD: Final = 64
"""Chunks kept behind the end of the last choice: an engine has its usage to say there, and nothing else."""


class Answering(Protocol):
    """An attempt that has begun to answer: the backend's HTTP status, and the engine's own id of the answer."""

    status: int
    upstream_id: str


class Meter:
    """Meters one request (see ``gateway.upstream.attempts.Observer`` for ``opened`` and ``failed``).

    Attributes:
        held: chunks kept back because they finish the answer.
        tap: counts the current attempt.
        reserved: the most that the team may be charged, nano-USD, or None when no budget bounds it.
        paid: what the team was charged, by model.
        excess: nano-USD that the answer came to beyond ``reserved``; the owner's.
    """

    __slots__ = (
        "_app",
        "_arrived",
        "_beside",
        "_call",
        "_candidate",
        "_deliver",
        "_dims",
        "_first",
        "_journal",
        "_key_id",
        "_last",
        "_legs",
        "_loop",
        "_number",
        "_open",
        "_opened_us",
        "_progress_at",
        "_progress_deltas",
        "_request_id",
        "_team",
        "excess",
        "held",
        "paid",
        "reserved",
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
        self._legs: list[Leg] = []
        self._beside: Leg | None = None
        self._first = 0.0
        self._last = 0.0
        self._progress_at = 0.0
        self._progress_deltas = 0
        self.held: list[Chunk] = []
        self.reserved: int | None = None
        self.paid: Paid = ()
        self.excess = 0
        self.tap: Tap

    # The walk's observer

    def opened(self, number: int, candidate: Candidate) -> None:
        """Journal that an attempt is about to be made. Raises ``Unavailable`` when it could not be metered.

        Another one that is still open is kept beside it until one of the two has failed.
        """
        if self._open:
            self._beside = self._leg(0, "", "")
        call, endpoint, engine = self._call, candidate.endpoint, candidate.replica.engine
        self._number, self._candidate = number, candidate
        rates, price_id = endpoint.price, endpoint.price_id
        if endpoint.team_prices:
            rates, price_id = endpoint.sold_to(self._team)
        self._dims = Dimensions(
            self._team,
            self._key_id,
            endpoint.model_id,
            endpoint.slug,
            candidate.replica.name,
            endpoint.provider,
            call.app,
            call.service_tier if call.service_tier and endpoint.sells(call.service_tier) else DEFAULT_TIER,
            call.operation,
            call.model,
            candidate.upstream_model,
            call.user,
            call.stream,
            price_id,
            candidate.cost_id,
        )
        self._opened_us = time.time_ns() // 1000
        self._first = self._last = 0.0
        self._progress_deltas = 0
        self.held = []
        self.tap = Tap(
            call.operation,
            call.choices,
            call.prompt_estimate + (self.produced()[0] if self._legs else 0),
            delta_is_token=engine.delta_is_token,
            counts_all_choices=engine.counts_all_choices,
            prompts=call.prompts,
            context=endpoint.context_length,
            longest=call.max_tokens,
        )
        journal = self._journal
        journal.declare(price_id, rates)
        if candidate.cost is not None:
            journal.declare(candidate.cost_id, candidate.cost)
        journal.append(Open(self._request_id, number, self._dims, self._opened_us, call.prompt_estimate, self.reserved))
        self._open = True

    def turn(self, number: int) -> None:
        """Of two open attempts, go on with ``number``."""
        beside = self._beside
        if beside is not None and beside.number == number:
            self._beside = self._leg(0, "", "")
            self._take(beside)

    def failed(self, failure: Failure) -> Usage:
        """Journal that the current attempt failed before its caller saw anything of it; nobody waits for the disk.

        Returns:
            The tokens that the engine made all the same; they are the owner's cost.
        """
        if failure.cause is Cause.ABORTED and not self._legs:
            status = Status.CLIENT_CANCEL
        else:
            status = Status.REFUSED if failure.cause is Cause.REFUSED else Status.FAILED
        usage, source = (NO_USAGE, UsageSource.NONE) if self.tap.silent else self.tap.count()
        leg = self._leg(failure.status, "", failure.cause.value)
        self._open = False
        self._journal.append(
            self._close(leg, status, usage, source, NO_CHARGE, cost(leg.candidate, usage, leg.dims.tier))
        )
        if self._beside is not None:
            self._take(self._beside)
            self._beside = None
        return usage

    # An answer that several attempts give (see ``gateway.upstream.continuation.Legs``)

    @property
    def silent(self) -> bool:
        """Whether the current attempt has given no output."""
        return self.tap.silent

    def produced(self) -> tuple[int, bool]:
        """Return the completion tokens given so far by all attempts, and whether they were counted exactly."""
        taps = [(leg.tap, leg.again) for leg in self._legs]
        if self._open:
            taps.append((self.tap, 0))
        counts = [(*tap.count(), again) for tap, again in taps]
        exact = all(source is not UsageSource.ESTIMATED for _, source, _ in counts)
        return sum(max(0, usage.completion - again) for usage, _, again in counts), exact

    def parted(self, attempt: Answering, failure: Failure, again: int) -> None:
        """Keep the attempt last opened as part of the answer: it broke, and another one goes on.

        Its end is journalled with that of the answer, which decides who pays; until then its progress stands for it.

        Args:
            attempt: what broke.
            failure: why.
            again: tokens of it that were made once more and are no part of the answer.
        """
        self._legs.append(self._leg(attempt.status, attempt.upstream_id, failure.cause.value, again))
        self._progress()
        self._open = False

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
            self.held.extend(chunks[: max(0, MOST_HELD - len(self.held))])
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
            self._progress()

    def answered(self, answer: dict[str, Any]) -> None:
        """Count a whole answer."""
        self.tap.answer(answer)
        self._first = self._last = monotonic()

    # The end

    def settle(
        self, *, gone: bool, failed: bool, http_status: int, upstream_id: str, error: str, again: int = 0
    ) -> Receipt:
        """Journal the end of the answer and return its receipt; await the journal's commit after it.

        Args:
            gone: the caller left before the end.
            failed: the engine failed after output had begun, and no other one went on.
            http_status: what the backend answered.
            upstream_id: the engine's own id of the answer.
            error: the cause, when it failed.
            again: tokens of the last attempt that were made once more and are no part of the answer.
        """
        if not self._open and self._legs:
            self._take(self._legs.pop())
        status = Status.OK
        if failed or self.tap.failed:
            status, error = Status.UPSTREAM_ERROR, error or "error"
        elif gone:
            status = Status.CLIENT_CANCEL
        last = self._leg(http_status, upstream_id, error, again)
        self._open = False
        if not self._legs:
            return self._settle_one(last, status)
        return self._settle_all([*self._legs, last], status)

    def _settle_one(self, leg: Leg, status: Status) -> Receipt:
        """Journal the end of an answer that one attempt gave."""
        tap, candidate = leg.tap, leg.candidate
        usage, source = tap.count()
        stopped = status is Status.CLIENT_CANCEL or not leg.http_status
        if stopped and tap.silent and source is not UsageSource.UPSTREAM:
            # The engine was stopped before its first token; what prefill it did is not known.
            usage, source = NO_USAGE, UsageSource.NONE
        pays = status is not Status.UPSTREAM_ERROR and not (status is Status.OK and _empty(tap, usage))
        if tap.tier:
            leg = at_served_tier(leg, usage)
        paid, discount = payable(usage, price(leg), leg.dims.tier) if pays else NOTHING
        if self.reserved is not None:
            paid, discount = self._bounded(leg, paid, discount)
        spent = cost(candidate, usage, tap.tier or leg.dims.tier)
        record = self._close(leg, status, usage, source, paid, spent, discount=discount)
        self._journal.append(record)
        return Receipt(
            status,
            usage,
            source,
            paid,
            record.cost,
            leg.first - self._arrived if leg.first else None,
            leg.last - leg.first,
            record.duration_us / 1e6,
            discount=discount.total,
        )

    def _settle_all(self, legs: Sequence[Leg], status: Status) -> Receipt:
        """Journal the end of an answer that several attempts gave, a row for each."""
        pays = status is not Status.UPSTREAM_ERROR
        usage, replayed, paid, owed, spared = NO_USAGE, 0, NO_CHARGE, NO_CHARGE, 0
        parts = shares(legs)
        context = parts[0][0].prompt
        for number, (asked, (own, source, read)) in enumerate(zip(legs, parts, strict=True)):
            later, ends = number > 0, asked is legs[-1]
            made = Status.CONTINUED if pays else Status.FAILED
            leg = at_served_tier(asked, own, context)
            tier, due, discount = leg.dims.tier, NO_CHARGE, NO_CHARGE
            if pays:
                due, discount = payable(own, price(leg), tier, context=context, later=later)
                if self.reserved is not None:
                    due, discount = self._bounded(leg, due, discount)
            taken = leg.tap.count()[0] if source is not UsageSource.NONE else NO_USAGE
            spent = cost(leg.candidate, taken, leg.tap.tier or tier)
            record = self._close(leg, status if ends else made, own, source, due, spent, read, discount)
            self._journal.append(record)
            usage, replayed = summed(usage, own), replayed + read
            paid, owed, spared = summed(paid, due), summed(owed, spent), spared + discount.total
        self._legs = []
        first = next((leg.first for leg in legs if leg.first), 0.0)
        return Receipt(
            status,
            usage,
            source,
            paid,
            owed,
            first - self._arrived if first else None,
            sum(leg.last - leg.first for leg in legs),
            record.duration_us / 1e6,
            replayed,
            spared,
        )

    def _bounded(self, leg: Leg, paid: Charge, discount: Charge) -> tuple[Charge, Charge]:
        """Return charge and discount within what was reserved for all legs together, and keep account of it."""
        assert self.reserved is not None
        whole = paid.total
        paid, discount = capped(paid, discount, self.reserved - sum(nano for _, nano in self.paid))
        self.excess += whole - paid.total
        self.paid = (*self.paid, (leg.dims.model, paid.total))
        return paid, discount

    def abandon(self, cut: str) -> Receipt | None:
        """End an attempt that neither failed nor was settled, because the request itself was torn down.

        Args:
            cut: why the gateway ended it, for which the team does not pay; ``""`` when the caller left.
        """
        if not self._open and not self._legs:
            return None
        if self._beside is not None:
            self.failed(Failure(Cause.HEDGED, "the request was torn down"))
        return self.settle(gone=not cut, failed=bool(cut), http_status=0, upstream_id="", error=cut)

    def _take(self, leg: Leg) -> None:
        """Make ``leg`` the current attempt again."""
        self._number, self._candidate, self._dims, self._opened_us = leg.number, leg.candidate, leg.dims, leg.opened_us
        self.tap, self._first, self._last = leg.tap, leg.first, leg.last
        self._open = True

    def _leg(self, http_status: int, upstream_id: str, error: str, again: int = 0) -> Leg:
        """Return the current attempt as far as it got."""
        assert self._candidate is not None
        assert self._dims is not None
        return Leg(
            self._number,
            self._candidate,
            self._dims,
            self._opened_us,
            self.tap,
            self._first,
            self._last,
            http_status,
            upstream_id,
            error,
            again,
        )

    def _progress(self) -> None:
        """Journal what the team would pay for the current attempt if this process died now."""
        usage, source = self.tap.count()
        later = any(leg.number != self._number for leg in self._legs)
        self._journal.append(Progress(self._request_id, self._number, share(usage, 0)[0] if later else usage, source))

    def _close(
        self,
        leg: Leg,
        status: Status,
        usage: Usage,
        source: UsageSource,
        paid: Charge,
        spent: Charge,
        replayed: int = 0,
        discount: Charge = NO_CHARGE,
    ) -> Close:
        first = leg.first if leg.first and not (self._legs and leg.number != self._legs[0].number) else 0.0
        return Close(
            self._request_id,
            leg.number,
            RowKind.USAGE,
            leg.dims,
            leg.opened_us,
            status,
            leg.tap.finish_reason[:64],
            leg.http_status,
            usage,
            source,
            paid,
            spent,
            int((first - self._arrived) * 1e6) if first else 0,
            int((monotonic() - self._arrived) * 1e6),
            int((leg.last - leg.first) * 1e6),
            leg.upstream_id[:128],
            leg.error,
            replayed,
            None if discount is NO_CHARGE else discount,
        )


def _empty(tap: Tap, usage: Usage) -> bool:
    """Whether an answer is one nobody pays for: no completion and no reason for it (embeddings have a reason)."""
    return usage.completion == 0 and not tap.finish_reason
