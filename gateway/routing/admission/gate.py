"""The admission queue in a running gateway: futures for those who wait, and the moments at which to look again.

While nothing contends a request passes in one synchronous call and no future exists. Who waits is released when a
request of the process ends, or within ``TICK`` seconds of anything else that made room: a first token, fresh gauges, a
replica that came back. A caller who leaves, and a task that is cancelled, leave no trace. When nothing at all serves
the model, the request goes on: routing says why, better than a queue could.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from gateway.config.snapshot import AdmissionSpec
from gateway.fleet.registry import FleetRegistry
from gateway.fleet.snapshot import Fleet
from gateway.routing.admission.queue import AdmissionQueue
from gateway.routing.admission.ticket import Reason, State, Ticket
from gateway.routing.preferences import stem_of
from gateway.telemetry.metrics import GatewayMetrics
from gateway.types.call import Call
from gateway.types.errors import Overloaded
from gateway.types.reply import Flow
from gateway.types.tokens import NO_USAGE, Usage

TICK: Final = 0.02
"""Seconds between two looks at the replicas while somebody waits and nothing ends."""
NEVER: Final = float("inf")
PAUSE: Final = 0.005
"""Seconds between two looks at least, however many requests end."""

_WORDS: Final = {
    Reason.FULL: "every replica is busy and the queue for {model} is full",
    Reason.DEADLINE: "every replica of {model} was busy for as long as the request could wait",
    Reason.SHED: "every replica of {model} is busy and {band} requests are turned away first",
}


class CallerLeft(Exception):
    """The caller left while its request waited."""


class Steered(Protocol):
    """The part of a reply that waiting needs: it tells when the caller leaves."""

    def steer(self, flow: Flow) -> None:
        """From now on tell ``flow`` when the caller leaves, stops reading or reads again."""


class _Wait:
    """One wait, as the caller's connection steers it: leaving ends it, and there is nothing yet to read."""

    __slots__ = ("_turn",)

    def __init__(self, turn: asyncio.Future[None]) -> None:
        self._turn = turn

    def abort(self) -> None:
        """The caller left."""
        if not self._turn.done():
            self._turn.set_exception(CallerLeft())

    def pause(self) -> None:
        """Nothing is being sent."""

    def resume(self) -> None:
        """Nothing is being sent."""


class Gate:
    """Lets requests in.

    Args:
        loop: the running loop.
        queue: the decisions.
        registry: holds the fleet.
        metrics: of the process.
        clock: monotonic seconds, the clock of the replicas' books.

    Attributes:
        enabled: whether anybody ever waits.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        queue: AdmissionQueue,
        registry: FleetRegistry,
        metrics: GatewayMetrics,
        *,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._queue = queue
        self._registry = registry
        self._metrics = metrics
        self._clock = clock
        self._turns: dict[Ticket, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._hurry: asyncio.TimerHandle | None = None
        self._look_from = 0.0
        self.enabled = enabled
        metrics.bind("weir_admission_queued", self._lengths)

    @property
    def waiting(self) -> int:
        """How many requests wait; while any does, fresh gauges are worth more."""
        return self._queue.waiting

    def enter(self, call: Call, team: str, expected: int) -> Ticket | None:
        """Ask to let ``call`` of ``team`` in; return its ticket, or None when it needs none.

        Who got a ticket must ``leave`` with it, after waiting for its ``turn`` when it is ``QUEUED``.

        Args:
            call: the request.
            team: slug of its team.
            expected: completion tokens it will probably have.

        Raises:
            Overloaded: it is turned away.
        """
        if not self.enabled:
            return None
        fleet = self._registry.fleet
        model = call.model if call.model in fleet.models else _target(fleet, call.model)
        if model is None:
            return None
        now = self._clock()
        ticket = Ticket(
            model,
            team,
            call.priority,
            call.prompt_estimate,
            expected,
            call.input_bytes,
            NEVER if call.deadline is None else now + call.deadline,
            call.slo_ttft,
        )
        if self._queue.offer(ticket, now) is State.REFUSED:
            error = self._denied(ticket)
            if error is not None:
                raise error
        return ticket

    async def turn(self, ticket: Ticket, reply: Steered) -> None:
        """Wait for the turn of a queued ticket.

        Raises:
            Overloaded: it is turned away.
            CallerLeft: the caller left.
        """
        turn = self._loop.create_future()
        self._turns[ticket] = turn
        reply.steer(_Wait(turn))
        self._arm()
        try:
            await turn
        finally:
            del self._turns[ticket]
            self._queue.arrived(ticket)
            waited = self._clock() - ticket.offered_at
            self._metrics.admission_wait.observe((ticket.pool, ticket.band.value), waited)

    def leave(self, ticket: Ticket | None, usage: Usage | None) -> None:
        """End a ticket, however far it came, with the tokens it took in truth."""
        if ticket is None:
            return
        now = self._clock()
        took = usage or NO_USAGE
        self._queue.settle(ticket, took.prompt, took.completion, now)
        if self._queue.waiting:
            if now >= self._look_from:
                self._look(now)
            elif self._hurry is None:
                self._hurry = self._loop.call_later(self._look_from - now, self._hurried)

    def configure(self, spec: AdmissionSpec) -> None:
        """Go on by other rules; when admission is switched off, those who wait go on at once."""
        self.enabled = spec.enabled
        self._queue.configure(spec, self._clock())
        if not spec.enabled:
            for turn in self._turns.values():
                if not turn.done():
                    turn.set_result(None)

    # Looking again

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._queue.waiting:
            self._look(self._clock())
        if self._queue.waiting:
            self._arm()

    def _hurried(self) -> None:
        self._hurry = None
        if self._queue.waiting:
            self._look(self._clock())

    def _look(self, now: float) -> None:
        """Wake whose turn has come, and those who are turned away."""
        self._look_from = now + PAUSE
        for ticket in self._queue.released(now):
            self._wake(ticket, None)
        for ticket in self._queue.refused():
            self._wake(ticket, self._denied(ticket))

    def _wake(self, ticket: Ticket, error: Overloaded | None) -> None:
        turn = self._turns.get(ticket)
        if turn is None or turn.done():
            return  # its caller left in this very step; the relay ends the ticket
        if error is None:
            turn.set_result(None)
        else:
            turn.set_exception(error)

    def _denied(self, ticket: Ticket) -> Overloaded | None:
        """Count a refusal and return its error; None when routing shall speak."""
        denial = ticket.denial
        assert denial is not None
        reason, band = denial.reason, ticket.band.value
        if reason is Reason.UNAVAILABLE:
            return None
        self._metrics.admission_refusals.add((ticket.pool, band, reason.value))
        return Overloaded(
            _WORDS[reason].format(model=ticket.pool, band=band),
            metadata={"reason": reason.value, "band": band},
            retry_after=denial.retry_after,
        )

    def _lengths(self) -> Mapping[tuple[str, ...], float]:
        return {labels: float(length) for labels, length in self._queue.lengths().items()}


def _target(fleet: Fleet, name: str) -> str | None:
    """Return the model whose queue a name waits in, an alias in that of the model it mostly means; None for no name."""
    stem = stem_of(fleet, name)
    if stem is None or stem in fleet.models:
        return stem
    return max(fleet.aliases[stem], key=lambda target: target[1])[0]
