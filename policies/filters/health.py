"""Drops replicas that cannot take a request now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate, Replica
from gateway.routing.interface import Drop, NoParams, Refusal, RouteRequest


class HealthFilter:
    """Drops what is not ready, ejected by the breaker, draining, or cooling off.

    A replica cools off after it said that it is full. When the backend named the time itself (``Retry-After``), it is
    left alone for so long; when it did not, others are preferred, and it is used when there is no other.
    """

    name: ClassVar[str] = "health"
    parameters: ClassVar[type[msgspec.Struct]] = NoParams
    refusal: ClassVar[Refusal] = Refusal.UNAVAILABLE
    only_hindered: ClassVar[bool] = True

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def applies(self, request: RouteRequest) -> bool:  # noqa: ARG002 - the same for every request
        """Always: any replica may be down."""
        return True

    def keep(self, request: RouteRequest, candidates: Sequence[Candidate], drops: list[Drop]) -> Sequence[Candidate]:
        """Return the candidates that can take the request now."""
        now = request.now
        for candidate in candidates:
            if candidate.load.hindered_until > now:
                break
        else:
            return candidates
        kept, spared, out = [], [], []
        for candidate in candidates:
            reason = _reason(candidate.replica, now, own=candidate.endpoint.provider in request.own)
            if reason:
                out.append(Drop(candidate, self.name, reason))
            elif candidate.load.cooling_until > now and candidate.endpoint.provider not in request.own:
                spared.append(candidate)
            else:
                kept.append(candidate)
        drops += out
        if not kept:
            return spared if out else candidates
        drops += [Drop(candidate, self.name, "was full a moment ago") for candidate in spared]
        return kept


def _reason(replica: Replica, now: float, *, own: bool) -> str:
    """Return why a replica must not get the request, or nothing; one made with an ``own`` key may when it is full."""
    load = replica.load
    if not load.ready:
        return "not ready: its readiness probe fails"
    if load.ejected_until > now:
        return f"ejected for another {load.ejected_until - now:.0f} s after failures in a row"
    if load.draining:
        return "draining"
    if load.cooling_asked and load.cooling_until > now and not own:
        return f"full: it asked to be left alone for another {load.cooling_until - now:.0f} s"
    return ""
