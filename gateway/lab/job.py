"""One request on its way through the simulated world, and what became of it."""

from __future__ import annotations

from enum import Enum

from gateway.fleet.booking import Booking
from gateway.fleet.snapshot import Candidate
from gateway.lab.trace import Arrival
from gateway.routing.interface import RouteRequest
from gateway.stepmodel import Sequence


class Fate(Enum):
    """How a request ended."""

    PENDING = "pending"
    SERVED = "served"
    REJECTED = "rejected"
    """Refused by the gateway before anything was sent for it, or because nothing could serve it."""
    FAILED = "failed"
    """Sent, and lost."""


class Job:
    """One request.

    Attributes:
        index: its place in the trace.
        arrival: what the trace says of it.
        at: seconds of its arrival.
        gateway: number of the gateway it came to.
        estimate: prompt tokens the gateway estimates.
        request: what routing knows of it.
        left: candidates of its plan that were not tried yet.
        candidate: where it is or was served.
        booking: the gateway's books of the current try.
        first_sent_at: seconds at which its first try was sent.
        sequence: what the engine works on, or None at an external API.
        sent_at: seconds at which the current try was sent.
        first_at, ended_at: seconds of its first and last token, or None.
        attempts: tries so far.
        answered: tokens its caller has from tries that were lost.
        uncached: prompt tokens that had to be read where it was served.
        predicted_ttft: seconds from ``sent_at`` to the first token as predicted when it was sent, or None.
        usd: what an external API took for it.
        fate: how it ended.
        over_at: seconds at which nothing more was to be done for it, or None.
    """

    __slots__ = (
        "answered",
        "arrival",
        "at",
        "attempts",
        "booking",
        "candidate",
        "ended_at",
        "estimate",
        "fate",
        "first_at",
        "first_sent_at",
        "gateway",
        "index",
        "left",
        "over_at",
        "predicted_ttft",
        "request",
        "sent_at",
        "sequence",
        "uncached",
        "usd",
    )

    def __init__(self, index: int, arrival: Arrival, at: float, gateway: int, estimate: int) -> None:
        self.index = index
        self.arrival = arrival
        self.at = at
        self.gateway = gateway
        self.estimate = estimate
        self.request: RouteRequest | None = None
        self.left: list[Candidate] = []
        self.candidate: Candidate | None = None
        self.booking: Booking | None = None
        self.sequence: Sequence | None = None
        self.sent_at = 0.0
        self.first_sent_at = 0.0
        self.first_at: float | None = None
        self.ended_at: float | None = None
        self.attempts = 0
        self.answered = 0
        self.uncached = arrival.prompt_tokens
        self.predicted_ttft: float | None = None
        self.usd = 0.0
        self.fate = Fate.PENDING
        self.over_at: float | None = None

    @property
    def ttft(self) -> float | None:
        """Seconds from arrival to first token, or None when there was none."""
        return None if self.first_at is None else self.first_at - self.at

    @property
    def waited_until(self) -> float | None:
        """Seconds at which its waiting ended, at the gateway and in an engine: it was taken up, or refused."""
        if self.sequence is not None:
            return self.over_at if self.sequence.admitted_at is None else self.sequence.admitted_at
        return self.first_sent_at if self.first_at is not None else self.over_at

    @property
    def itl(self) -> float | None:
        """Mean seconds between two tokens of its answer, or None without two tokens."""
        if self.first_at is None or self.ended_at is None or self.arrival.answer_tokens < 2:
            return None
        return (self.ended_at - self.first_at) / (self.arrival.answer_tokens - 1)
