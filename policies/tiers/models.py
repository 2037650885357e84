"""Tries the models of a request in the order in which the caller named them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import NoParams, RouteRequest


class ModelsTier:
    """Puts each model of ``models`` behind the one before it, unless the caller sorts endpoints across models."""

    name: ClassVar[str] = "models"
    obeys_preferences: ClassVar[bool] = True
    parameters: ClassVar[type[msgspec.Struct]] = NoParams

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def applies(self, request: RouteRequest) -> bool:
        """Whether there are several models."""
        wishes = request.preferences
        return wishes is not None and bool(wishes.models) and not wishes.across_models

    def ranks(
        self,
        request: RouteRequest,  # noqa: ARG002 - candidates come in the order of the models
        candidates: Sequence[Candidate],
    ) -> Sequence[float]:
        """Return the place of each candidate's model."""
        places: dict[str, int] = {}
        return [places.setdefault(candidate.endpoint.model_id, len(places)) for candidate in candidates]
