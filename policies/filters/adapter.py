"""Drops replicas that have not loaded the adapter, or do not serve the model, that another one has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Drop, NoParams, Refusal, RouteRequest


class AdapterFilter:
    """Prefers replicas that list the model under the name by which it is asked for there.

    LoRA adapters are loaded and unloaded while an engine runs, and it answers 404 for one that it has not got. What a
    replica lists is looked at once a minute and when it comes back, and counts only of engines that mind the name
    (vLLM). When no candidate lists the model all of them stay: a list may be old.
    """

    name: ClassVar[str] = "adapter"
    parameters: ClassVar[type[msgspec.Struct]] = NoParams
    refusal: ClassVar[Refusal] = Refusal.UNAVAILABLE
    only_hindered: ClassVar[bool] = True

    def __init__(self, params: NoParams) -> None:
        """Take no parameters."""

    def applies(self, request: RouteRequest) -> bool:  # noqa: ARG002 - the same for every request
        """Always: any replica may lack a model."""
        return True

    def keep(
        self,
        request: RouteRequest,  # noqa: ARG002 - what is listed does not depend on it
        candidates: Sequence[Candidate],
        drops: list[Drop],
    ) -> Sequence[Candidate]:
        """Return the candidates that list the model, or all when none does."""
        kept = [each for each in candidates if each.upstream_model not in each.load.lacks]
        if not kept or len(kept) == len(candidates):
            return candidates
        drops += [
            Drop(each, self.name, f"it does not list the model {each.upstream_model}")
            for each in candidates
            if each.upstream_model in each.load.lacks
        ]
        return kept
