"""Prefers what costs the owner least, with own GPUs and external APIs on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest
from gateway.routing.outlook import Outlook, outlook, owner_cost

_PICO_PER_NANO = 1_000
_FULLEST = 2.0
"""A replica counts as at most so saturated: one with an endless queue says nothing of the others."""


class CostParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is dear."""

    par: Annotated[float, msgspec.Meta(gt=0, le=1_000)] = 1.0


class CostScorer:
    """Scores 1 for what costs the owner nothing, 1/2 for what costs ``par`` times what the request brings in.

    The cost of an external API is what it bills. The cost of an own GPU is the price of the time the request takes
    there (``usd_per_hour``) times the mean saturation of all own GPUs that could serve it, to the fourth power: idle
    GPUs are paid for anyway, full ones are worth their price, overfull ones more. So traffic moves out smoothly as they
    fill up, and comes back; between own GPUs only the time counts that the request takes there. What it brings in is
    the lowest sell price among the candidates. Where all are own GPUs of one price there is nothing to choose, and all
    score 1; so do the replicas of one endpoint when nobody says what their time costs.
    """

    name: ClassVar[str] = "cost"
    parameters: ClassVar[type[msgspec.Struct]] = CostParams
    reads_prompts: ClassVar[bool] = True

    def __init__(self, params: CostParams) -> None:
        """Keep the parameters."""
        self._par = params.par
        self._alike: Sequence[Candidate] | None = None

    def score(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return a score for each."""
        if candidates is self._alike:
            return ()
        first, price = candidates[0].endpoint, candidates[0].hourly
        for candidate in candidates:
            if not candidate.own or candidate.hourly != price or (price is None and candidate.endpoint is not first):
                break
        else:
            if type(candidates) is tuple:  # all of a model's: the same ones until the configuration changes
                self._alike = candidates
            return ()
        view = outlook(request, candidates)
        prompt, completion = request.prompt_tokens, request.expected_tokens
        income, last = 0, None
        for candidate in candidates:
            endpoint = candidate.endpoint
            if endpoint is not last:
                last, rates = endpoint, endpoint.price
                sold = prompt * rates.prompt + completion * rates.completion + _PICO_PER_NANO * rates.request
                income = min(income, sold) if income else sold
        scale = self._par * (income or 1)
        full = [
            used if used < _FULLEST else _FULLEST
            for candidate, used in zip(candidates, view.full(request), strict=True)
            if candidate.own
        ]
        saturation = sum(full) / len(full) if full else 0.0
        return _scores(request, view, scale, saturation)


def _scores(request: RouteRequest, view: Outlook, scale: float, saturation: float) -> list[float]:
    """Return the score of each candidate of ``view``."""
    hourly = any(candidate.own and candidate.hourly is not None for candidate in view.candidates)
    engine = view.engine(request) if hourly else view.cached
    found: list[float] = []
    before: Candidate | None = None
    score = 0.0
    for candidate, cached, seconds in zip(view.candidates, view.cached, engine, strict=True):
        # Replicas of one endpoint stand side by side, and without a price of their own time they cost the same.
        if (
            before is None
            or cached
            or hourly
            or candidate.endpoint is not before.endpoint
            or candidate.cost is not before.cost
            or candidate.own is not before.own
        ):
            score = scale / (scale + owner_cost(request, candidate, cached, seconds, saturation))
            before = None if cached else candidate
        found.append(score)
    return found
