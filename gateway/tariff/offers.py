"""Offers: what other sources say of prices, beside what is valid here. Pure; nothing is applied by reading it.

A *target* is a subject of the configuration that a source may know a price of: what an endpoint of an external API
costs, or what a model is sold at. An *offer* is a source's rates for a target. A source names prices by *points*: a
service tier, the input tokens above which it holds (0 for all), and a class; a point that it leaves out is that of the
next lower line, then that of the default service tier. Offers are written to a file that people may read and edit
before they accept it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import msgspec

from gateway.config.snapshot import EXTERNAL, ConfigSnapshot
from gateway.tariff.form import CLASSES, change_percent, rates_form, rates_of
from gateway.tariff.overlay import cost_place
from gateway.tariff.version import Kind, Proposal, Subject, Valid
from gateway.types.errors import BadRequest
from gateway.types.money import (
    DEFAULT_TIER,
    MAX_RATE,
    SERVICE_TIERS,
    LongContext,
    Rates,
    ServiceTier,
    usd_per_million_text,
    usd_text,
)

Point = tuple[str, int, str]
"""Service tier, input tokens above which it holds, class."""
PICO_PER_USD: Final = 10**12
_NANO_PER_USD: Final = 10**9
_FAR: Final = 40
"""Digits before or behind the point that no price has."""
_NO_PRICE: Final = Decimal(-1)


@dataclass(frozen=True, slots=True)
class Target:
    """A subject that a source may know a price of.

    Attributes:
        provider: slug of who sells it to the owner.
        names: what the source may call it, the likeliest first.
    """

    kind: Kind
    model: str
    place: str
    provider: str
    names: tuple[str, ...]

    @property
    def subject(self) -> Subject:
        """What the price is of."""
        return self.kind.value, self.model, self.place


@dataclass(frozen=True, slots=True)
class Offer:
    """What a source says of a target.

    Attributes:
        matched: what the source calls it.
        notes: what the source says and rates cannot hold.
    """

    target: Target
    matched: str
    rates: Rates
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What a source knows.

    Attributes:
        source: its name.
        source_version: in which state it was.
        offers: by target.
        missing: targets it knows nothing of.
        unclear: targets with the reason why its price was not taken.
    """

    source: str
    source_version: str
    offers: tuple[Offer, ...]
    missing: tuple[Target, ...] = ()
    unclear: tuple[tuple[Target, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One rate that would change; ``before`` or ``after`` is None where there is none.

    Rates are in pico-USD per token, those per request in nano-USD.
    """

    tier: str
    above: int
    class_: str
    before: int | None
    after: int | None


def targets(snapshot: ConfigSnapshot, kind: Kind) -> list[Target]:
    """Return what may be priced: with ``cost`` every endpoint of an external API, with ``sell`` every model."""
    found = []
    for model in snapshot.models.values():
        tail = model.id.rpartition("/")[2]
        if kind is Kind.SELL:
            names = [spec.upstream_model for spec in model.endpoints]
            found.append(Target(kind, model.id, "", model.id.partition("/")[0], _unique(model.id, *names, tail)))
            continue
        for spec in model.endpoints:
            if snapshot.backends[spec.backend].kind in EXTERNAL:
                place = cost_place(spec, model)
                names = [f"{spec.provider}/{spec.upstream_model}", spec.upstream_model, model.id, tail]
                found.append(Target(kind, model.id, place, spec.provider, _unique(*names)))
    return found


def _unique(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def pico_of(usd: Decimal, per: int = 1) -> int:
    """Return ``usd`` (for ``per`` tokens) as pico-USD per token. Raises ``ValueError`` when that is no whole number."""
    pico = usd * PICO_PER_USD / per if _near(usd) else _NO_PRICE
    if pico != pico.to_integral_value() or not 0 <= pico <= MAX_RATE:
        raise ValueError(f"{usd} USD for {per} tokens is finer than can be charged, or no price")
    return int(pico)


def nano_of(usd: Decimal, per: int = 1) -> int:
    """Return ``usd`` (for ``per`` requests) as nano-USD per request. Raises ``ValueError`` when that is not whole."""
    nano = usd * _NANO_PER_USD / per if _near(usd) else _NO_PRICE
    if nano != nano.to_integral_value() or nano < 0:
        raise ValueError(f"{usd} USD for {per} requests is finer than can be charged, or no price")
    return int(nano)


def _near(usd: Decimal) -> bool:
    """Return whether ``usd`` can be reckoned with: a power of ten that is far away is an error of arithmetic."""
    return usd.is_finite() and abs(usd.adjusted()) < _FAR


def assembled(points: Mapping[Point, int]) -> Rates:
    """Return the rates that ``points`` say, every tier whole. Raises ``ValueError`` without prompt and completion."""
    missing = [name for name in ("prompt", "completion") if (DEFAULT_TIER, 0, name) not in points]
    if missing:
        raise ValueError(f"has no price for {missing[0]} tokens")
    classes = [name for name in CLASSES if any(point[2] == name for point in points)]
    rates = _tiered(points, DEFAULT_TIER, classes)
    services = [
        ServiceTier(tier, _tiered(points, tier, classes))
        for tier in SERVICE_TIERS
        if any(point[0] == tier for point in points)
    ]
    return msgspec.structs.replace(rates, service_tiers=tuple(services))


def _tiered(points: Mapping[Point, int], tier: str, classes: Sequence[str]) -> Rates:
    lines = sorted({above for named, above, _ in points if named in (tier, DEFAULT_TIER)} | {0})
    whole = [_line(points, tier, above, classes) for above in lines]
    return msgspec.structs.replace(
        whole[0], tiers=tuple(LongContext(*each) for each in zip(lines[1:], whole[1:], strict=True))
    )


def _line(points: Mapping[Point, int], tier: str, above: int, classes: Sequence[str]) -> Rates:
    said: dict[str, Any] = {name: rate for name in classes if (rate := _point(points, tier, above, name)) is not None}
    return Rates(**said)


def _point(points: Mapping[Point, int], tier: str, above: int, name: str) -> int | None:
    """Return the rate of a class at the highest line up to ``above`` that says it; a tier of its own goes first."""
    for named in dict.fromkeys((tier, DEFAULT_TIER)):
        at = max((line for of, line, class_ in points if (of, class_) == (named, name) and line <= above), default=None)
        if at is not None:
            return points[named, at, name]
    return None


def changes(before: Rates | None, after: Rates) -> list[Change]:
    """Return every rate in which ``after`` differs from ``before``; a class without a rate counts as its fallback."""
    old, new = _flat(before), _flat(after)
    return [
        Change(*key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys(), key=lambda key: (key[0] != DEFAULT_TIER, key[0], key[1], _rank(key)))
        if old.get(key) != new.get(key)
    ]


def _rank(key: Point) -> int:
    return CLASSES.index(key[2])


def _flat(rates: Rates | None) -> dict[Point, int]:
    if rates is None:
        return {}
    found: dict[Point, int] = {}
    for tier, of_tier in ((DEFAULT_TIER, rates), *((each.name, each.rates) for each in rates.service_tiers)):
        for above, line in ((0, of_tier), *((each.above, each.rates) for each in of_tier.tiers)):
            full = line.resolved()
            found |= {(tier, above, name): getattr(full, name) for name in CLASSES if getattr(full, name) is not None}
    return found


def change_form(change: Change) -> dict[str, Any]:
    """Return ``change`` for programs: USD per million tokens, or per request, and percent."""
    text = usd_text if change.class_ == "request" else usd_per_million_text
    return {
        "service_tier": change.tier,
        "above": change.above,
        "class": change.class_,
        "old": None if change.before is None else text(change.before),
        "new": None if change.after is None else text(change.after),
        "percent": None
        if change.before is None or change.after is None
        else change_percent(change.before, change.after),
    }


def rates_now(valid: Valid, target: Target) -> Rates | None:
    """Return what is valid for ``target`` now."""
    side = valid.sell if target.kind is Kind.SELL else valid.cost
    return side.get((target.model, target.place))


def offers_form(found: Found) -> dict[str, Any]:
    """Return ``found`` as the file of offers."""
    return {
        "source": found.source,
        "source_version": found.source_version,
        "offers": [
            {
                "kind": offer.target.kind.value,
                "model": offer.target.model,
                "place": offer.target.place,
                "matched": offer.matched,
                "price": rates_form(offer.rates),
                "notes": list(offer.notes),
            }
            for offer in found.offers
        ],
        "missing": [_named(target) for target in found.missing],
        "unclear": [_named(target) | {"reason": reason} for target, reason in found.unclear],
    }


def _named(target: Target) -> dict[str, Any]:
    return {"kind": target.kind.value, "model": target.model, "place": target.place}


def document_of(data: bytes) -> object:
    """Return the JSON document in a file. Raises ``ValueError`` when there is none, ``BadRequest`` for a double key."""
    return json.loads(data, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            within = f", behind {shown}" if (shown := found.get("model")) else ""
            raise BadRequest(f"{name[:64]!r} is there twice in one object of the file{within}: keep one of them")
        found[name] = value
    return found


def offers_of(document: object) -> Found:
    """Return the offers in a file's ``document``. Raises ``BadRequest`` when it is no such file, or says one twice."""
    if not isinstance(document, dict) or not isinstance(document.get("offers"), list):
        raise BadRequest("this is no file of offers: make one with `weir prices import`")
    return Found(
        str(document.get("source") or "file of offers"),
        str(document.get("source_version") or ""),
        tuple(_offers(document["offers"])),
    )


def _offers(entries: Iterable[object]) -> Iterator[Offer]:
    places: dict[Subject, int] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or entry.get("kind") not in (Kind.SELL, Kind.COST):
            raise BadRequest(f"offers.{number}: needs kind sell or cost, model, place and price")
        about = f"offers.{number} ({entry.get('model')})"
        target = Target(Kind(entry["kind"]), str(entry.get("model") or ""), str(entry.get("place") or ""), "", ())
        first = places.setdefault(target.subject, number)
        if first != number:
            of = " ".join(word for word in target.subject if word)
            raise BadRequest(f"{about}: the price of {of} is there twice, first in offers.{first}: keep one of them")
        yield Offer(target, str(entry.get("matched") or ""), rates_of(entry.get("price"), about))


def proposals(found: Found, *, who: str, why: str, valid_from_us: int) -> list[Proposal]:
    """Return the versions that accepting every offer makes."""
    return [
        Proposal(
            kind=offer.target.kind,
            model=offer.target.model,
            place=offer.target.place,
            valid_from_us=valid_from_us,
            rates=offer.rates,
            who=who,
            why=why,
            source=found.source,
            source_version=found.source_version,
        )
        for offer in found.offers
    ]
