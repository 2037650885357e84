"""Drops endpoints that are dearer than the caller takes."""

from __future__ import annotations

from typing import ClassVar

from gateway.fleet.snapshot import Candidate
from gateway.pricing.charge import chosen
from gateway.routing.interface import RouteRequest
from gateway.types.money import (
    DEFAULT_TIER,
    PICO_PER_NANO,
    TERMS_WHOLE,
    at_terms,
    nano_at_terms,
    usd_per_million_text,
    usd_text,
)
from gateway.types.preferences import Preferences
from policies.filters.wish import WishFilter


class MaxPriceFilter(WishFilter):
    """Obeys ``provider.max_price`` with the sell price, which is what callers pay.

    It is the price of this very request: at its service tier, for as long a prompt as it seems to have, on its team's
    terms. There are no prices per image, so a limit on those holds everywhere.
    """

    name: ClassVar[str] = "max_price"
    field: ClassVar[str] = "provider.max_price"

    def wished(self, wishes: Preferences) -> bool:
        """Whether the caller sets a limit."""
        return wishes.max_price is not None

    def judged(self, request: RouteRequest, wishes: Preferences, candidate: Candidate) -> str:
        """Object to the first class that is too dear."""
        limit, endpoint = wishes.max_price, candidate.endpoint
        if limit is None:
            return ""
        sold, slug = endpoint.sold_to(request.team)[0], endpoint.slug
        terms = sold.discount, sold.markup
        price = chosen(sold, request.service_tier or DEFAULT_TIER, request.prompt_tokens)
        for name, most, rate in (
            ("prompt", limit.prompt, price.prompt),
            ("completion", limit.completion, price.completion),
            ("audio", limit.audio, price.prompt if price.audio_prompt is None else price.audio_prompt),
        ):
            if most is not None and at_terms(rate, *terms) > most * TERMS_WHOLE:
                return f"{slug} costs {usd_per_million_text(rate, *terms)} USD per million {name} tokens"
        if limit.request is not None and at_terms(price.request, *terms) > limit.request * TERMS_WHOLE:
            return f"{slug} costs {usd_text(nano_at_terms(price.request * PICO_PER_NANO, *terms))} USD per request"
        return ""
