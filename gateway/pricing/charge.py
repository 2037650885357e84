"""From tokens and rates to money: every class rounded once, to nano-USD, half to even.

Pure and total: counts that contradict each other are cut by ``Usage.split``, so the classes always add up to the
tokens an engine reported and no token is charged twice. What an answer's status means for who pays is not decided
here.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from gateway.types.charge import Charge
from gateway.types.money import Rates, amount, nano_from_pico
from gateway.types.tokens import Usage

_DOMAIN: Final = b"weir rates 1"


def charge(usage: Usage, rates: Rates) -> Charge:
    """Return what ``usage`` costs at ``rates``, by class, in nano-USD.

    Audio and image have a rate for each direction but one class: their two products are added in pico-USD and
    rounded together. ``request`` is the rate per request, also when no token was used.
    """
    if not (usage.cache_read or usage.reasoning or usage.cache_write or _has_media(usage)):
        return Charge(
            amount(usage.prompt, rates.prompt),
            amount(usage.completion, rates.completion),
            request=rates.request,
        )
    parts = usage.split()
    full = rates.resolved()
    # ``resolved`` leaves no class without a rate; the declared types of its fields cannot say so.
    return Charge(
        amount(parts.prompt, full.prompt),
        amount(parts.completion, full.completion),
        amount(parts.cache_read, full.cache_read or 0),
        amount(parts.cache_write, full.cache_write or 0),
        amount(parts.reasoning, full.reasoning or 0),
        nano_from_pico(
            parts.audio_prompt * (full.audio_prompt or 0) + parts.audio_completion * (full.audio_completion or 0)
        ),
        nano_from_pico(
            parts.image_prompt * (full.image_prompt or 0) + parts.image_completion * (full.image_completion or 0)
        ),
        full.request,
    )


def rates_id(rates: Rates) -> int:
    """Return the id of ``rates``: 1 to 2**63 - 1, the same for equal prices on every host and in every version.

    Rates that differ only in writing a fallback out are the same price and have the same id. The id is the first
    63 bits of BLAKE2b over the resolved rates; 0 stays free for "no rates".
    """
    canonical = msgspec.msgpack.encode(rates.resolved())
    digest = hashlib.blake2b(canonical, digest_size=8, person=_DOMAIN).digest()
    return int.from_bytes(digest, "big") >> 1 or 1


def _has_media(usage: Usage) -> int:
    return usage.audio_prompt or usage.audio_completion or usage.image_prompt or usage.image_completion
