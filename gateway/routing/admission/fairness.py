"""Weighted fair sharing between the teams of one band: a virtual token counter for each (VTC, arXiv 2401.00588).

The waiting team that was served least, by its weight, goes first; what it has running counts as what it will probably
take. A team that comes back is lifted to the level of those who waited, so that nobody saves up a claim by staying
away. Service fades with a half-life: what counts is the last minutes. Instead of shrinking all counters all the time,
service counts the more the later it is rendered, which compares the same. Within a team those go first who can still be
answered in time, the one with the nearest limit first; a long prompt has a later limit, so it does not hold up short
ones, but a limit never moves, so it is not overtaken for ever.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from typing import Final

from gateway.routing.admission.ticket import COMPLETION_COST, PROMPT_COST, Ticket

LEARN: Final = 0.1
"""Weight of an answer in the typical length of its team's answers."""
REBASE_AFTER: Final = 500
"""Half-lives after which counters are scaled down; a float would hold about a thousand."""

Entry = tuple[float, int, Ticket]
"""A waiting ticket with its place; the second member is unique, so that tickets are never compared."""


class Fading:
    """How much service rendered at a moment counts, against service rendered at others.

    Args:
        half_life: seconds in which service loses half of its weight.

    Attributes:
        base: monotonic time at which service counts once.
    """

    __slots__ = ("_half_life", "base")

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self.base = 0.0

    def weight(self, now: float) -> float:
        """Return the weight of service rendered at monotonic time ``now``."""
        return float(2.0 ** ((now - self.base) / self._half_life))

    @property
    def due(self) -> float:
        """Monotonic time at which ``rebase`` is due."""
        return self.base + REBASE_AFTER * self._half_life

    def rebase(self, now: float, half_life: float | None = None) -> float:
        """Make ``now`` the moment of weight 1 and return the factor for all counters; may change the half-life."""
        factor = 1.0 / self.weight(now) if now < self.base + 2 * REBASE_AFTER * self._half_life else 0.0
        self.base = now
        if half_life is not None:
            self._half_life = half_life
        return factor


def settle(ticket: Ticket, prompt: int, completion: int, fading: Fading) -> None:
    """Replace what an admitted ticket's team was charged by what it took in truth, as if that had been known before."""
    share = ticket.share
    if share is None:
        return
    scale = ticket.scale
    if ticket.admitted_at < fading.base:
        scale = fading.weight(ticket.admitted_at) / share.weight
    share.running -= 1
    share.reserved = share.reserved - ticket.charged * scale if share.running else 0.0
    share.served += (PROMPT_COST * prompt + COMPLETION_COST * completion) * scale
    if completion:
        typical = share.typical
        share.typical = typical + LEARN * (completion - typical) if typical else completion


class Share:
    """A team's account in one band of one pool.

    Attributes:
        served: its counter: faded cost over weight of what ended.
        reserved: the same of what its running requests will probably take.
        running: its running requests.
        typical: completion tokens of its answers, a moving average; 0 before the first.
        weight: how much service is its fair share, against the others' weights.
        waiting: its waiting tickets in the order of their limits.
        turn: number of its last turn, which breaks ties.
    """

    __slots__ = ("reserved", "running", "served", "team", "turn", "typical", "waiting", "weight")

    def __init__(self, team: str, weight: float) -> None:
        self.team = team
        self.weight = weight
        self.served = 0.0
        self.reserved = 0.0
        self.running = 0
        self.typical = 0.0
        self.turn = 0
        self.waiting: list[Entry] = []


class FairQueue:
    """The waiting tickets of one band of one pool, and the accounts of all teams that used it.

    Args:
        fading: shared by all queues.
        weights: weights of teams; 1 for those that are not named.

    Attributes:
        length: waiting tickets.
    """

    __slots__ = ("_fading", "_last", "_shares", "_turns", "_waiting", "length", "weights")

    def __init__(self, fading: Fading, weights: Mapping[str, float]) -> None:
        self._fading = fading
        self.weights = weights
        self._shares: dict[str, Share] = {}
        self._waiting: dict[str, Share] = {}
        self._last: Share | None = None
        self._turns = 0
        self.length = 0

    def charge(self, ticket: Ticket, now: float, weight: float) -> None:
        """Charge the ticket's team what it will probably take, at ``now``, when service weighs ``weight``."""
        share = ticket.share
        if share is None:
            share = ticket.share = self._shares.get(ticket.team) or self._open(ticket.team)
        expected: float = ticket.expected
        if 0.0 < share.typical < expected:
            expected = share.typical
        ticket.charged = cost = PROMPT_COST * ticket.prompt + COMPLETION_COST * expected
        ticket.admitted_at = now
        ticket.scale = scale = weight / share.weight
        share.reserved += cost * scale
        share.running += 1

    def push(self, ticket: Ticket) -> None:
        """Let ``ticket`` wait at its ``sort_key``."""
        share = self._shares.get(ticket.team) or self._open(ticket.team)
        ticket.share = share
        if not share.waiting:
            self._lift(share)
            self._waiting[share.team] = share
        insort(share.waiting, (*ticket.sort_key, ticket))
        self.length += 1

    def pop(self, now: float) -> Ticket:
        """Take out whose turn it is; there must be one."""
        share = min(self._waiting.values(), key=_claim)
        waiting = share.waiting
        place = bisect_left(waiting, (now,))
        ticket = waiting.pop(place if place < len(waiting) else 0)[2]
        self._turns += 1
        share.turn = self._turns
        self._took(share)
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Take out ``ticket``, which must be waiting here."""
        share = ticket.share
        assert share is not None
        place = bisect_left(share.waiting, ticket.sort_key)
        assert share.waiting[place][2] is ticket
        del share.waiting[place]
        self._took(share)

    def weakest(self, than: str = "") -> Ticket | None:
        """Return the waiting ticket with the weakest claim: the last one of the team with the longest queue.

        Args:
            than: a team; its next ticket's claim must be stronger, or there is none.
        """
        longest = max(self._waiting.values(), key=_length, default=None)
        if longest is None:
            return None
        if than:
            own = self._shares.get(than) or self._open(than)
            if (len(own.waiting) + 1) / own.weight >= _length(longest):
                return None
        return longest.waiting[-1][2]

    def all(self) -> Iterable[Ticket]:
        """Return all waiting tickets."""
        return [entry[2] for share in self._waiting.values() for entry in share.waiting]

    def rebase(self, factor: float) -> None:
        """Scale all counters and forget the accounts that nobody will miss."""
        for share in self._shares.values():
            share.served *= factor
            share.reserved *= factor
        self._shares = {
            team: share for team, share in self._shares.items() if share.waiting or share.running or share.served > 1.0
        }

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Use other weights from now on."""
        self.weights = weights
        for share in self._shares.values():
            weight = weights.get(share.team, 1.0)
            share.served *= share.weight / weight
            share.reserved *= share.weight / weight
            share.weight = weight

    def _open(self, team: str) -> Share:
        share = self._shares[team] = Share(team, self.weights.get(team, 1.0))
        return share

    def _lift(self, share: Share) -> None:
        """Lift a team that comes back to the least served of those who wait, or to the last who did.

        What they have running does not count here: it is guessed, and who comes back has nothing running.
        """
        if self._waiting:
            level = min(other.served for other in self._waiting.values())
        elif self._last is not None:
            level = self._last.served
        else:
            return
        if share.served < level:
            share.served = level

    def _took(self, share: Share) -> None:
        self.length -= 1
        if not share.waiting:
            del self._waiting[share.team]
            self._last = share


def _claim(share: Share) -> tuple[float, int]:
    return share.served + share.reserved, share.turn


def _length(share: Share) -> float:
    return len(share.waiting) / share.weight
