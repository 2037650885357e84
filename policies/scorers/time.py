"""Prefers replicas at which everybody together loses the least time, and the fewest answers come too late."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Annotated, ClassVar, Final

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest
from gateway.routing.outlook import Outlook, outlook
from gateway.types.priority import Priority

SPREAD: Final = 0.1
"""How far predictions are off, as a share of the limit: what decides how sharp the edge of a limit is."""
SHARP: Final = 0.06
"""The same where an external API is a candidate: what comes next can always leave, so the own ones may be fuller."""
EDGE: Final = 4.0
"""Spreads below a limit from which on somebody is expected to miss it."""
CALM: Final = 1.0 - EDGE * SPREAD
"""Share of any limit up to which nobody is expected to miss it."""
_CALM_MISS: Final = 1.0 / (1.0 + exp(EDGE))


class TimeParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts beside the request's own time."""

    others: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.0
    slack_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 0.05
    miss_s: Annotated[float, msgspec.Meta(ge=0, le=100_000)] = 0.0
    ttft_s: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    ttft_s_per_1k_uncached: Annotated[float, msgspec.Meta(ge=0)] = 0.125
    itl_s: Annotated[float, msgspec.Meta(gt=0)] = 0.06
    margin: Annotated[float, msgspec.Meta(gt=0, le=2)] = 0.9
    relief: Annotated[float, msgspec.Meta(ge=0, le=100)] = 3.0
    first: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0


class TimeScorer:
    """Scores the shortest predicted time over the candidate's own.

    Time is the time to first token, the expected answer at the predicted inter-token latency and, weighted by
    ``others``, what all requests that run there would lose to this one: reading its prompt holds every answer up, and
    its tokens make every step longer. ``slack_s`` is added to all: differences well below it do not matter.

    With ``miss_s``, each answer that will probably miss its limits counts as so many seconds: this one, and those that
    run there and come nearer to the edge by it. What others lose where they miss anyway counts no more, so what is too
    much for the fleet gathers where the fewest answers are lost. ``relief`` is the worth of a replica that is beyond
    the limit and could come back: so many misses, less the slower its steps are than those of the fastest one. While
    nobody is near a limit, tokens come quicker than they are read, and the wait for the first one is what callers feel:
    it counts ``first`` times more then.
    """

    name: ClassVar[str] = "time"
    parameters: ClassVar[type[msgspec.Struct]] = TimeParams
    reads_prompts: ClassVar[bool] = True

    def __init__(self, params: TimeParams) -> None:
        """Keep the parameters."""
        self._params = params
        self._others = params.others
        self._misses = params.miss_s > 0.0
        self._first = float(params.first)
        self._slack = params.slack_s
        self._itl = params.margin * params.itl_s
        self._ttft = params.margin * params.ttft_s
        self._calm_itl, self._calm_ttft = CALM * self._itl, CALM * self._ttft
        self._per_token = params.margin * params.ttft_s_per_1k_uncached / 1_000.0

    def score(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return 1 for the best and less for the others."""
        view, others, slack = outlook(request, candidates), self._others, self._slack
        times = view.together
        if others != 1.0:
            times = [own + others * (both - own) for own, both in zip(view.alone(request), times, strict=True)]
        late = self._calm(request, view, times) if self._misses else None
        if late is None:
            if self._misses:
                times = self._with_misses(request, view, times)
            late = [time + slack for time in times]
        shortest = min(late)
        return [shortest / time for time in late]

    def _calm(self, request: RouteRequest, view: Outlook, times: list[float]) -> list[float] | None:
        """Return ``times`` and the slack as they count while nobody is near a limit, or None when somebody is."""
        if request.slo_ttft is not None or request.slo_itl is not None:
            return None
        first, slack, waited, most, slowest = self._first, self._slack, request.waited, self._calm_ttft, self._calm_itl
        found: list[float] = []
        for time, ttft, itl in zip(times, view.ttft, view.itl, strict=True):
            if itl > slowest or waited + ttft > most:
                return None
            found.append(time + first * ttft + slack)
        return found

    def _with_misses(self, request: RouteRequest, view: Outlook, times: list[float]) -> list[float]:
        """Return ``times`` and what the misses are worth that this request would have, or cause."""
        itls = view.itl
        params = self._params
        answer = request.expected_tokens / (request.choices or 1) or 1.0
        spread = SHARP if any(not each.own for each in view.candidates) else SPREAD
        misses = [_miss(itl / self._itl, spread) for itl in itls]
        found = []
        for relief, missing, time, ttft, itl, cached in zip(
            self._reliefs(view, misses, spread), misses, times, view.ttft, itls, view.cached, strict=True
        ):
            lost = time - ttft - answer * itl
            own = 0.0
            if request.priority is not Priority.BATCH:
                in_time = 1.0 - self._late(request, ttft, cached, spread)
                own = 1.0 - in_time * (1.0 - self._slow(request, itl, missing, spread))
            nearer = lost / (answer * self._itl) * missing * (1.0 - missing) / spread
            found.append(time - missing * lost + params.miss_s * (own + nearer + relief))
        return found

    def _reliefs(self, view: Outlook, misses: list[float], spread: float) -> list[float]:
        """Return what it is worth to give each own replica less, beyond what it is worth at every one of them."""
        estimates = [each.load.estimate if each.own else None for each in view.candidates]
        steps = [each.step + each.per_request if each else 0.0 for each in estimates]
        fastest = min(filter(None, steps), default=0.0)
        found = [
            self._params.relief * (missing - _miss(step / self._itl, spread)) * (fastest / step) if step else 0.0
            for missing, step in zip(misses, steps, strict=True)
        ]
        least = min([relief for relief, step in zip(found, steps, strict=True) if step], default=0.0)
        return [relief - least if step else 0.0 for relief, step in zip(found, steps, strict=True)]

    def _late(self, request: RouteRequest, ttft: float, cached: float, spread: float) -> float:
        """Return how probably the first token comes too late."""
        limit = request.slo_ttft
        most = (
            self._ttft + self._per_token * (request.prompt_tokens - cached)
            if limit is None
            else self._params.margin * limit
        )
        return _miss((request.waited + ttft) / most, spread)

    def _slow(self, request: RouteRequest, itl: float, missing: float, spread: float) -> float:
        """Return how probably the tokens come too slowly; ``missing`` is that by the limit of all."""
        limit = request.slo_itl
        return missing if limit is None else _miss(itl / (self._params.margin * limit), spread)


def _miss(share: float, spread: float) -> float:
    """Return how probably a limit is missed of which ``share`` is predicted to be used up; 0 well below it."""
    beyond = (1.0 - share) / spread
    if beyond >= EDGE:
        return 0.0
    return (1.0 / (1.0 + exp(beyond)) - _CALM_MISS) / (1.0 - _CALM_MISS)
