"""Prefers endpoints at which this very request is cheap for the team that pays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate, Endpoint
from gateway.routing.interface import RouteRequest

_PICO_PER_NANO = 1_000


class PriceParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much dearer endpoints lose."""

    exponent: Annotated[float, msgspec.Meta(gt=0, le=8)] = 1.0


class PriceScorer:
    """Scores the lowest expected sell price over the candidate's own, to the power of ``exponent``.

    The expected price is prompt tokens and expected completion tokens at the endpoint's rates and its price per
    request. The cheapest scores 1, one that is twice as dear 1/2 with an exponent of 1 and 1/4 with 2.
    """

    name: ClassVar[str] = "price"
    parameters: ClassVar[type[msgspec.Struct]] = PriceParams

    def __init__(self, params: PriceParams) -> None:
        """Keep the exponent."""
        self._exponent = params.exponent

    def score(self, request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Return 1 for the cheapest and less for the dearer ones."""
        prompt, completion = request.prompt_tokens, request.expected_tokens
        prices: list[int] = []
        last: Endpoint | None = None
        price, alike = 0, True
        for candidate in candidates:
            endpoint = candidate.endpoint
            if endpoint is not last:
                # Replicas of one endpoint stand side by side and cost the same.
                alike, last, rates = last is None, endpoint, endpoint.price
                price = prompt * rates.prompt + completion * rates.completion + _PICO_PER_NANO * rates.request
            prices.append(price)
        if alike:
            return ()
        cheapest = min(prices)
        exponent = self._exponent
        return [(cheapest / price) ** exponent if price > cheapest else 1.0 for price in prices]
