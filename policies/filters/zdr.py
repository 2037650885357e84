"""Drops replicas that keep something of a request when the caller wants nothing kept."""

from __future__ import annotations

from typing import ClassVar

from gateway.fleet.snapshot import Candidate
from gateway.types.preferences import Preferences
from policies.filters.wish import PlainWishFilter


class ZdrFilter(PlainWishFilter):
    """Obeys ``provider.zdr``: only backends that are configured with zero data retention may serve."""

    name: ClassVar[str] = "zdr"
    field: ClassVar[str] = "provider.zdr"

    def wished(self, wishes: Preferences) -> bool:
        """Whether the caller wants nothing kept."""
        return wishes.zdr

    def objection(self, wishes: Preferences, candidate: Candidate) -> str:  # noqa: ARG002 - it is wished or it is not
        """Object to what keeps something."""
        return "" if candidate.replica.backend.zdr else f"{candidate.endpoint.provider} has no zero data retention"
