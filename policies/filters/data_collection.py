"""Drops replicas that may store prompts or train on them when the caller denies it."""

from __future__ import annotations

from typing import ClassVar

from gateway.fleet.snapshot import Candidate
from gateway.types.preferences import Preferences
from policies.filters.wish import PlainWishFilter


class DataCollectionFilter(PlainWishFilter):
    """Obeys ``provider.data_collection: deny``."""

    name: ClassVar[str] = "data_collection"
    field: ClassVar[str] = "provider.data_collection"

    def wished(self, wishes: Preferences) -> bool:
        """Whether the caller denies it."""
        return wishes.deny_collection

    def objection(self, wishes: Preferences, candidate: Candidate) -> str:  # noqa: ARG002 - it is wished or it is not
        """Object to what may store prompts."""
        return f"{candidate.endpoint.provider} may store prompts" if candidate.replica.backend.collects else ""
