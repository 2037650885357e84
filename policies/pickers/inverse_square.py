"""Draws among the cheap endpoints by one over the square of their price; the rest are fallbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from gateway.fleet.snapshot import Candidate, Endpoint
from gateway.routing.interface import Random, RouteRequest

_PICO_PER_NANO = 1_000


class InverseSquareParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as cheap."""

    within: Annotated[float, msgspec.Meta(ge=1)] = 4.0


class InverseSquarePicker:
    """Draws the first endpoint among those that cost at most ``within`` times the cheapest, by 1/price².

    At 1 and 3 USD the cheaper one gets nine of ten requests. The price is that of this very request. The other
    endpoints follow by price, and the replicas of each endpoint by score. Nothing is weighed where an endpoint is free:
    it comes first.
    """

    name: ClassVar[str] = "inverse_square"
    parameters: ClassVar[type[msgspec.Struct]] = InverseSquareParams

    def __init__(self, params: InverseSquareParams) -> None:
        """Keep the limit."""
        self._within = params.within

    def order(
        self, request: RouteRequest, candidates: Sequence[Candidate], scores: Sequence[float], rng: Random
    ) -> Sequence[int]:
        """Return every index once."""
        replicas: dict[int, list[int]] = {}
        endpoints: list[Endpoint] = []
        for index in sorted(range(len(candidates)), key=scores.__getitem__, reverse=True):
            endpoint = candidates[index].endpoint
            known = replicas.setdefault(id(endpoint), [])
            if not known:
                endpoints.append(endpoint)
            known.append(index)
        prices = {id(endpoint): _price(request, endpoint) for endpoint in endpoints}
        endpoints.sort(key=lambda endpoint: prices[id(endpoint)])
        first = self._drawn([prices[id(endpoint)] for endpoint in endpoints], rng)
        endpoints.insert(0, endpoints.pop(first))
        return [index for endpoint in endpoints for index in replicas[id(endpoint)]]

    def _drawn(self, prices: Sequence[float], rng: Random) -> int:
        """Return the place of the endpoint drawn; ``prices`` rise."""
        cheapest = prices[0]
        if cheapest <= 0 or len(prices) == 1:
            return 0
        weights = [(cheapest / price) ** 2 for price in prices if price <= self._within * cheapest]
        ticket = rng.random() * sum(weights)
        for place, weight in enumerate(weights):
            ticket -= weight
            if ticket < 0:
                return place
        return len(weights) - 1


def _price(request: RouteRequest, endpoint: Endpoint) -> float:
    """Return the expected sell price in pico-USD."""
    price = endpoint.price
    return (
        request.prompt_tokens * price.prompt
        + request.expected_tokens * price.completion
        + price.request * _PICO_PER_NANO
    )
