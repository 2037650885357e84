"""Drops endpoints with other quantizations than the caller takes."""

from __future__ import annotations

from typing import ClassVar

from gateway.fleet.snapshot import Candidate
from gateway.types.preferences import UNKNOWN_QUANTIZATION, Preferences
from policies.filters.wish import PlainWishFilter


class QuantizationFilter(PlainWishFilter):
    """Obeys ``provider.quantizations``; an endpoint without a configured one is ``unknown``."""

    name: ClassVar[str] = "quantization"
    field: ClassVar[str] = "provider.quantizations"

    def wished(self, wishes: Preferences) -> bool:
        """Whether the caller names quantizations."""
        return bool(wishes.quantizations)

    def objection(self, wishes: Preferences, candidate: Candidate) -> str:
        """Object to a quantization that the caller did not name."""
        quantization = (candidate.endpoint.quantization or UNKNOWN_QUANTIZATION).casefold()
        if quantization in wishes.quantizations:
            return ""
        return f"{candidate.endpoint.slug} has the quantization {quantization}"
