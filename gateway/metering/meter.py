"""The meter of one request: told of every attempt and every chunk, it writes the journal and gives the receipt.

It is what the failover walk reports its tries to, and the sink of the attempt that answers. From the event that
finishes the last open choice on, chunks are held back: the caller gets them only once the CLOSE record is durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any, Final, Protocol

from gateway.fleet.snapshot import Candidate
from gateway.metering.ceiling import Ceiling
from gateway.metering.journal import Journal
from gateway.metering.legs import Leg, at_served_tier, closing, cost, opening, share, shares
from gateway.metering.receipt import Receipt, summed
from gateway.metering.record import Open, Progress, Status
from gateway.metering.tap import Tap
from gateway.pricing.charge import NOTHING, payable
from gateway.types.budgets import Paid
from gateway.types.call import Call
from gateway.types.charge import NO_CHARGE
from gateway.types.chunk import MOST_PASSED, Chunk, Direct, Passed, Sink, TextChunk
from gateway.types.failure import Cause, Failure
from gateway.types.ids import RequestId
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
        ceiling: bounds what the team is charged and keeps account of it; None when no budget does.
    """

    __slots__ = (
        "_arrived",
        "_beside",
        "_call",
        "_journal",
        "_key_id",
        "_leg",
        "_legs",
        "_open",
        "_progress_at",
        "_progress_deltas",
        "_request_id",
        "_sink",
        "_team",
        "ceiling",
        "held",
        "tap",
    )

    def __init__(
        self, journal: Journal, request_id: RequestId, call: Call, team: str, key_id: str, arrived: float
    ) -> None:
        self._journal = journal
        self._request_id = request_id
        self._call = call
        self._team = team
        self._key_id = key_id
        self._arrived = arrived
        self._open = False
        self._legs: list[Leg] = []
        self._beside: Leg | None = None
        self._sink: Sink | None = None
        self.ceiling: Ceiling | None = None
        self._leg: Leg
        self._progress_at: float
        self._progress_deltas: int
        self.held: list[Chunk]
        self.tap: Tap

    # The walk's observer

    def opened(self, number: int, candidate: Candidate) -> None:
        """Journal that an attempt is about to be made. Raises ``Unavailable`` when it could not be metered.

        Another one that is still open is kept beside it until one of the two has failed.
        """
        call, ceiling, journal = self._call, self.ceiling, self._journal
        leg = opening(number, candidate, call, self._team, self._key_id, self.produced()[0] if self._legs else 0)
        dims, declared = leg.dims, journal.declared
        if dims.price_id not in declared:
            journal.declare(dims.price_id, leg.rates)
        if candidate.cost is not None and dims.cost_id not in declared:
            journal.declare(dims.cost_id, candidate.cost)
        reserved = ceiling.reserved if ceiling is not None else None
        journal.append(Open(self._request_id, number, dims, leg.opened_us, call.prompt_estimate, reserved))
        if self._open:
            self._beside = self._leg
        self._take(leg)
        self._progress_at, self._progress_deltas = 0.0, 0
        self.held = []

    @property
    def paid(self) -> Paid:
        """What the team was charged, by model, where a budget bounds it."""
        return self.ceiling.paid if self.ceiling is not None else ()

    @property
    def excess(self) -> int:
        """Nano-USD that the answer came to beyond what was reserved; the owner's."""
        return self.ceiling.excess if self.ceiling is not None else 0

    def turn(self, number: int) -> None:
        """Of two open attempts, go on with ``number``."""
        beside = self._beside
        if beside is not None and beside.number == number:
            self._beside = self._leg
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
        leg = self._leg.ended(failure.status, "", failure.cause.value)
        self._open = False
        spent, later = cost(leg.candidate, usage, leg.dims.tier), bool(self._legs)
        self._journal.append(
            closing(leg, self._request_id, self._arrived, status, usage, source, NO_CHARGE, spent, later=later)
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
        self._legs.append(self._leg.ended(attempt.status, attempt.upstream_id, failure.cause.value, again))
        self._progress()
        self._open = False

    # The answer's sink

    def to(self, sink: Sink) -> Sink:
        """Return the sink for the attempt that answers; chunks that may go on at once go to ``sink``."""
        self._sink = sink
        return self

    def send(self, chunks: list[Chunk]) -> None:
        """See ``Sink``: count ``chunks`` and pass them on up to the one that finishes the answer."""
        tap = self.tap
        if tap.finished:
            for chunk in chunks:
                tap.chunk(chunk)
            self.held.extend(chunks[: max(0, MOST_HELD - len(self.held))])
            return
        for position, chunk in enumerate(chunks):
            if tap.chunk(chunk):  # the last open choice has finished
                for later in chunks[position + 1 :]:
                    tap.chunk(later)
                self.held.extend(chunks[position:])
                del chunks[position:]
                break
        now = self._saw()
        if chunks and self._sink is not None:
            self._sink.send(chunks)
        self._advanced(now)

    def say(self, chunk: TextChunk) -> None:
        """See ``Sink``."""
        tap, sink = self.tap, self._sink
        if tap.finished or sink is None:
            self.send([chunk])
            return
        tap.text(chunk)
        now = self._saw()
        sink.say(chunk)
        if tap.deltas - self._progress_deltas >= PROGRESS_TOKENS or now - self._progress_at >= PROGRESS_SECONDS:
            self._advanced(now)

    def direct(self, probe: TextChunk) -> Direct | None:
        """See ``Sink``."""
        tap, sink = self.tap, self._sink
        if tap.finished or not tap.countable or sink is None:
            return None
        found = sink.direct(probe)
        if found is not None:
            found.tokens, found.bounds = tap.bound, self._bounds
        return found

    def passed(self, run: Passed) -> None:
        """See ``Sink``."""
        self.tap.passed(run)
        self._leg.last = run.last  # words came before it by ``say``, or there would be nothing that is alike
        if self._sink is not None:
            self._sink.passed(run)
        self._advanced(run.last)

    def _bounds(self) -> tuple[int, float]:
        """Return after how many pieces, and when, progress is to be journalled; see ``Direct``."""
        if self.tap.finished:
            return 0, 0.0  # what finishes the answer is held back, and so is what comes behind it
        left = self._progress_deltas + PROGRESS_TOKENS - self.tap.deltas
        return min(left, MOST_PASSED), self._progress_at + PROGRESS_SECONDS

    def _saw(self) -> float:
        """Take note of when output was seen; return the time."""
        now = monotonic()
        if self.tap.deltas:
            leg = self._leg
            if not leg.first:
                leg.first = self._progress_at = now
            leg.last = now
        return now

    def _advanced(self, now: float) -> None:
        """Journal how far the answer has come, now and then."""
        deltas = self.tap.deltas
        if (behind := deltas - self._progress_deltas) and (
            behind >= PROGRESS_TOKENS or now - self._progress_at >= PROGRESS_SECONDS
        ):
            self._progress_deltas, self._progress_at = deltas, now
            self._progress()

    def answered(self, answer: dict[str, Any]) -> None:
        """Count a whole answer, of which nobody saw the first token."""
        self.tap.answer(answer)

    # The end

    def settle(
        self, gone: bool, failed: bool, http_status: int, upstream_id: str, error: str, again: int = 0
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
        last = self._leg.ended(http_status, upstream_id, error, again)
        self._open = False
        if not self._legs:
            return self._settle_one(last, status)
        return self._settle_all([*self._legs, last], status)

    def _settle_one(self, leg: Leg, status: Status) -> Receipt:
        """Journal the end of an answer that one attempt gave."""
        tap = leg.tap
        usage, source = tap.count()
        stopped = status is Status.CLIENT_CANCEL or not leg.http_status
        if stopped and tap.silent and source is not UsageSource.UPSTREAM:
            # The engine was stopped before its first token; what prefill it did is not known.
            usage, source = NO_USAGE, UsageSource.NONE
        if tap.tier:
            leg = at_served_tier(leg, usage)
        tier = leg.dims.tier
        # Nobody pays for an answer without a completion and a reason for that (embeddings have one).
        empty = not (usage.completion or tap.finish_reason) and status is Status.OK
        pays = status is not Status.UPSTREAM_ERROR and not empty
        paid, discount = payable(usage, leg.rates, tier) if pays else NOTHING
        if self.ceiling is not None:
            paid, discount = self.ceiling.bounded(leg.dims.model, paid, discount)
        spent = cost(leg.candidate, usage, tap.tier or tier)
        record = closing(leg, self._request_id, self._arrived, status, usage, source, paid, spent, discount)
        self._journal.append(record)
        return Receipt(
            status,
            usage,
            source,
            paid,
            spent,
            leg.first - self._arrived if leg.first else None,
            leg.last - leg.first,
            record.duration_us / 1e6,
            discount=discount.total if discount is not NO_CHARGE else 0,
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
                due, discount = payable(own, leg.rates, tier, context=context, later=later)
                if self.ceiling is not None:
                    due, discount = self.ceiling.bounded(leg.dims.model, due, discount)
            taken = leg.tap.count()[0] if source is not UsageSource.NONE else NO_USAGE
            spent = cost(leg.candidate, taken, leg.tap.tier or tier)
            record = closing(
                leg,
                self._request_id,
                self._arrived,
                status if ends else made,
                own,
                source,
                due,
                spent,
                discount,
                replayed=read,
                later=later,
            )
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
        self._leg, self.tap, self._open = leg, leg.tap, True

    def _progress(self) -> None:
        """Journal what the team would pay for the current attempt if this process died now."""
        usage, source = self.tap.count()
        number = self._leg.number
        later = any(leg.number != number for leg in self._legs)
        self._journal.append(Progress(self._request_id, number, share(usage, 0)[0] if later else usage, source))
