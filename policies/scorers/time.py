"""Prefers replicas at which everybody together loses the least time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest
from gateway.routing.outlook import outlook


class TimeParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts beside the request's own time."""

    others: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.0
    slack_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 0.05


class TimeScorer:
    """Scores the shortest predicted time over the candidate's own.

    Time is the time to first token, the expected answer at the predicted inter-token latency and, weighted by
    ``others``, what all requests that run there would lose to this one: reading its prompt holds every answer up, and
    its tokens make every step longer. ``slack_s`` is added to all: differences well below it do not matter.
    """

    name: ClassVar[str] = "time"
    parameters: ClassVar[type[msgspec.Struct]] = TimeParams
    reads_prompts: ClassVar[bool] = True

    def __init__(self, params: TimeParams) -> None:
        """Keep the parameters."""
        self._others = params.others
        self._slack = params.slack_s

    def score(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return 1 for the best and less for the others."""
        view, others, slack = outlook(request, candidates), self._others, self._slack
        times = view.together
        if others != 1.0:
            times = [own + others * (both - own) for own, both in zip(view.alone(request), times, strict=True)]
        shortest = min(times) + slack
        return [shortest / (time + slack) for time in times]
