"""Versions as people and programs write them: money as decimal strings, moments as ISO 8601 in UTC.

Rates have the form of ``price`` in the configuration file and are judged by the same rules. What cannot be read is
``BadRequest`` and names the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from gateway.config.check import tier_faults
from gateway.config.prices import PriceSection
from gateway.tariff.version import Hourly, Kind, Proposal, Terms, Version
from gateway.types.day import YEARS, day_named
from gateway.types.errors import BadRequest
from gateway.types.money import (
    BASIS_POINTS,
    NANO_PER_USD,
    MoneyError,
    Rates,
    nano_from_usd,
    usd_per_million_text,
    usd_text,
)
from gateway.types.tokens import Usage

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
CLASSES: Final = (*Usage.__struct_fields__, "request")
"""What has a rate, in the order in which it is shown."""


def rates_form(rates: Rates) -> dict[str, Any]:
    """Return ``rates`` as the configuration file writes a price."""
    form = _line(rates, ())
    named = tuple(form)
    if rates.tiers:
        form["tiers"] = _lines(rates, named)
    if rates.service_tiers:
        form["service_tiers"] = {
            tier.name: _line(tier.rates, named)
            | ({"tiers": _lines(tier.rates, named)} if rates.tiers or tier.rates.tiers else {})
            for tier in rates.service_tiers
        }
    return form


def _lines(rates: Rates, named: Sequence[str]) -> list[dict[str, Any]]:
    return [{"above": tier.above} | _line(tier.rates, named) for tier in rates.tiers]


def _line(rates: Rates, named: Sequence[str]) -> dict[str, Any]:
    """Return the rates that are set, and in any case those of the classes that are ``named``, without tiers."""
    full = rates.resolved()
    form = {
        name: usd_per_million_text(getattr(full, name))
        for name in Usage.__struct_fields__
        if name in named or getattr(rates, name) is not None
    }
    if rates.request or "request" in named:
        form["request"] = usd_text(rates.request)
    return form


def rates_of(document: object, about: str) -> Rates:
    """Return the rates that ``document``, in the form of ``rates_form``, stands for; ``about`` goes before a fault."""
    try:
        section = PriceSection.model_validate_json(msgspec.json.encode(document))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "price"
        raise BadRequest(f"{about}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
    for key, fault, mend in tier_faults(section):
        raise BadRequest(f"{about}: {'.'.join(map(str, key))} {fault}: {mend}")
    rates: Rates = section.rates()
    return rates


def amount_of(text: object, about: str) -> int:
    """Return the nano-USD that the decimal ``text`` in USD names; it may have a sign."""
    sign = -1 if isinstance(text, str) and text.startswith("-") else 1
    try:
        return sign * nano_from_usd(text[1:] if sign < 0 and isinstance(text, str) else text)
    except MoneyError as error:
        raise BadRequest(f"{about}: {error.message}: {error.mend}") from None


def basis_points(text: str, about: str) -> int:
    """Return the basis points that ``text``, percent such as ``12.5``, names exactly."""
    nano = amount_of(text, about)
    points, rest = divmod(nano * 100, NANO_PER_USD)
    if rest:
        raise BadRequest(f"{about}: is finer than a hundredth of a percent")
    return points


def percent(points: int) -> str:
    """Return basis points as percent, a decimal string."""
    return usd_text(points * (NANO_PER_USD // 100))


def content_form(version: Version) -> dict[str, Any]:
    """Return what ``version`` says, under the name of what it is about; None when it withdraws."""
    if version.rates is not None:
        return {"price" if version.kind == "sell" else "cost": rates_form(version.rates)}
    if version.hourly is not None:
        return {"usd_per_hour": usd_text(version.hourly.nano), "max_running": version.hourly.max_running}
    if version.terms is not None:
        return terms_form(version.terms)
    return {"withdrawn": True}


def terms_form(terms: Terms) -> dict[str, Any]:
    """Return ``terms`` in percent."""
    return {"discount_percent": percent(terms.discount), "markup_percent": percent(terms.markup)}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A version as people ask for it: money and percent as decimal strings, moments as text; see ``Proposal``."""

    kind: Kind
    model: str = ""
    place: str = ""
    price: dict[str, Any] | None = None
    usd_per_hour: str | None = None
    max_running: int | None = None
    discount_percent: str | None = None
    markup_percent: str | None = None
    withdraw: bool = False
    valid_from: str | None = None
    why: str = ""


def proposal_of(wanted: Wanted, *, who: str, source: str) -> Proposal:
    """Return the proposal that ``wanted`` stands for. Raises ``BadRequest`` for what cannot be read."""
    about = " ".join(word for word in (wanted.kind.value, wanted.model, wanted.place) if word)
    said = {
        Kind.SELL: wanted.price,
        Kind.COST: wanted.price,
        Kind.HOUR: wanted.usd_per_hour,
        Kind.TERMS: wanted.discount_percent or wanted.markup_percent,
    }[wanted.kind]
    given = [wanted.price, wanted.usd_per_hour, wanted.discount_percent or wanted.markup_percent]
    if (said is None) is not wanted.withdraw or sum(each is not None for each in given) > 1:
        needs = {Kind.HOUR: "usd_per_hour", Kind.TERMS: "discount_percent or markup_percent"}
        raise BadRequest(
            f"{about}: give {needs.get(wanted.kind, 'price')}, or withdraw what there is, and nothing else"
        )
    rates = hourly = terms = None
    if wanted.price is not None:
        rates = rates_of(wanted.price, about)
    elif wanted.usd_per_hour is not None:
        hourly = Hourly(amount_of(wanted.usd_per_hour, f"{about}: usd_per_hour"), wanted.max_running)
    elif said is not None:
        terms = Terms(
            basis_points(wanted.discount_percent or "0", f"{about}: discount_percent"),
            basis_points(wanted.markup_percent or "0", f"{about}: markup_percent"),
        )
    return Proposal(
        kind=wanted.kind,
        model=wanted.model,
        place=wanted.place,
        valid_from_us=moment_of(wanted.valid_from, f"{about}: valid_from") if wanted.valid_from else 0,
        rates=rates,
        hourly=hourly,
        terms=terms,
        who=who,
        why=wanted.why,
        source=source,
    )


def version_form(version: Version) -> dict[str, Any]:
    """Return ``version`` for programs."""
    return {
        "version": version.version_id,
        "kind": version.kind.value,
        "model": version.model or None,
        "place": version.place or None,
        "valid_from": moment_text(version.valid_from_us),
        **content_form(version),
        "who": version.who,
        "why": version.why,
        "source": version.source,
        "source_version": version.source_version,
        "made_at": moment_text(version.made_us),
    }


def moment_text(us: int) -> str:
    """Return microseconds since 1970 as ISO 8601 in UTC."""
    return (EPOCH + timedelta(microseconds=us)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment_of(text: str, about: str) -> int:
    """Return the microseconds since 1970 of an ISO 8601 date or time; one without a zone is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(
            f"{about}: {text[:64]!r} is not a date or time: write 2026-12-01 or 2026-12-01T12:00Z"
        ) from None
    if not YEARS[0] <= moment.year <= YEARS[1]:
        raise BadRequest(f"{about}: {text[:64]!r} is not in the years {YEARS[0]} to {YEARS[1]}")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(microseconds=1)


def day_of(text: str, about: str) -> int:
    """Return the UTC day, counted from 1970, that ``text`` (``2026-12-01``) names."""
    try:
        return day_named(text)
    except ValueError:
        years = "{} to {}".format(*YEARS)
        raise BadRequest(f"{about}: {text[:64]!r} is not a day of the years {years}: write 2026-12-01") from None


def day_text(day: int) -> str:
    """Return a UTC day, counted from 1970, as ``2026-12-01``."""
    return (EPOCH + timedelta(days=day)).date().isoformat()


def change_percent(before: int, after: int) -> str | None:
    """Return how much ``after`` is above ``before``, in percent with two decimals at most; None from nothing."""
    if not before:
        return None
    doubled = 2 * (after - before) * BASIS_POINTS + before
    return percent(doubled // (2 * before))
