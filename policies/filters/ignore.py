"""Drops endpoints that the caller does not want."""

from __future__ import annotations

from typing import ClassVar

from gateway.fleet.snapshot import Candidate
from gateway.types.preferences import Preferences
from policies.filters.wish import PlainWishFilter


class IgnoreFilter(PlainWishFilter):
    """Obeys ``provider.ignore``."""

    name: ClassVar[str] = "ignore"
    field: ClassVar[str] = "provider.ignore"

    def wished(self, wishes: Preferences) -> bool:
        """Whether the caller names what must not serve."""
        return bool(wishes.ignore)

    def objection(self, wishes: Preferences, candidate: Candidate) -> str:
        """Object to what the caller named."""
        return "" if candidate.names.isdisjoint(wishes.ignore) else f"{candidate.endpoint.slug} is in provider.ignore"
