"""Drops endpoints that do not support the parameters a request uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from gateway.engines.parameters import SOFT
from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Drop, RouteRequest
from gateway.types.preferences import Preferences
from policies.filters.wish import PlainWishFilter


class SupportedParametersFilter(PlainWishFilter):
    """Obeys ``provider.require_parameters``: only endpoints that support every parameter of the request may serve.

    When it is not set, a few parameters that change what an answer is (``response_format``, ``tools``, ``verbosity``)
    are still preferred: if any endpoint of a model supports them, only those serve; if none does, all may.
    """

    name: ClassVar[str] = "supported_parameters"
    field: ClassVar[str] = "provider.require_parameters"

    def keep(self, request: RouteRequest, candidates: Sequence[Candidate], drops: list[Drop]) -> Sequence[Candidate]:
        """Return the candidates that support what is required, or what is preferred if that leaves any."""
        wishes = request.preferences
        if wishes is None or wishes.require_parameters:
            return super().keep(request, candidates, drops)
        preferred = wishes.parameters & SOFT
        able = {each.endpoint.model_id for each in candidates if preferred <= each.endpoint.parameters}
        kept = []
        for candidate in candidates:
            endpoint = candidate.endpoint
            if preferred <= endpoint.parameters or endpoint.model_id not in able:
                kept.append(candidate)
            else:
                drops.append(Drop(candidate, self.name, _lacking(candidate, preferred)))
        return kept if len(kept) < len(candidates) else candidates

    def wished(self, wishes: Preferences) -> bool:
        """Whether the request uses parameters that matter."""
        return bool(wishes.parameters) and (wishes.require_parameters or not SOFT.isdisjoint(wishes.parameters))

    def objection(self, wishes: Preferences, candidate: Candidate) -> str:
        """Object to what lacks a parameter."""
        return _lacking(candidate, wishes.parameters)


def _lacking(candidate: Candidate, wanted: frozenset[str]) -> str:
    missing = wanted - candidate.endpoint.parameters
    return f"{candidate.endpoint.slug} does not support {', '.join(sorted(missing))}" if missing else ""
