"""Whether a replica may be used: the part of its books that the breaker, the probe and operators write.

It neither reads nor changes the other part (``gateway.fleet.account``). What follows from a condition follows at once.
Nothing here raises.
"""

from __future__ import annotations

from math import inf
from typing import Generic, TypeVar

from gateway.types.call import Operation

ValueT = TypeVar("ValueT", bool, float, frozenset[str])


class Condition(Generic[ValueT]):
    """An attribute of ``Conditions`` that decides whether the replica may be used: ``hindered_until`` follows it."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Learn the name of the slot."""
        self._slot = f"_{name}"

    def __get__(self, conditions: Conditions, owner: type | None = None) -> ValueT:
        """Return the value."""
        value: ValueT = getattr(conditions, self._slot)
        return value

    def __set__(self, conditions: Conditions, value: ValueT) -> None:
        """Set the value."""
        setattr(conditions, self._slot, value)
        conditions.weigh_conditions()


class Gap:
    """What a replica said in a row that it has not got.

    Attributes:
        failures: how often it said so since it last answered.
        until: monotonic seconds until which others are preferred; 0 when it has not said it often enough.
    """

    __slots__ = ("failures", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0


class Conditions:
    """What speaks against a replica, and until when.

    It is the base of the replica's books, not a part of them: a decision reads ``hindered_until`` of every candidate.

    Attributes:
        ready: whether the readiness probe passed; True until the first probes say otherwise.
        draining: an operator wants no new requests on it.
        lacks: models that it is to serve and does not list.
        gaps: what it said that it has not got, by model and operation; None when there is nothing.
        failures: failed requests in a row.
        ejected_until: monotonic seconds until which the breaker keeps the replica out; 0 when it is in.
        ejections: ejections in a row, less those that good behaviour has made good.
        forgiven_at: monotonic seconds at which a success makes one ejection good.
        cooling_until: monotonic seconds until which the replica is spared because it said that it is full.
        cooling_asked: the backend itself asked for that wait, so it binds; if not, others are merely preferred.
        hindered_until: monotonic seconds until which any of these speaks against the replica; infinite as long as one
            does that has no end of its own.
    """

    __slots__ = (
        "_cooling_until",
        "_draining",
        "_ejected_until",
        "_lacks",
        "_ready",
        "cooling_asked",
        "ejections",
        "failures",
        "forgiven_at",
        "gaps",
        "hindered_until",
    )

    ready = Condition[bool]()
    draining = Condition[bool]()
    ejected_until = Condition[float]()
    cooling_until = Condition[float]()
    lacks = Condition[frozenset[str]]()

    def __init__(self) -> None:
        self._ready = True
        self._draining = False
        self._lacks: frozenset[str] = frozenset()
        self.gaps: dict[tuple[str, Operation], Gap] | None = None
        self.failures = 0
        self._ejected_until = 0.0
        self.ejections = 0
        self.forgiven_at = 0.0
        self._cooling_until = 0.0
        self.cooling_asked = False
        self.hindered_until = 0.0

    def acquit(self) -> None:
        """Forget what it did wrong, and what it said that it is or has not got: it is asked with another key now."""
        self.gaps = None
        self.failures = self.ejections = 0
        self.forgiven_at = 0.0
        self.cooling_asked = False
        self.ejected_until = self.cooling_until = 0.0

    def returned(self) -> None:
        """It was found down and is back: what failed before does not keep it out, unless that happened before."""
        if self.ejections <= 1:
            self.failures = 0
            self.ejected_until = 0.0

    def weigh_conditions(self) -> None:
        """Find ``hindered_until`` anew."""
        barred = self._draining or not self._ready or self._lacks
        until = inf if barred else max(self._ejected_until, self._cooling_until)
        for gap in (self.gaps or {}).values():
            until = max(until, gap.until)
        self.hindered_until = until

    def lacking(self, model: str, operation: Operation, now: float) -> bool:
        """Whether it said of late, again and again, that it has not got ``model`` for ``operation``."""
        gap = self.gaps.get((model, operation)) if self.gaps is not None else None
        return gap is not None and gap.until > now
