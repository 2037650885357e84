"""What a caller asks of routing: OpenRouter's ``provider`` object and what goes with it, read and checked.

Plain values; the dialect makes them, routing obeys them. A request that asks for nothing has no ``Preferences`` at all,
so that the common case costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import msgspec

UNKNOWN_QUANTIZATION: Final = "unknown"
"""The quantization of endpoints of which none is configured."""
NO_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})


class Sort(StrEnum):
    """How endpoints are ordered when the caller says so; this takes the place of load balancing."""

    PRICE = "price"
    THROUGHPUT = "throughput"
    LATENCY = "latency"
    EXACTO = "exacto"


NO_SORTS: Final[Mapping[str, Sort]] = MappingProxyType({})


class Cutoffs(msgspec.Struct, frozen=True, gc=False):
    """Limits at percentiles of requests; all that are given must hold, None is no limit.

    The p90 of a cutoff is the value that 90 % of requests do better than. Units: tokens per second for throughput,
    seconds for latency.
    """

    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p99: float | None = None


class MaxPrice(msgspec.Struct, frozen=True, gc=False):
    """The dearest sell price a caller takes, by class; None is no limit.

    Attributes:
        prompt, completion: pico-USD per token.
        request: nano-USD per request.
        image, audio: pico-USD per prompt token of that kind.
    """

    prompt: int | None = None
    completion: int | None = None
    request: int | None = None
    image: int | None = None
    audio: int | None = None


class Preferences(msgspec.Struct, frozen=True, eq=False):
    """A caller's wishes, all optional.

    A *slug* names a provider (``acme``), one of its endpoints (``acme/fp8``, ``acme/eu``) or a replica by its name.
    Slugs and quantizations are case-folded here.

    Attributes:
        models: models to fall back to after the one named, in order of preference.
        order: slugs of the endpoints to try first, in this order; the rest follow.
        only: slugs of the only endpoints that may serve, or none to allow all.
        ignore: slugs of endpoints that must not serve.
        allow_fallbacks: whether other endpoints may serve when the first fails; replicas of one endpoint always may.
        require_parameters: only endpoints that support every one of ``parameters`` may serve.
        deny_collection: only endpoints that neither store prompts nor train on them may serve.
        zdr: only endpoints with zero data retention may serve.
        quantizations: the only quantizations that may serve, or none to allow all; ``unknown`` is one not configured.
        sort: order of endpoints in place of load balancing, or None.
        sorts: the same for single models by their ids, where the names the caller used say so.
        across_models: whether endpoints of all models are sorted together, not one model after the other.
        max_price: the dearest sell price taken, or None.
        min_throughput: tokens per second that are preferred; slower endpoints come later.
        max_latency: seconds to the first token that are preferred; slower endpoints come later.
        options: fields for the body that is sent to a provider, by its slug.
        parameters: names of the parameters the request uses, as the catalogue's ``supported_parameters`` has them.
    """

    models: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    allow_fallbacks: bool = True
    require_parameters: bool = False
    deny_collection: bool = False
    zdr: bool = False
    quantizations: tuple[str, ...] = ()
    sort: Sort | None = None
    sorts: Mapping[str, Sort] = NO_SORTS
    across_models: bool = False
    max_price: MaxPrice | None = None
    min_throughput: Cutoffs | None = None
    max_latency: Cutoffs | None = None
    options: Mapping[str, Mapping[str, Any]] = NO_OPTIONS
    parameters: frozenset[str] = frozenset()

    @property
    def sorted(self) -> bool:
        """Whether the caller says how to sort, for all models or for one."""
        return self.sort is not None or bool(self.sorts)
