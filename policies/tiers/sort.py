"""Tries endpoints in the order of the measure that the caller sorts by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate, Endpoint
from gateway.pricing.charge import chosen
from gateway.routing.interface import NoParams, RouteRequest
from gateway.types.money import DEFAULT_TIER, PICO_PER_NANO, at_terms
from gateway.types.preferences import Sort
from policies.tiers.quality import quality_ranks


class SortTier:
    """Obeys ``provider.sort`` and the model suffixes ``:nitro``, ``:floor`` and ``:exacto``.

    * ``price``: the sell price of this very request (its service tier, its team's terms), lowest first;
    * ``throughput``, ``latency``: the median of the last five minutes, best first; what was not measured counts as the
      best, so that it will be;
    * ``exacto``: what calls tools well, see ``tool_quality``.

    Endpoints are sorted, not replicas: between the replicas of one endpoint the preset decides.
    """

    name: ClassVar[str] = "sort"
    obeys_preferences: ClassVar[bool] = True
    parameters: ClassVar[type[msgspec.Struct]] = NoParams

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def applies(self, request: RouteRequest) -> bool:
        """Whether the caller sorts."""
        wishes = request.preferences
        return wishes is not None and wishes.sorted

    def ranks(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return the measure of each candidate's endpoint, the best being the lowest."""
        wishes = request.preferences
        if wishes is None:
            return [0.0] * len(candidates)
        if wishes.sort is not None:
            return _measures(wishes.sort, request, candidates)
        ranks = [0.0] * len(candidates)
        for model_id, sort in wishes.sorts.items():
            places = [place for place, each in enumerate(candidates) if each.endpoint.model_id == model_id]
            measures = _measures(sort, request, [candidates[place] for place in places])
            for place, measure in zip(places, measures, strict=True):
                ranks[place] = measure
        return ranks


def _measures(sort: Sort, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
    """Return what ``candidates`` are sorted by, the best being the lowest."""
    if sort is Sort.PRICE:
        return [_price(request, candidate.endpoint) for candidate in candidates]
    if sort is Sort.EXACTO:
        return quality_ranks(request, candidates)
    speeds = [candidate.endpoint.track.speeds(request.now) for candidate in candidates]
    if sort is Sort.LATENCY:
        return _filled([each.latency["p50"] if each.latency else None for each in speeds])
    return _filled([-each.throughput["p50"] if each.throughput else None for each in speeds])


def _price(request: RouteRequest, endpoint: Endpoint) -> float:
    """Return what the request will probably cost its team there: at its service tier, on the team's terms."""
    sold = endpoint.sold_to(request.team)[0]
    price = chosen(sold, request.service_tier or DEFAULT_TIER, request.prompt_tokens)
    listed = (
        request.prompt_tokens * price.prompt
        + request.expected_tokens * price.completion
        + price.request * PICO_PER_NANO
    )
    return at_terms(listed, sold.discount, sold.markup)


def _filled(measures: Sequence[float | None]) -> Sequence[float]:
    """Return ``measures`` with the best of them in the place of those that are not known."""
    best = min((measure for measure in measures if measure is not None), default=0.0)
    return [best if measure is None else measure for measure in measures]
