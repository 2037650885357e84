"""Prefers the replica that served the conversation last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import NoParams, RouteRequest


class SessionScorer:
    """Scores 1 for the replica that served the request's session last and 0 for the others.

    A chat whose caller names no session is one by its first messages. Where nobody served it, all are alike.
    """

    name: ClassVar[str] = "session"
    parameters: ClassVar[type[msgspec.Struct]] = NoParams
    keeps_sessions: ClassVar[bool] = True

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def score(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return 1 or 0 for each."""
        session, now = request.session, request.now
        if not session:
            return ()
        times = [candidate.replica.load.sessions.last(session, now) or 0.0 for candidate in candidates]
        latest = max(times)
        return [1.0 if time == latest else 0.0 for time in times]
