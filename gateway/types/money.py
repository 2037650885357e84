"""Money as integers: rates in pico-USD per token, amounts in nano-USD.

No float takes part anywhere. 1 USD per million tokens is 1,000,000 pico-USD per token; a signed 64-bit
count of nano-USD holds 9.2 billion USD. Text that names no exact amount is refused with ``MoneyError``, never
rounded; the only rounding is from pico to nano, half to even, once per amount.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

PICO_PER_NANO: Final = 1_000
NANO_PER_USD: Final = 1_000_000_000
MAX_RATE: Final = 10**12
"""Pico-USD per token, one USD a token: a billion tokens at this rate still fit 64 bits of nano-USD."""
MAX_AMOUNT: Final = 2**63 - 1
"""Nano-USD: what a signed 64-bit database column holds."""

_RATE_DECIMALS: Final = 6
_AMOUNT_DECIMALS: Final = 9
_TOKEN_RATE_DECIMALS: Final = 12
_LONGEST: Final = 40
_DECIMAL: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?")


class MoneyError(ValueError):
    """A text that is not an exact, allowed amount of money.

    Attributes:
        message: what is wrong.
        mend: what to write instead.
    """

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(f"{message}: {mend}")
        self.message = message
        self.mend = mend


DEFAULT_TIER: Final = "default"
"""The service tier of a request that asked for none, or for one that has no rates of its own."""
SERVICE_TIERS: Final = ("flex", "priority", "batch")
"""Service tiers that may have rates of their own."""
BASIS_POINTS: Final = 10_000
"""Basis points in a whole: 1,250 of them are 12.5 percent."""
TERMS_WHOLE: Final = BASIS_POINTS * BASIS_POINTS
"""How many times too large ``at_terms`` is, so that nothing is rounded."""


class Rates(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Rates by token class, in pico-USD per token, and ``request`` in nano-USD per request.

    A class without a rate of its own (None) falls back: ``cache_read``, ``cache_write``, ``audio_prompt`` and
    ``image_prompt`` to ``prompt``; ``reasoning``, ``audio_completion`` and ``image_completion`` to
    ``completion``; ``cache_write_1h`` to ``cache_write``. New fields go to the end, because the journal stores them by
    position.

    Attributes:
        tiers: rates of long contexts, by rising ``above``; they have no tiers of their own.
        service_tiers: rates of service tiers by name; they may have ``tiers``, and have no service tiers.
        discount: basis points off these rates, 0 to 10,000.
        markup: basis points on top of what the discount leaves.
    """

    prompt: int
    completion: int
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    audio_prompt: int | None = None
    audio_completion: int | None = None
    image_prompt: int | None = None
    image_completion: int | None = None
    request: int = 0
    tiers: tuple[LongContext, ...] = ()
    service_tiers: tuple[ServiceTier, ...] = ()
    discount: int = 0
    markup: int = 0
    cache_write_1h: int | None = None

    def resolved(self) -> Rates:
        """Return the same rates with every class filled in by its fallback, in all tiers."""
        prompt, completion = self.prompt, self.completion
        cache_write = _either(self.cache_write, prompt)
        return Rates(
            prompt,
            completion,
            _either(self.cache_read, prompt),
            cache_write,
            _either(self.reasoning, completion),
            _either(self.audio_prompt, prompt),
            _either(self.audio_completion, completion),
            _either(self.image_prompt, prompt),
            _either(self.image_completion, completion),
            self.request,
            self.tiers and tuple(LongContext(tier.above, tier.rates.resolved()) for tier in self.tiers),
            self.service_tiers and tuple(ServiceTier(tier.name, tier.rates.resolved()) for tier in self.service_tiers),
            self.discount,
            self.markup,
            _either(self.cache_write_1h, cache_write),
        )

    @property
    def listed(self) -> Rates:
        """The list price: these rates without discount and markup."""
        return msgspec.structs.replace(self, discount=0, markup=0) if self.discount or self.markup else self


class LongContext(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Rates of a whole request whose input tokens, of all classes together, are more than ``above``."""

    above: int
    rates: Rates


class ServiceTier(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Rates of requests that are served at the service tier ``name``."""

    name: str
    rates: Rates


def _either(rate: int | None, fallback: int) -> int:
    return fallback if rate is None else rate


def rate_from_usd_per_million(text: object) -> int:
    """Return the rate in pico-USD per token that ``text``, exact USD per million tokens (``"0.10"``), names.

    Raises:
        MoneyError: ``text`` is not a plain decimal string, finer than 0.000001, or over ``MAX_RATE``.
    """
    rate = _scaled(text, _RATE_DECIMALS, '"0.10"')
    if rate > MAX_RATE:
        raise MoneyError("is over 1000000 USD per million tokens", "check the unit: USD per million tokens")
    return rate


def nano_from_usd(text: object) -> int:
    """Return the amount in nano-USD that ``text``, exact USD such as ``"4.60"``, names.

    Raises:
        MoneyError: ``text`` is not a plain decimal string, finer than a nano-USD, or over ``MAX_AMOUNT``.
    """
    nano = _scaled(text, _AMOUNT_DECIMALS, '"4.60"')
    if nano > MAX_AMOUNT:
        raise MoneyError("is over 9.2 billion USD", "write a smaller amount of USD")
    return nano


def nano_from_pico(pico: int) -> int:
    """Return ``pico`` (pico-USD, may be negative) in nano-USD, rounded half to even."""
    nano, rest = divmod(pico, PICO_PER_NANO)
    if rest > 500 or (rest == 500 and nano & 1):
        nano += 1
    return nano


def at_terms(amount: int, discount: int, markup: int) -> int:
    """Return ``amount`` less ``discount`` and plus ``markup`` (basis points), times ``TERMS_WHOLE`` to be exact."""
    return amount * (BASIS_POINTS - discount) * (BASIS_POINTS + markup)


def nano_at_terms(pico: int, discount: int, markup: int) -> int:
    """Return ``pico`` (pico-USD) less ``discount`` and plus ``markup`` (basis points) in nano-USD, half to even.

    The exact product is rounded once; what discount and markup leave is never rounded in between.
    """
    whole = PICO_PER_NANO * TERMS_WHOLE
    nano, rest = divmod(at_terms(pico, discount, markup), whole)
    if 2 * rest > whole or (2 * rest == whole and nano & 1):
        nano += 1
    return nano


def usd_text(nano: int) -> str:
    """Return ``nano`` (nano-USD) as the shortest exact decimal string in USD; never an exponent."""
    return _decimal(nano, _AMOUNT_DECIMALS)


def usd_json(nano: int) -> bytes:
    """Return ``nano`` (nano-USD) as an exact JSON number in USD, made from the integer; no exponent."""
    if nano < 0:
        return b"-" + usd_json(-nano)
    return (b"%d.%09d" % divmod(nano, NANO_PER_USD)).rstrip(b"0").rstrip(b".")


def usd_per_token_text(rate: int) -> str:
    """Return ``rate`` (pico-USD per token) as exact decimal USD per token, the unit of the catalogue."""
    return _decimal(rate, _TOKEN_RATE_DECIMALS)


def usd_per_million_text(rate: int, discount: int = 0, markup: int = 0) -> str:
    """Return ``rate`` (pico-USD per token) as exact decimal USD per million tokens, the unit of the file.

    It is less ``discount`` and plus ``markup`` (basis points).
    """
    if discount or markup:
        return _decimal(at_terms(rate, discount, markup), _RATE_DECIMALS + 8)
    return _decimal(rate, _RATE_DECIMALS)


def _scaled(text: object, decimals: int, example: str) -> int:
    """Return the plain decimal ``text`` times ten to the power of ``decimals``, exactly."""
    if not isinstance(text, str):
        raise MoneyError("money must be a decimal string, not a number", f"put it in quotes, such as {example}")
    match = _DECIMAL.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise MoneyError(
            "is not a plain decimal amount of USD",
            f"write digits with at most one point, such as {example}; no sign, exponent, unit or space",
        )
    whole, fraction = match[1], (match[2] or "").rstrip("0")
    if len(fraction) > decimals:
        raise MoneyError(f"has more than {decimals} decimals", f"write at most {decimals}; amounts are never rounded")
    return int(whole + fraction.ljust(decimals, "0"))


def _decimal(value: int, decimals: int) -> str:
    """Return ``value`` divided by ten to the power of ``decimals`` as the shortest exact decimal."""
    digits = str(abs(value)).rjust(decimals + 1, "0")
    whole, fraction = digits[:-decimals], digits[-decimals:].rstrip("0")
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"
