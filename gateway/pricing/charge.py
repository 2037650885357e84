"""From tokens and rates to money: every class rounded once, to nano-USD, half to even.

Pure and total: counts that contradict each other are cut by ``Usage.split``, so the classes always add up to the
tokens an engine reported and no token is charged twice. What an answer's status means for who pays is not decided
here.

Which rates count is decided here, by what the answer took: first the service tier, then the long context. A tier
replaces every rate for the whole request.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Final

import msgspec

from gateway.types.charge import NO_CHARGE, Charge
from gateway.types.money import DEFAULT_TIER, PICO_PER_NANO, Rates, nano_at_terms, nano_from_pico
from gateway.types.tokens import Usage

NOTHING: Final = (NO_CHARGE, NO_CHARGE)
_DOMAIN: Final = b"weir rates 1"
_SIMPLE: Final = 10
"""Fields of ``Rates`` that are the whole of simple ones; their ids are made of these alone."""
_FIRST: Final = 14
"""Fields that ``Rates`` always had; ids are made of later ones only where these say something."""


def chosen(rates: Rates, tier: str, context: int) -> Rates:
    """Return the rates of a request served at service tier ``tier`` whose input had ``context`` tokens.

    A service tier without rates of its own has those of the default one. Discount and markup are those of ``rates``.
    """
    found = rates
    if tier != DEFAULT_TIER:
        found = next((each.rates for each in rates.service_tiers if each.name == tier), rates)
    for long in found.tiers:
        if context <= long.above:
            break
        found = long.rates
    return found


def charge(usage: Usage, rates: Rates, tier: str = DEFAULT_TIER, context: int | None = None) -> Charge:
    """Return what ``usage`` costs at ``rates``, by class, in nano-USD.

    Audio and image have a rate for each direction but one class, and cache writes one for each time they are kept: the
    two products are added in pico-USD and rounded together. ``request`` is the rate per request, also when no token was
    used.

    Args:
        usage: what was used.
        rates: with whatever tiers, discount and markup they have.
        tier: the service tier it was served at.
        context: input tokens of the whole request, when ``usage`` is only a part of it.
    """
    discount, markup = rates.discount, rates.markup
    if rates.tiers or rates.service_tiers:
        rates = chosen(rates, tier, usage.prompt if context is None else context)
    if discount or markup:
        return _at_terms(usage, rates, discount, markup)
    if not (usage.cache_read or usage.reasoning or usage.cache_write or _has_media(usage)):
        prompt = nano_from_pico(usage.prompt * rates.prompt)
        return Charge(prompt, nano_from_pico(usage.completion * rates.completion), request=rates.request)
    *tokens, request = _pico(usage, rates)
    return Charge(*[*map(nano_from_pico, tokens), request])


def payable(
    usage: Usage, rates: Rates, tier: str = DEFAULT_TIER, context: int | None = None, later: bool = False
) -> tuple[Charge, Charge]:
    """Return what a team pays for ``usage``, and how much that is below the list price, both by class in nano-USD.

    The second is negative where a markup is larger than the discount. The sum of both is exactly the charge at the
    list price, class by class. Nothing used is nothing to pay.

    Args:
        usage: what was used.
        rates: as fixed for the team when the request was opened.
        tier: the service tier it was served at.
        context: input tokens of the whole request, when ``usage`` is only a part of it.
        later: the request's fee was due before, with another part of it.
    """
    if not (usage.prompt or usage.completion):
        return NOTHING
    paid = charge(usage, rates, tier, context)
    if later and paid.request:
        paid = msgspec.structs.replace(paid, request=0)
    if not (rates.discount or rates.markup):
        return paid, NO_CHARGE
    full = charge(usage, rates.listed, tier, context=context)
    if later:
        full = msgspec.structs.replace(full, request=0)
    return paid, difference(full, paid)


def difference(one: Charge, other: Charge) -> Charge:
    """Return ``one`` less ``other``, class by class."""
    return Charge(*(getattr(one, name) - getattr(other, name) for name in Charge.__struct_fields__))


def bound(rates: Rates, prompt: int, completion: int) -> int:
    """Return the most nano-USD that a request can be charged at ``rates``, whatever classes and tiers it turns out at.

    Args:
        rates: with whatever tiers, discount and markup they have.
        prompt: most input tokens.
        completion: most output tokens, of all choices together.
    """
    most = max(prompt * read + completion * made + request for read, made, request in _dearest(rates))
    # Each of the classes may have been rounded up by less than one.
    return nano_at_terms(most, rates.discount, rates.markup) + len(Charge.__struct_fields__)


@lru_cache(maxsize=1_024)
def _dearest(rates: Rates) -> tuple[tuple[int, int, int], ...]:
    """Return the dearest rate of input, of output and the one per request, in pico-USD, of every tier of ``rates``."""
    every = [rates, *(each.rates for each in rates.service_tiers)]
    every += [tier.rates for each in every for tier in each.tiers]
    found = []
    for each in every:
        full = each.resolved()
        written = (full.cache_write, full.cache_write_1h)
        reads = (full.prompt, full.cache_read, *written, full.audio_prompt, full.image_prompt)
        makes = (full.completion, full.reasoning, full.audio_completion, full.image_completion)
        read, made = (max(rate or 0 for rate in side) for side in (reads, makes))
        found.append((read, made, full.request * PICO_PER_NANO))
    return tuple(found)


def tokens_per_usd(tokens: int, nano: int) -> int | None:
    """Return how many tokens one USD of ``nano`` (nano-USD) paid for, rounded down; None when nothing was paid."""
    return tokens * 1_000_000_000 // nano if nano > 0 else None


@lru_cache(maxsize=8_192)
def rates_id(rates: Rates) -> int:
    """Return the id of ``rates``: 1 to 2**63 - 1, the same for equal prices on every host and in every version.

    Rates that differ only in writing a fallback out are the same price and have the same id. The id is the first
    63 bits of BLAKE2b over the resolved rates; 0 stays free for "no rates".
    """
    content = _content(rates.resolved())
    if len(content) <= _FIRST and not any(content[_SIMPLE:]):
        content = content[:_SIMPLE]
    digest = hashlib.blake2b(msgspec.msgpack.encode(content), digest_size=8, person=_DOMAIN).digest()
    return int.from_bytes(digest, "big") >> 1 or 1


def _content(full: Rates) -> tuple[Any, ...]:
    """Return what the id of resolved rates is made of."""
    tiers = tuple((tier.above, _content(tier.rates)) for tier in full.tiers)
    service = tuple((tier.name, _content(tier.rates)) for tier in full.service_tiers)
    plain = msgspec.structs.astuple(full)
    later = () if full.cache_write_1h == full.cache_write else plain[_FIRST:]
    return (*plain[:_SIMPLE], tiers, service, full.discount, full.markup, *later)


def _at_terms(usage: Usage, rates: Rates, discount: int, markup: int) -> Charge:
    *tokens, request = _pico(usage, rates)
    return Charge(*[nano_at_terms(pico, discount, markup) for pico in (*tokens, request * PICO_PER_NANO)])


def _pico(usage: Usage, rates: Rates) -> tuple[int, ...]:
    """Return the exact products of all classes in pico-USD, and the rate per request in nano-USD."""
    parts = usage.split()
    prompt, completion = rates.prompt, rates.completion
    written = _either(rates.cache_write, prompt)
    cache_write = parts.cache_write * written
    if parts.cache_write_1h:
        cache_write += parts.cache_write_1h * _either(rates.cache_write_1h, written)
    audio = image = 0
    if _has_media(usage):
        audio = parts.audio_prompt * _either(rates.audio_prompt, prompt)
        audio += parts.audio_completion * _either(rates.audio_completion, completion)
        image = parts.image_prompt * _either(rates.image_prompt, prompt)
        image += parts.image_completion * _either(rates.image_completion, completion)
    return (
        parts.prompt * prompt,
        parts.completion * completion,
        parts.cache_read * _either(rates.cache_read, prompt),
        cache_write,
        parts.reasoning * _either(rates.reasoning, completion),
        audio,
        image,
        rates.request,
    )


def _either(rate: int | None, fallback: int) -> int:
    return fallback if rate is None else rate


def _has_media(usage: Usage) -> int:
    return usage.audio_prompt or usage.audio_completion or usage.image_prompt or usage.image_completion
