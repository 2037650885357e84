"""Drops endpoints that are dearer than the caller takes."""

from __future__ import annotations

from typing import ClassVar

from gateway.fleet.snapshot import Candidate
from gateway.types.money import usd_per_million_text, usd_text
from gateway.types.preferences import Preferences
from policies.filters.wish import WishFilter


class MaxPriceFilter(WishFilter):
    """Obeys ``provider.max_price`` with the sell price, which is what callers pay.

    There are no prices per image, so a limit on those holds everywhere.
    """

    name: ClassVar[str] = "max_price"
    field: ClassVar[str] = "provider.max_price"

    def wished(self, wishes: Preferences) -> bool:
        """Whether the caller sets a limit."""
        return wishes.max_price is not None

    def objection(self, wishes: Preferences, candidate: Candidate) -> str:
        """Object to the first class that is too dear."""
        limit, price, slug = wishes.max_price, candidate.endpoint.price, candidate.endpoint.slug
        if limit is None:
            return ""
        for name, most, rate in (
            ("prompt", limit.prompt, price.prompt),
            ("completion", limit.completion, price.completion),
            ("audio", limit.audio, price.prompt if price.audio_prompt is None else price.audio_prompt),
        ):
            if most is not None and rate > most:
                return f"{slug} costs {usd_per_million_text(rate)} USD per million {name} tokens"
        if limit.request is not None and price.request > limit.request:
            return f"{slug} costs {usd_text(price.request)} USD per request"
        return ""
