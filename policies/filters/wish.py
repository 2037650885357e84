"""What the filters that obey a caller's wish have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import Drop, NoParams, Refusal, RouteRequest
from gateway.types.preferences import Preferences


class WishFilter(ABC):
    """Drops what a caller does not want. In force in every preset: what a caller forbids no operator allows.

    Attributes:
        field: the request field that asks for it.
    """

    name: ClassVar[str]
    field: ClassVar[str]
    obeys_preferences: ClassVar[bool] = True
    parameters: ClassVar[type[msgspec.Struct]] = NoParams
    refusal: ClassVar[Refusal] = Refusal.UNSUPPORTED

    def __init__(self, params: NoParams) -> None:  # noqa: B027 - there is nothing to keep
        """Take no parameters."""

    def applies(self, request: RouteRequest) -> bool:
        """Whether the caller wishes it."""
        wishes = request.preferences
        return wishes is not None and self.wished(wishes)

    def keep(self, request: RouteRequest, candidates: Sequence[Candidate], drops: list[Drop]) -> Sequence[Candidate]:
        """Return the candidates that the caller wants."""
        wishes = request.preferences
        if wishes is None:
            return candidates
        kept = []
        for candidate in candidates:
            reason = self.judged(request, wishes, candidate)
            if reason:
                drops.append(Drop(candidate, self.name, reason))
            else:
                kept.append(candidate)
        return kept if len(kept) < len(candidates) else candidates

    @abstractmethod
    def wished(self, wishes: Preferences) -> bool:
        """Whether ``wishes`` hold this one."""

    @abstractmethod
    def judged(self, request: RouteRequest, wishes: Preferences, candidate: Candidate) -> str:
        """Return what of ``wishes`` speaks against ``candidate`` for ``request``, or nothing."""


class PlainWishFilter(WishFilter):
    """One that says the same of every request with these wishes."""

    def judged(self, request: RouteRequest, wishes: Preferences, candidate: Candidate) -> str:  # noqa: ARG002 - so it is
        """See ``WishFilter``."""
        return self.objection(wishes, candidate)

    @abstractmethod
    def objection(self, wishes: Preferences, candidate: Candidate) -> str:
        """Return what of ``wishes`` speaks against ``candidate``, or nothing."""
