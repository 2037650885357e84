"""Drops replicas that have not got the model, or its adapter, or not for this, when another one has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Drop, NoParams, Refusal, RouteRequest


class AdapterFilter:
    """Prefers replicas that have the model under the name by which it is asked for there.

    LoRA adapters are loaded and unloaded while an engine runs, and it answers 404 for one that it has not got. What a
    replica lists is looked at once a minute and when it comes back, and counts only of engines that mind the name
    (vLLM). Whatever answered five requests in a row that it has no such model, or no such API, is believed for half a
    minute, longer each time. When no candidate has the model all of them stay: a list may be old, words misread.
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
        request: RouteRequest,
        candidates: Sequence[Candidate],
        drops: list[Drop],
    ) -> Sequence[Candidate]:
        """Return the candidates that have the model, or all when none does."""
        operation, now = request.operation, request.now
        kept, out = [], []
        for each in candidates:
            if each.upstream_model in each.load.lacks:
                out.append(Drop(each, self.name, f"it does not list the model {each.upstream_model}"))
            elif each.load.lacking(each.upstream_model, operation, now):
                out.append(Drop(each, self.name, f"it says that it has no {each.upstream_model} for {operation}"))
            else:
                kept.append(each)
        if not kept or not out:
            return candidates
        drops += out
        return kept
