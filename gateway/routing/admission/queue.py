"""The admission queue: a pure core without a clock, without I/O and without tasks.

Time is an argument everywhere and the room of a pool a callable, so that the gateway and the lab run this very object.
A request that comes while its pool has room is admitted at once; else it waits, by band, and within a band by fair
share between teams. Callers of the core ask ``released`` and ``refused`` whenever something may have changed: a request
ended, gauges came in, a deadline passed. Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from gateway.config.snapshot import AdmissionSpec
from gateway.routing.admission.fairness import Fading, settle
from gateway.routing.admission.pool import Band, Capacity, Pool
from gateway.routing.admission.ticket import Denial, Reason, State, Ticket

FRESH_SECONDS: Final = 0.05
"""How long a look at the replicas is believed, as long as it says that there is room."""
TOKENS_PER_GOAL_SECOND: Final = 8_000
"""Prompt tokens for which the goal of a request is a second later."""
WAIT_SHARE: Final = 0.5
"""Share of the time to the first token that a request may wait and still be in time; the engine needs the rest."""
SHED_SCALE: Final = 300.0
SHED_POWER: Final = 5
"""Requests of a band that sheds are refused with probability ``min(1, 300 x**5)`` at ``x`` beyond its ceiling: 10 % at
0.2, 73 % at 0.3. The curve is llm-d's (``probabilisticadmitter``), which measures ``x`` from an idle engine on."""

_ADMITTED: Final = State.ADMITTED
_OVER: Final = State.OVER


class AdmissionQueue:
    """Decides who goes, who waits, and who is turned away.

    Args:
        spec: the rules.
        capacity: estimates the room of a pool.
        rng: draws who is shed.

    Attributes:
        waiting: tickets that wait, in all pools.
    """

    __slots__ = (
        "_capacity",
        "_fading",
        "_pools",
        "_rebase_at",
        "_refused",
        "_rng",
        "_serial",
        "_spec",
        "waiting",
    )

    def __init__(self, spec: AdmissionSpec, capacity: Capacity, rng: Random) -> None:
        self._spec = spec
        self._capacity = capacity
        self._rng = rng
        self._fading = Fading(spec.half_life)
        self._rebase_at = 0.0
        self._pools: dict[str, Pool] = {}
        self._refused: list[Ticket] = []
        self._serial = 0
        self.waiting = 0

    # What callers do

    def offer(self, ticket: Ticket, now: float) -> State:
        """Take a new request: it is ``ADMITTED``, ``QUEUED``, or ``REFUSED`` with a ``denial``.

        An admitted one must be in a replica's books before the next call, or it is counted as if it were not there.
        """
        pool = self._pools.get(ticket.pool)
        if pool is None or now >= self._rebase_at:
            pool = self._prepared(ticket.pool, now)
        ticket.home = pool
        band = pool.band(ticket.band)
        if now >= pool.fresh_until or pool.used >= band.spec.ceiling or pool.length:
            return self._looked(pool, band, ticket, now)
        pool.grant(ticket.prompt)
        ticket.state = _ADMITTED
        band.queue.charge(ticket, now, pool.weight)
        return _ADMITTED

    def released(self, now: float) -> list[Ticket]:
        """Return the waiting tickets whose turn has come; they are on their way until ``arrived``."""
        released: list[Ticket] = []
        if self.waiting:
            if now >= self._rebase_at:
                self._rebase(now)
            for pool in self._pools.values():
                if pool.length:
                    self._serve(pool, now, released)
        return released

    def refused(self) -> list[Ticket]:
        """Return the tickets that waited and were refused since the last call, each with its ``denial``."""
        refused, self._refused = self._refused, []
        return refused

    def arrived(self, ticket: Ticket) -> None:
        """A released ticket is in the books of a replica now, or will not be."""
        if ticket.travels and ticket.home is not None:
            ticket.home.arrived(ticket)

    def settle(self, ticket: Ticket, prompt: int, completion: int, now: float) -> None:
        """End a ticket that took ``prompt`` and ``completion`` tokens in truth; one that waits leaves no trace."""
        pool, state = ticket.home, ticket.state
        ticket.state = _OVER
        if pool is None:
            return
        if state is _ADMITTED:
            if ticket.travels:
                pool.arrived(ticket)
            pool.ended(now)
            settle(ticket, prompt, completion, self._fading)
        elif state is State.QUEUED:
            self._take_out(pool, ticket)

    def abandon(self, ticket: Ticket, now: float) -> None:
        """End a ticket whose caller left before it was served."""
        self.settle(ticket, 0, 0, now)

    def due(self) -> float:
        """Return the monotonic time at which ``released`` has to be asked at the latest."""
        if not self.waiting:
            return float("inf")
        return min(pool.next_deadline for pool in self._pools.values())

    def lengths(self) -> Mapping[tuple[str, str], int]:
        """Return how many tickets wait by pool and band."""
        pools = list(self._pools.values())
        return {(pool.name, band.name.value): band.queue.length for pool in pools for band in pool.bands}

    def configure(self, spec: AdmissionSpec, now: float) -> None:
        """Go on by other rules; those who wait keep their places and deadlines."""
        self._rebase(now, spec.half_life)
        self._spec = spec
        for pool in self._pools.values():
            pool.fresh_until = 0.0
            for band in pool.bands:
                band.spec = spec.bands[band.name]
                band.queue.reweigh(spec.weights)

    # How it is decided

    def _prepared(self, name: str, now: float) -> Pool:
        """Return the pool called ``name`` with counters fit for ``now``."""
        if now >= self._rebase_at:
            self._rebase(now)
        found = self._pools.get(name)
        if found is None:
            found = self._pools[name] = Pool(name, self._spec, self._fading, now)
        return found

    def _rebase(self, now: float, half_life: float | None = None) -> None:
        """Scale all counters down, before they leave what a number can hold."""
        factor = self._fading.rebase(now, half_life)
        self._rebase_at = self._fading.due
        for pool in self._pools.values():
            pool.fresh_until = 0.0
            for band in pool.bands:
                band.queue.rebase(factor)

    def _looked(self, pool: Pool, band: Band, ticket: Ticket, now: float) -> State:
        """Decide on a new request by a look at the replicas."""
        if not self._seen(pool, now):
            return self._deny(ticket, Denial(Reason.UNAVAILABLE, pool.retry_after(band, now)))
        used, ceiling = pool.used, band.spec.ceiling
        if used < ceiling and pool.first(band):
            pool.grant(ticket.prompt)
            ticket.state = State.ADMITTED
            band.queue.charge(ticket, now, pool.weight)
            return State.ADMITTED
        if band.spec.shed and used > ceiling:
            beyond = SHED_SCALE * (used - ceiling) ** SHED_POWER
            if self._rng.random() < beyond:
                return self._deny(ticket, Denial(Reason.SHED, pool.retry_after(band, now)))
        return self._queue(pool, band, ticket, now)

    def _seen(self, pool: Pool, now: float) -> bool:
        """Look at the replicas, unless nobody could go anyway; return whether there are any."""
        if pool.length and now < pool.fresh_until:
            return True
        room = self._capacity(pool.name, now)
        if room is None:
            pool.fresh_until = 0.0
            return False
        pool.look(room, now + FRESH_SECONDS, self._fading.weight(now))
        return True

    def _queue(self, pool: Pool, band: Band, ticket: Ticket, now: float) -> State:
        """Let a new request wait, if there is a place for it."""
        ticket.offered_at = now
        ticket.until = min(ticket.deadline, now + band.spec.deadline)
        if ticket.until <= now:
            return self._deny(ticket, Denial(Reason.DEADLINE, pool.retry_after(band, now)))
        if pool.bytes + ticket.size > self._spec.queue_bytes:
            return self._deny(ticket, Denial(Reason.FULL, pool.retry_after(band, now)))
        if pool.length >= self._spec.queue_requests:
            weakest = self._weakest(pool, band, ticket)
            if weakest is None:
                return self._deny(ticket, Denial(Reason.FULL, pool.retry_after(band, now)))
            self._turn_away(pool, weakest, Reason.FULL, now)
        self._serial += 1
        ticket.sort_key = (now + self._patience(band, ticket), self._serial)
        ticket.state = State.QUEUED
        pool.push(ticket)
        self.waiting += 1
        return State.QUEUED

    def _patience(self, band: Band, ticket: Ticket) -> float:
        """Return the seconds that a request may wait and still be answered in time."""
        goal = ticket.goal
        if goal is None:
            if band.spec.goal is None:
                return float("inf")
            goal = band.spec.goal + ticket.prompt / TOKENS_PER_GOAL_SECOND
        return goal * WAIT_SHARE

    def _weakest(self, pool: Pool, band: Band, ticket: Ticket) -> Ticket | None:
        """Return who must leave a full queue for ``ticket``: somebody less urgent, or of a team that has more there."""
        for other in reversed(pool.bands):
            if other is band:
                return other.queue.weakest(ticket.team)
            if other.queue.length:
                return other.queue.weakest()
        return None

    def _serve(self, pool: Pool, now: float, released: list[Ticket]) -> None:
        """Refuse whose time is over in ``pool``, then release as many as there is room for."""
        for ticket in pool.expired(now):
            self._turn_away(pool, ticket, Reason.DEADLINE, now)
        if not pool.length:
            return
        room = self._capacity(pool.name, now)
        if room is None:
            pool.fresh_until = 0.0
            for band in pool.bands:
                for ticket in band.queue.all():
                    self._turn_away(pool, ticket, Reason.UNAVAILABLE, now)
            return
        pool.look(room, now + FRESH_SECONDS, self._fading.weight(now))
        for band in pool.bands:
            while band.queue.length and pool.used < band.spec.ceiling:
                ticket = pool.pop(band, now)
                pool.grant(ticket.prompt)
                self.waiting -= 1
                ticket.state = State.ADMITTED
                band.queue.charge(ticket, now, pool.weight)
                released.append(ticket)
            if band.queue.length:
                return

    def _take_out(self, pool: Pool, ticket: Ticket) -> None:
        pool.remove(ticket)
        self.waiting -= 1

    def _turn_away(self, pool: Pool, ticket: Ticket, reason: Reason, now: float) -> None:
        """Refuse a ticket that waits."""
        self._take_out(pool, ticket)
        self._deny(ticket, Denial(reason, pool.retry_after(pool.band(ticket.band), now)))
        self._refused.append(ticket)

    def _deny(self, ticket: Ticket, denial: Denial) -> State:
        ticket.state = State.REFUSED
        ticket.denial = denial
        return State.REFUSED
