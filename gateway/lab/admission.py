"""How the lab drives admission: what stands between the arrival of a request and its dispatch.

``QueueGate`` is the gateway's own admission queue, driven as ``gateway.routing.admission.gate`` drives it in real time.
Times are seconds of virtual time. A gate raises nothing; what it decides it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final, Protocol

from gateway.config.snapshot import AdmissionSpec
from gateway.fleet.registry import FleetRegistry
from gateway.lab.job import Fate, Job
from gateway.lab.setting import MODEL
from gateway.routing.admission.capacity import FleetCapacity
from gateway.routing.admission.gate import TICK
from gateway.routing.admission.queue import AdmissionQueue
from gateway.routing.admission.ticket import Reason, State, Ticket
from gateway.types.priority import Priority

NEVER: Final = float("inf")
_BYTES_PER_TOKEN: Final = 4

Verdicts = Sequence[tuple[Job, bool]]
"""Requests that are decided, each with whether it is let in; the others go on waiting."""


class Gate(Protocol):
    """Admission of one gateway."""

    def arrived(self, job: Job, now: float) -> Verdicts:
        """Take a request that came now."""

    def changed(self, now: float) -> Verdicts:
        """Look again: a request ended, or ``due`` has come."""

    def sent(self, job: Job) -> None:
        """A request that was let in is in a replica's books now, or will not be."""

    def ended(self, job: Job, now: float) -> None:
        """Book the end of a request that was let in, however it ended."""

    def due(self, now: float) -> float:
        """Return when ``changed`` has to be asked at the latest, ``NEVER`` when nobody waits."""


class OpenGate:
    """No admission: everybody is let in at once."""

    def arrived(self, job: Job, now: float) -> Verdicts:  # noqa: ARG002 - a Gate
        """Let it in."""
        return ((job, True),)

    def changed(self, now: float) -> Verdicts:  # noqa: ARG002 - a Gate
        """Nobody waits."""
        return ()

    def sent(self, job: Job) -> None:
        """Nothing is booked."""

    def ended(self, job: Job, now: float) -> None:
        """Nothing is booked."""

    def due(self, now: float) -> float:  # noqa: ARG002 - a Gate
        """Nobody waits."""
        return NEVER


class QueueGate:
    """The gateway's admission queue with its default rules.

    Args:
        registry: the fleet as the gateway knows it.
        rng: draws who is shed.
    """

    def __init__(self, registry: FleetRegistry, rng: Random) -> None:
        self._queue = AdmissionQueue(AdmissionSpec(), FleetCapacity(registry), rng)
        self._tickets: dict[Job, Ticket] = {}
        self._jobs: dict[Ticket, Job] = {}

    def arrived(self, job: Job, now: float) -> Verdicts:
        """Let it in, let it wait, or turn it away."""
        request = job.request
        assert request is not None
        size = job.estimate * _BYTES_PER_TOKEN
        ticket = Ticket(MODEL, request.team, Priority.STANDARD, job.estimate, request.expected_tokens, size)
        self._tickets[job], self._jobs[ticket] = ticket, job
        state = self._queue.offer(ticket, now)
        if state is State.QUEUED:
            return ()
        return ((job, state is State.ADMITTED or self._left_to_routing(ticket)),)

    def changed(self, now: float) -> Verdicts:
        """Let in whose turn has come, turn away whose time is over."""
        verdicts = [(self._jobs[ticket], True) for ticket in self._queue.released(now)]
        verdicts += [(self._jobs[ticket], self._left_to_routing(ticket)) for ticket in self._queue.refused()]
        return verdicts

    def sent(self, job: Job) -> None:
        """It is in a replica's books now."""
        self._queue.arrived(self._tickets[job])

    def ended(self, job: Job, now: float) -> None:
        """Settle what it took in truth."""
        ticket = self._tickets.pop(job)
        del self._jobs[ticket]
        served = job.fate is Fate.SERVED
        arrival = job.arrival
        self._queue.settle(
            ticket, arrival.prompt_tokens if served else 0, arrival.answer_tokens if served else job.answered, now
        )

    def due(self, now: float) -> float:
        """Return the next look of the gateway's timer."""
        return now + TICK if self._queue.waiting else NEVER

    def _left_to_routing(self, ticket: Ticket) -> bool:
        """Whether nothing serves the model at all: then routing says so, not the queue."""
        return ticket.denial is not None and ticket.denial.reason is Reason.UNAVAILABLE
