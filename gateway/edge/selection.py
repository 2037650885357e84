"""Which models of the catalogue a query asks for, and in which order: the query parameters of ``GET /api/v1/models``.

Prices in a query are USD per million tokens, as on OpenRouter's site. A value that is none of those known is refused
by name; a parameter that cannot mean anything here (benchmarks, arch) is not among them and is ignored, as any unknown
parameter is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from time import monotonic, time
from typing import Any, Final

from gateway.edge.models import modalities
from gateway.fleet.snapshot import Model
from gateway.types.errors import BadRequest

_LAST: Final = float("inf")
_DAY: Final = 86_400


class Selection:
    """What a query asks for; parameters as of the path, None where nothing was said. Lists are separated by commas."""

    def __init__(self, **asked: Any) -> None:
        self._tests: list[Callable[[Model], bool]] = []
        self._sort = asked.get("sort")
        for name in ("supported_parameters", "input_modalities", "output_modalities", "model_authors", "providers"):
            wanted = _words(asked.get(name))
            if wanted:
                self._tests.append(_holds(name, wanted))
        for name, price in _PRICES.items():
            self._bounds(name, price, asked.get(f"min_{name}"), asked.get(f"max_{name}"))
        if (words := asked.get("q")) is not None:
            self._tests.append(lambda model: words.casefold() in f"{model.id} {model.name}".casefold())
        if (least := asked.get("context")) is not None:
            self._tests.append(lambda model: model.context_length >= least)
        if asked.get("zdr"):
            self._tests.append(lambda model: any(each.replica.backend.zdr for each in model.candidates))
        if (region := asked.get("region")) is not None:
            self._tests.append(lambda model: any(each.region == region for each in model.endpoints))
        self._ages(asked.get("min_age_days"), asked.get("max_age_days"))
        used: Mapping[str, int] = asked.get("used") or {}
        self._sorts = SORTS | dict.fromkeys(POPULAR, lambda model: -used.get(model.id, 0))
        if self._sort is not None and self._sort not in self._sorts:
            raise BadRequest(
                f"sort is {self._sort[:64]!r}, which is not one of {', '.join(self._sorts)}",
                param="sort",
                metadata={"available": list(self._sorts)},
            )

    def of(self, models: Sequence[Model]) -> list[Model]:
        """Return those of ``models`` that are asked for, in the order asked for."""
        found = [model for model in models if all(test(model) for test in self._tests)]
        return found if self._sort is None else sorted(found, key=self._sorts[self._sort])

    def _bounds(self, name: str, price: Callable[[Model], int], least: str | None, most: str | None) -> None:
        if least is not None:
            floor = _rate(least, f"min_{name}")
            self._tests.append(lambda model: price(model) >= floor)
        if most is not None:
            ceiling = _rate(most, f"max_{name}")
            self._tests.append(lambda model: price(model) <= ceiling)

    def _ages(self, least: int | None, most: int | None) -> None:
        now = time()
        if least is not None:
            self._tests.append(lambda model: now - model.created >= least * _DAY)
        if most is not None:
            self._tests.append(lambda model: now - model.created <= most * _DAY)


def _words(text: str | None) -> frozenset[str]:
    return frozenset(word.strip().casefold() for word in (text or "").split(",")) - {""}


def _holds(name: str, wanted: frozenset[str]) -> Callable[[Model], bool]:
    """Return the test for a list: parameters and modalities must all be there, of names one is enough."""
    if name == "model_authors":
        return lambda model: model.id.partition("/")[0].casefold() in wanted
    if name == "providers":
        return lambda model: any(each.provider.casefold() in wanted for each in model.endpoints)
    if name == "supported_parameters":
        return lambda model: any(wanted <= each.parameters for each in model.endpoints)
    side = 0 if name == "input_modalities" else 1
    return lambda model: wanted <= set(modalities(model)[side]) or wanted == {"all"}


def _rate(text: str, param: str) -> Decimal:
    """Return USD per million tokens as our rate."""
    try:
        value = Decimal(text[:32])
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite() or value < 0:
        raise BadRequest(f"{param} is not a number of USD per million tokens: {text[:32]!r}", param=param)
    return value * 1_000_000


def _speed(model: Model, *, throughput: bool) -> float:
    """Return the best median of a model's endpoints, so that less is better; a model nobody measured comes last."""
    now = monotonic()
    found = []
    for endpoint in model.endpoints:
        speeds = endpoint.track.speeds(now)
        percentiles = speeds.throughput if throughput else speeds.latency
        if percentiles and "p50" in percentiles:
            found.append(-percentiles["p50"] if throughput else percentiles["p50"])
    return min(found, default=_LAST)


_PRICES: Final[dict[str, Callable[[Model], int]]] = {
    "price": lambda model: model.price.prompt,
    "output_price": lambda model: model.price.completion,
}
SORTS: Final[dict[str, Callable[[Model], float]]] = {
    "pricing-low-to-high": lambda model: model.price.prompt + model.price.completion,
    "pricing-high-to-low": lambda model: -model.price.prompt - model.price.completion,
    "context-high-to-low": lambda model: -model.context_length,
    "throughput-high-to-low": lambda model: _speed(model, throughput=True),
    "latency-low-to-high": lambda model: _speed(model, throughput=False),
    "newest": lambda model: -model.created,
}
"""Orders by their names."""
POPULAR: Final = ("most-popular", "top-weekly")
"""Orders by the tokens of the last seven days, which whoever makes a ``Selection`` has to know."""
