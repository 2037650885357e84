"""Prefers replicas that will probably answer soon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest


class LatencyParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What matters, and the prefill rate of replicas whose own is not configured."""

    slack_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 0.25
    prefill_tokens_per_s: Annotated[float, msgspec.Meta(gt=0)] = 15_928.0


class LatencyScorer:
    """Scores the shortest predicted time to the end of the answer over the candidate's own.

    Predicted time = average time to first token + prompt tokens sent from here that still wait, at the replica's
    prefill rate + expected tokens per choice times the average inter-token latency. A replica without samples is taken
    to be as good as the best known one, so that it gets its samples. ``slack_s`` is added to both times: differences
    well below it do not matter.
    """

    name: ClassVar[str] = "latency"
    parameters: ClassVar[type[msgspec.Struct]] = LatencyParams

    def __init__(self, params: LatencyParams) -> None:
        """Keep the parameters."""
        self._slack = params.slack_s
        self._prefill = params.prefill_tokens_per_s

    def score(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return 1 for the quickest and less for the slower ones."""
        tokens = request.expected_tokens / (request.choices or 1)
        prefill, slack = self._prefill, self._slack
        best = 0.0
        times: list[float] = []
        unknown: list[int] = []
        for candidate in candidates:
            replica = candidate.replica
            load = replica.load
            ttft = load.ttft
            if ttft is None:
                unknown.append(len(times))
                time = slack
            else:
                time = ttft + slack
                itl = load.itl
                if itl is not None:
                    time += tokens * itl
                if time < best or not best:
                    best = time
            waiting = load.waiting_tokens
            if waiting > 0:
                time += waiting / (replica.backend.capacity.prefill_tokens_per_s or prefill)
            times.append(time)
        if best:
            for index in unknown:
                times[index] += best - slack
        shortest = min(times)
        return [shortest / time for time in times]
