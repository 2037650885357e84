"""Drops endpoints that are not among those the caller allows."""

from __future__ import annotations

from typing import ClassVar

from gateway.fleet.snapshot import Candidate
from gateway.types.preferences import Preferences
from policies.filters.wish import PlainWishFilter


class OnlyFilter(PlainWishFilter):
    """Obeys ``provider.only``, and ``provider.order`` where the caller wants no fallbacks."""

    name: ClassVar[str] = "only"
    field: ClassVar[str] = "provider.only"

    def wished(self, wishes: Preferences) -> bool:
        """Whether the caller names what may serve."""
        return bool(wishes.only) or (bool(wishes.order) and not wishes.allow_fallbacks)

    def objection(self, wishes: Preferences, candidate: Candidate) -> str:
        """Object to what the caller did not name."""
        if wishes.only and candidate.names.isdisjoint(wishes.only):
            return f"{candidate.endpoint.slug} is not in provider.only"
        if wishes.order and not wishes.allow_fallbacks and candidate.names.isdisjoint(wishes.order):
            return f"{candidate.endpoint.slug} is not in provider.order, and provider.allow_fallbacks is false"
        return ""
