"""One model's queue: its bands, what is on its way to the replicas, and how fast requests end.

Plain state with a little arithmetic; ``gateway.routing.admission.queue`` decides with it. Nothing here raises.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final, NamedTuple, Protocol

from gateway.config.snapshot import AdmissionSpec, BandSpec
from gateway.routing.admission.fairness import Entry, Fading, FairQueue
from gateway.routing.admission.ticket import Ticket
from gateway.types.priority import Priority

DRAIN_SECONDS: Final = 5.0
"""Seconds for which ends are counted; the rate is over this period and the one before."""
RETRY_AT_LEAST: Final = 1.0
RETRY_AT_MOST: Final = 60.0


class Room(NamedTuple):
    """What a pool has room for, as of its replicas' books.

    Attributes:
        saturation: share of the pool that is used, 0 to 1.
        requests: requests that fill the whole pool.
        tokens: unread prompt tokens that fill the whole pool.
    """

    saturation: float
    requests: float
    tokens: float


class Capacity(Protocol):
    """Estimates the room of a pool; given from outside, so that gateway and lab differ in nothing else."""

    def __call__(self, pool: str, now: float) -> Room | None:
        """Return the room of ``pool`` at monotonic time ``now``, or None when nothing serves it."""


class Band:
    """One band of a pool: its rules and those who wait in it."""

    __slots__ = ("name", "queue", "spec")

    def __init__(self, name: Priority, spec: BandSpec, queue: FairQueue) -> None:
        self.name = name
        self.spec = spec
        self.queue = queue


class Pool:
    """The admission state of one model.

    Attributes:
        name: the model.
        bands: the most urgent first.
        length: waiting tickets of all bands.
        bytes: what they keep in memory.
        used: share of the pool that is used: as last seen, and what was let in since.
        fresh_until: monotonic time until which the last look at the replicas is believed.
        weight: what service counted at that look.
    """

    __slots__ = (
        "_before",
        "_deadlines",
        "_ended",
        "_of_request",
        "_of_token",
        "_period",
        "_since",
        "_travelling",
        "_travelling_tokens",
        "bands",
        "bytes",
        "fresh_until",
        "length",
        "name",
        "used",
        "weight",
    )

    def __init__(self, name: str, spec: AdmissionSpec, fading: Fading, now: float) -> None:
        self.name = name
        self.bands = tuple(
            Band(band, spec.bands[band], FairQueue(fading, spec.weights)) for band in Priority if band in spec.bands
        )
        self.length = 0
        self.bytes = 0
        self.fresh_until = 0.0
        self.weight = 1.0
        self.used = 0.0
        self._of_request = 0.0
        self._of_token = 0.0
        self._deadlines: list[Entry] = []
        self._travelling = 0
        self._travelling_tokens = 0
        self._ended = self._before = 0
        self._since = self._period = now

    def band(self, name: Priority) -> Band:
        """Return the band called ``name``."""
        for band in self.bands:
            if band.name is name:
                return band
        raise KeyError(name)

    def look(self, room: Room, until: float, weight: float) -> None:
        """Take a fresh look at the replicas, good until ``until``, when service weighs ``weight``."""
        self.fresh_until = until
        self.weight = weight
        self._of_request = 1.0 / room.requests
        self._of_token = 1.0 / room.tokens
        self.used = room.saturation + max(self._travelling * self._of_request, self._travelling_tokens * self._of_token)

    def grant(self, prompt: int) -> None:
        """Count a request of ``prompt`` prompt tokens that is let in since the last look."""
        of_request, of_tokens = self._of_request, prompt * self._of_token
        self.used += of_request if of_request > of_tokens else of_tokens

    def first(self, band: Band) -> bool:
        """Return whether nobody waits in ``band`` or a more urgent one."""
        for other in self.bands:
            if other.queue.length:
                return False
            if other is band:
                break
        return True

    # Those who wait

    def push(self, ticket: Ticket) -> None:
        """Let ``ticket`` wait."""
        self.band(ticket.band).queue.push(ticket)
        insort(self._deadlines, (ticket.until, ticket.sort_key[1], ticket))
        self.length += 1
        self.bytes += ticket.size

    def pop(self, band: Band, now: float) -> Ticket:
        """Take out whose turn it is in ``band``, and count it as on its way."""
        ticket = band.queue.pop(now)
        self._took(ticket)
        ticket.travels = True
        self._travelling += 1
        self._travelling_tokens += ticket.prompt
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Take out ``ticket``, which must be waiting here."""
        self.band(ticket.band).queue.remove(ticket)
        self._took(ticket)

    def arrived(self, ticket: Ticket) -> None:
        """``ticket`` is in the books of a replica now, or needs none."""
        if ticket.travels:
            ticket.travels = False
            self._travelling -= 1
            self._travelling_tokens -= ticket.prompt

    def expired(self, now: float) -> list[Ticket]:
        """Return those whose time is over."""
        place = bisect_left(self._deadlines, (now,))
        return [entry[2] for entry in self._deadlines[:place]]

    @property
    def next_deadline(self) -> float:
        """Monotonic time at which the next one's time is over."""
        return self._deadlines[0][0] if self._deadlines else float("inf")

    def _took(self, ticket: Ticket) -> None:
        place = bisect_left(self._deadlines, (ticket.until, ticket.sort_key[1]))
        del self._deadlines[place]
        self.length -= 1
        self.bytes -= ticket.size

    # The pace

    def ended(self, now: float) -> None:
        """Count a request that ended; for those who wait it is worth another look at the replicas."""
        if now >= self._period + DRAIN_SECONDS:
            self._turn_over(now)
        self._ended += 1
        if self.length:
            self.fresh_until = 0.0

    def drain(self, now: float) -> float:
        """Return how many requests end per second, lately."""
        if now >= self._period + DRAIN_SECONDS:
            self._turn_over(now)
        seconds = now - self._since
        return (self._ended + self._before) / seconds if seconds > 0 else 0.0

    def _turn_over(self, now: float) -> None:
        """Begin another period; the last one counts on if it has only just ended."""
        recent = now < self._period + 2 * DRAIN_SECONDS
        self._before = self._ended if recent else 0
        self._since = self._period if recent else now - DRAIN_SECONDS
        self._period, self._ended = now, 0

    def retry_after(self, band: Band, now: float) -> float:
        """Return the seconds in which those of ``band`` and of more urgent ones will have gone."""
        ahead = 1
        for other in self.bands:
            ahead += other.queue.length
            if other is band:
                break
        rate = self.drain(now)
        if rate * RETRY_AT_MOST <= ahead:
            return RETRY_AT_MOST
        return max(RETRY_AT_LEAST, ahead / rate)
