"""The caller's controls of routing, read from the body and the headers of any inference request.

OpenRouter's ``provider`` object, ``models``, ``route``, ``session_id`` and a few of our own. Everything is checked here
for its type and its range; what names mean is checked where the fleet is known (``gateway.routing.preferences``). An
unknown member of ``provider`` is refused: a mistyped restriction must not be taken for none. Raises ``BadRequest``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from gateway.edge.plugins import Plugins, Transforms, check_plugins
from gateway.engines.parameters import SOFT, used
from gateway.types.call import Call
from gateway.types.errors import BadRequest
from gateway.types.money import SERVICE_TIERS
from gateway.types.preferences import NO_OPTIONS, Cutoffs, MaxPrice, Preferences, Sort
from gateway.types.priority import Priority

MOST_MODELS: Final = 16
LONGEST_SESSION: Final = 256
LONGEST_WAIT_MS: Final = 86_400_000.0
"""A day: no limit that a caller sets in milliseconds may be longer."""
_RATE_DECIMALS: Final = 6
_AMOUNT_DECIMALS: Final = 9
_LARGEST: Final = 2**63 - 1
_PLACE: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")
_SOFT_FIELDS: Final = frozenset(SOFT - {"tools"})
"""``tools`` alone asks for nothing more than the capability filter checks for every request."""

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Slugs = Annotated[list[Name], Meta(max_length=100)]
Number = Annotated[float, Meta(ge=0)]
Shape = TypeVar("Shape")


class RoutingShape(msgspec.Struct, kw_only=True):
    """The members of every inference request that are addressed to the gateway's routing."""

    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    models: Annotated[list[Name], Meta(max_length=MOST_MODELS)] | None = None
    provider: dict[str, Any] | None = None
    route: str | None = None
    preset: Name | None = None
    session_id: str | None = None
    prompt_cache_key: str | None = None
    priority: str | int | float | None = None
    plugins: Plugins | None = None
    transforms: Transforms | None = None
    user: str | None = None

    @property
    def named(self) -> str:
        """The model that is asked for first. Raises ``BadRequest`` when none is."""
        if self.model is not None:
            return self.model
        if self.models:
            return self.models[0]
        raise BadRequest("the request names no model: set model, or models to fall back through", param="model")


class _SortShape(msgspec.Struct, forbid_unknown_fields=True):
    by: str | None = None
    partition: str | None = None


class _CutoffShape(msgspec.Struct, forbid_unknown_fields=True):
    p50: Number | None = None
    p75: Number | None = None
    p90: Number | None = None
    p99: Number | None = None


class _PriceShape(msgspec.Struct, forbid_unknown_fields=True):
    prompt: int | float | str | None = None
    completion: int | float | str | None = None
    request: int | float | str | None = None
    image: int | float | str | None = None
    audio: int | float | str | None = None


class ProviderShape(msgspec.Struct, forbid_unknown_fields=True):
    """OpenRouter's ``provider`` object."""

    order: Slugs | None = None
    only: Slugs | None = None
    ignore: Slugs | None = None
    allow_fallbacks: bool | None = None
    require_parameters: bool | None = None
    data_collection: str | None = None
    zdr: bool | None = None
    enforce_distillable_text: bool | None = None
    quantizations: Slugs | None = None
    sort: str | _SortShape | None = None
    max_price: _PriceShape | None = None
    preferred_min_throughput: Number | _CutoffShape | None = None
    preferred_max_latency: Number | _CutoffShape | None = None
    options: dict[str, dict[str, Any] | None] | None = None


_MEMBERS: Final[Mapping[str, Sequence[str]]] = {
    "": ProviderShape.__struct_fields__,
    "sort": _SortShape.__struct_fields__,
    "max_price": _PriceShape.__struct_fields__,
    "preferred_min_throughput": _CutoffShape.__struct_fields__,
    "preferred_max_latency": _CutoffShape.__struct_fields__,
}
FIELDS: Final = frozenset(
    {
        "models",
        "provider",
        "route",
        "preset",
        "session_id",
        "prompt_cache_key",
        "priority",
        "service_tier",
        "plugins",
        "transforms",
        *_SOFT_FIELDS,
    }
)
"""Body fields that make a difference here."""
CONTROL_HEADERS: Final = frozenset(
    {
        b"x-session-id",
        b"x-weir-policy",
        b"x-weir-priority",
        b"x-slo-ttft-ms",
        b"x-slo-tpot-ms",
        b"x-weir-deadline-ms",
        b"x-openrouter-metadata",
        b"x-openrouter-experimental-metadata",
    }
)
"""Headers that ``read_headers`` reads."""


def read_body(call: Call, shape: RoutingShape) -> None:
    """Take what the body of ``call``, read as ``shape``, says of routing."""
    body = call.body
    if FIELDS.isdisjoint(body):
        return
    if shape.route is not None and shape.route != "fallback":
        raise _not_one_of("route", shape.route, ("fallback",))
    check_plugins(shape.plugins, shape.transforms)
    tier = body.get("service_tier")
    if isinstance(tier, str) and tier in SERVICE_TIERS:
        call.service_tier = tier
    call.preset = shape.preset
    call.session = _session(shape.session_id, "session_id") or (shape.prompt_cache_key or "")[:LONGEST_SESSION]
    if isinstance(shape.priority, str):  # a number is the engine's own and not for callers to set
        call.priority = _priority(shape.priority, "priority")
    models = tuple(dict.fromkeys(name for name in shape.models or () if name != call.model))
    if shape.provider or models or not _SOFT_FIELDS.isdisjoint(body):
        call.preferences = preferences(shape.provider or {}, models, body)
        if call.preferences.order:
            call.session = ""  # an order of the caller's own goes before any affinity


def read_headers(call: Call, headers: Mapping[bytes, bytes]) -> None:
    """Take what the headers say of routing; the body goes first."""
    found = headers.get(b"x-session-id")
    if found and not (isinstance(call.body.get("session_id"), str) and call.body["session_id"]):
        ordered = call.preferences is not None and bool(call.preferences.order)
        call.session = "" if ordered else _session(_text(found), "x-session-id")
    found = headers.get(b"x-weir-policy")
    if found and call.preset is None:
        call.preset = _text(found)
    found = headers.get(b"x-weir-priority")
    if found and not isinstance(call.body.get("priority"), str):
        call.priority = _priority(_text(found), "x-weir-priority")
    call.slo_ttft = _seconds(headers, b"x-slo-ttft-ms")
    call.slo_itl = _seconds(headers, b"x-slo-tpot-ms")
    call.deadline = _seconds(headers, b"x-weir-deadline-ms")
    asked = headers.get(b"x-openrouter-metadata") or headers.get(b"x-openrouter-experimental-metadata")
    call.explains = asked is not None and asked.strip().lower() == b"enabled"


def preferences(provider: dict[str, Any], models: tuple[str, ...], body: Mapping[str, Any]) -> Preferences:
    """Return what the ``provider`` object of ``body`` asks for. Raises ``BadRequest`` naming the path."""
    shape = _converted(provider)
    if shape.enforce_distillable_text:
        raise BadRequest(
            "provider.enforce_distillable_text cannot be met: the terms of models are not known here",
            param="provider.enforce_distillable_text",
        )
    order, only, ignore = _folded(shape.order), _folded(shape.only), _folded(shape.ignore)
    for field, slugs in (("only", only), ("order", order)):
        both = [slug for slug in slugs if slug in ignore]
        if both:
            param = f"provider.{field}"
            raise BadRequest(f"{param} and provider.ignore contradict each other: both name {both[0]!r}", param=param)
    if shape.data_collection not in {None, "allow", "deny"}:
        raise _not_one_of("provider.data_collection", str(shape.data_collection), ("allow", "deny"))
    sort, across = _sort(shape.sort)
    return Preferences(
        models=models,
        order=order,
        only=only,
        ignore=ignore,
        allow_fallbacks=shape.allow_fallbacks is not False,
        require_parameters=bool(shape.require_parameters),
        deny_collection=shape.data_collection == "deny",
        zdr=bool(shape.zdr),
        quantizations=_quantizations(_folded(shape.quantizations)),
        sort=sort,
        across_models=across,
        max_price=_max_price(shape.max_price),
        min_throughput=_cutoffs(shape.preferred_min_throughput),
        max_latency=_cutoffs(shape.preferred_max_latency),
        options={slug.casefold(): fields for slug, fields in (shape.options or {}).items() if fields} or NO_OPTIONS,
        parameters=used(body),
    )


def _converted(provider: dict[str, Any]) -> ProviderShape:
    try:
        return msgspec.convert(provider, ProviderShape)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        path = place[1] if place else ""
        message = _PLACE.sub("", text)
        unknown = _UNKNOWN.fullmatch(message)
        if unknown:
            known = _MEMBERS.get(path, ProviderShape.__struct_fields__)
            param = ".".join(part for part in ("provider", path, unknown[1][:64]) if part)
            near = get_close_matches(unknown[1][:64].casefold(), known, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known)}"
            raise BadRequest(f"{param} is not known; {hint}", param=param, metadata={"near": near}) from None
        param = f"provider.{path}" if path else "provider"
        raise BadRequest(f"{param}: {message[:1].lower()}{message[1:]}", param=param) from None


def _folded(names: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip().casefold() for name in names)) if names else ()


def _quantizations(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``names``, each in its place, and behind them the finer formats that a coarse one includes."""
    more = {"fp4": ("mxfp4", "nvfp4"), "fp8": ("mxfp8",)}
    return tuple(dict.fromkeys([*names, *[each for name in names for each in more.get(name, ())]]))


def _sort(value: str | _SortShape | None) -> tuple[Sort | None, bool]:
    """Return the order wanted, and whether endpoints of all models are sorted together."""
    if value is None:
        return None, False
    if isinstance(value, str):
        return _order(value, "provider.sort"), False
    if value.partition not in {None, "model", "none"}:
        raise _not_one_of("provider.sort.partition", str(value.partition), ("model", "none"))
    return _order(value.by, "provider.sort.by") if value.by is not None else None, value.partition == "none"


def _order(name: str, param: str) -> Sort:
    try:
        return Sort(name)
    except ValueError:
        raise _not_one_of(param, name, tuple(Sort)) from None


def _max_price(shape: _PriceShape | None) -> MaxPrice | None:
    if shape is None:
        return None
    return MaxPrice(
        prompt=_limit(shape.prompt, "prompt", _RATE_DECIMALS),
        completion=_limit(shape.completion, "completion", _RATE_DECIMALS),
        request=_limit(shape.request, "request", _AMOUNT_DECIMALS),
        image=_limit(shape.image, "image", _AMOUNT_DECIMALS),
        audio=_limit(shape.audio, "audio", _RATE_DECIMALS),
    )


def _limit(value: float | str | None, name: str, decimals: int) -> int | None:
    """Return ``value`` USD in our unit, rounded down: a price is never taken that is over the limit."""
    if value is None:
        return None
    param = f"provider.max_price.{name}"
    # The shortest text that names a float is what the caller wrote.
    text = value.strip() if isinstance(value, str) else repr(value)
    try:
        amount = Decimal(text[:64])
    except InvalidOperation:
        raise BadRequest(f"{param} is not a number of USD: {text[:40]!r}", param=param) from None
    if not amount.is_finite() or amount < 0:
        raise BadRequest(f"{param} must be a number of USD that is not negative", param=param)
    if amount and not -20 < amount.adjusted() < 20:
        return _LARGEST if amount.adjusted() > 0 else 0
    return min(_LARGEST, int(amount.scaleb(decimals).to_integral_value(rounding=ROUND_FLOOR)))


def _cutoffs(value: float | _CutoffShape | None) -> Cutoffs | None:
    """Return the cutoffs; one number is the median's."""
    if value is None:
        return None
    if isinstance(value, _CutoffShape):
        return Cutoffs(value.p50, value.p75, value.p90, value.p99)
    return Cutoffs(p50=value)


def _session(text: str | None, param: str) -> str:
    if text is not None and len(text) > LONGEST_SESSION:
        raise BadRequest(f"{param} may have {LONGEST_SESSION} characters at most", param=param)
    return text or ""


def _priority(text: str, param: str) -> Priority:
    try:
        return Priority(text.strip().lower())
    except ValueError:
        raise _not_one_of(param, text, tuple(Priority)) from None


def _seconds(headers: Mapping[bytes, bytes], name: bytes) -> float | None:
    """Return the milliseconds in a header as seconds, or None when it is not there."""
    value = headers.get(name)
    if value is None:
        return None
    try:
        milliseconds = float(value)
    except ValueError:
        milliseconds = math.nan
    if not 0 < milliseconds <= LONGEST_WAIT_MS:
        param = _text(name)
        raise BadRequest(f"the header {param} is a number of milliseconds, more than 0, at most a day", param=param)
    return milliseconds / 1000


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").strip()


def _not_one_of(param: str, value: str, choices: Sequence[str]) -> BadRequest:
    near = get_close_matches(value[:64].casefold(), choices, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return BadRequest(
        f"{param} is {value[:64]!r}, which is not one of {', '.join(choices)}{hint}",
        param=param,
        metadata={"near": near, "available": list(choices)},
    )
