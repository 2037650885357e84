"""Tries endpoints that call tools well first, for requests with tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import ClassVar, Final

import msgspec

from gateway.fleet.snapshot import Candidate, Endpoint
from gateway.routing.interface import NoParams, RouteRequest
from gateway.types.call import Need

_TOOLS: Final = Need.TOOLS.value
COMPARABLE: Final = 4
"""Endpoints needed before one of them is told to be an outlier."""
FEW_REQUESTS: Final = 100
"""Requests in half an hour below which too little is known of an endpoint."""
_SIGMA: Final = 1.4826
"""Standard deviations in one median absolute deviation of a normal distribution."""
_THROUGHPUT_SIGMAS: Final = 1.5
_SUCCESS_SIGMAS: Final = 2.0
_GOOD, _UNTOLD, _POOR = 0.0, 2.0, 4.0
_NO_OPINION: Final = 0.5


class ToolQualityTier:
    """Orders the endpoints of a model by how well they call tools, when a request has tools and is not sorted.

    With four endpoints or more, those whose throughput is 1.5 or whose tool-call success is 2 standard deviations below
    the median come last, and those of which too little is known before them. Among equals the configured
    ``tool_quality`` decides.
    """

    name: ClassVar[str] = "tool_quality"
    parameters: ClassVar[type[msgspec.Struct]] = NoParams

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def applies(self, request: RouteRequest) -> bool:
        """Whether the request has tools and the caller did not say what to sort by."""
        wishes = request.preferences
        return bool(request.needs & _TOOLS) and (wishes is None or not wishes.sorted)

    def ranks(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return the standing of each candidate's endpoint."""
        return quality_ranks(request, candidates)


def quality_ranks(request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
    """Return the standing of each candidate's endpoint among those of its model, the best being the lowest."""
    models: dict[str, dict[str, Endpoint]] = {}
    for candidate in candidates:
        endpoint = candidate.endpoint
        models.setdefault(endpoint.model_id, {})[endpoint.slug] = endpoint
    standing = {model_id: _standing(endpoints, request.now) for model_id, endpoints in models.items()}
    return [standing[each.endpoint.model_id][each.endpoint.slug] for each in candidates]


def _standing(endpoints: Mapping[str, Endpoint], now: float) -> Mapping[str, float]:
    found = {
        slug: 1.0 - (_NO_OPINION if endpoint.tool_quality is None else endpoint.tool_quality)
        for slug, endpoint in endpoints.items()
    }
    if len(endpoints) < COMPARABLE:
        return found
    throughput, success = {}, {}
    for slug, endpoint in endpoints.items():
        track = endpoint.track
        speeds, share = track.speeds(now).throughput, track.tool_success(now)
        if speeds is not None and sum(track.uptime(now)) >= FEW_REQUESTS:
            throughput[slug] = speeds["p50"]
        if share is not None:
            success[slug] = share
    poor = _outliers(throughput, _THROUGHPUT_SIGMAS) | _outliers(success, _SUCCESS_SIGMAS)
    if throughput:
        for slug in found:
            found[slug] += _POOR if slug in poor else _GOOD if slug in throughput else _UNTOLD
    return found


def _outliers(measures: Mapping[str, float], sigmas: float) -> set[str]:
    """Return the names of those that are ``sigmas`` standard deviations or more below the median."""
    if len(measures) < COMPARABLE:
        return set()
    middle = median(measures.values())
    sigma = _SIGMA * median(abs(measure - middle) for measure in measures.values())
    return {name for name, measure in measures.items() if sigma and measure < middle - sigmas * sigma}
