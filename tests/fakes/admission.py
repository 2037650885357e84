"""Admission for tests: a pool of slots that tells its room exactly, and tickets."""

from __future__ import annotations

from random import Random

from gateway.config.snapshot import AdmissionSpec
from gateway.routing.admission.pool import Room
from gateway.routing.admission.queue import AdmissionQueue
from gateway.routing.admission.ticket import State, Ticket
from gateway.types.priority import Priority

POOL = "qwen/qwen3-32b"


class Slots:
    """A pool of ``slots`` equal slots behind an admission queue; time is what the test says.

    Attributes:
        running: tickets that hold a slot.
        served: cost of what ran to its end, by team.
    """

    def __init__(self, slots: int = 4, spec: AdmissionSpec | None = None, *, tokens: float = float("inf")) -> None:
        self.slots = slots
        self.tokens = tokens
        self.up = True
        self.running: list[Ticket] = []
        self.served: dict[str, float] = {}
        self.queue = AdmissionQueue(spec or AdmissionSpec(), self.room, Random(7))

    def room(self, pool: str, now: float) -> Room | None:
        """Return the room of the pool."""
        if not self.up:
            return None
        reading = sum(ticket.prompt for ticket in self.running)
        full = max(len(self.running) / self.slots, reading / self.tokens)
        return Room(min(full, 1.0), self.slots, self.tokens)

    def offer(self, ticket: Ticket, now: float = 0.0) -> State:
        """Offer a ticket; an admitted one takes a slot at once."""
        state = self.queue.offer(ticket, now)
        if state is State.ADMITTED:
            self.running.append(ticket)
        return state

    def release(self, now: float) -> list[Ticket]:
        """Let those go whose turn has come."""
        released = self.queue.released(now)
        for ticket in released:
            self.running.append(ticket)
            self.queue.arrived(ticket)
        return released

    def end(self, ticket: Ticket, now: float, completion: int | None = None) -> None:
        """End a running ticket, which took what was expected or another number of completion tokens."""
        made = ticket.expected if completion is None else completion
        self.running.remove(ticket)
        self.queue.settle(ticket, ticket.prompt, made, now)
        self.served[ticket.team] = self.served.get(ticket.team, 0.0) + ticket.prompt + 2 * made


def ticket(
    team: str = "search",
    band: Priority = Priority.STANDARD,
    *,
    prompt: int = 100,
    expected: int = 100,
    size: int = 0,
    deadline: float = float("inf"),
    goal: float | None = None,
    pool: str = POOL,
) -> Ticket:
    """Return a new ticket."""
    return Ticket(pool, team, band, prompt, expected, size, deadline, goal)
