"""Money is integers: parsed exactly, rounded once, printed exactly."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.types.money import (
    MAX_AMOUNT,
    MAX_RATE,
    MoneyError,
    Rates,
    nano_from_pico,
    nano_from_usd,
    rate_from_usd_per_million,
    usd_json,
    usd_per_million_text,
    usd_per_token_text,
    usd_text,
)
from gateway.types.tokens import Usage

integers = st.integers(-(10**25), 10**25)
rates = st.integers(0, MAX_RATE)
maybe_rates = st.none() | rates


@pytest.mark.parametrize(
    ("text", "pico"),
    [
        ("0", 0),
        ("1", 1_000_000),
        ("0.10", 100_000),
        ("0.0028", 2_800),
        ("0.000001", 1),
        ("0.1000000000", 100_000),
        ("007.5", 7_500_000),
        ("1000000", MAX_RATE),
    ],
)
def test_rate_is_exact(text: str, pico: int) -> None:
    """USD per million tokens becomes the very number of pico-USD per token."""
    assert rate_from_usd_per_million(text) == pico


@pytest.mark.parametrize("parse", [rate_from_usd_per_million, nano_from_usd])
@pytest.mark.parametrize(
    "value",
    [
        0.1, 1, True, None, Decimal("0.1"), b"0.1", "", " ", "-1", "-0", "+1", "nan", "NaN", "inf", "-Infinity",
        "1e3", "1E-3", "1e99999999", " 1", "1 ", "1\n", "1_000", "1,5", "1.2.3", ".5", "5.", ".", "0x1", "$1",
        "1 USD", "１", "٣", "1" * 41, "0." + "0" * 40,
    ],
)  # fmt: skip
def test_anything_but_a_plain_decimal_is_refused(parse: object, value: object) -> None:
    """Floats, signs, exponents, NaN, blanks, foreign digits and endless digits are errors with a mend."""
    assert callable(parse)
    with pytest.raises(MoneyError) as caught:
        parse(value)
    assert caught.value.message
    assert caught.value.mend


@pytest.mark.parametrize("text", ["0.0000001", "0.1234567", "1000000.000001", "1000001"])
def test_rate_out_of_resolution_or_range_is_refused(text: str) -> None:
    """A rate finer than one pico-USD per token, or over a USD per token, is refused instead of rounded."""
    with pytest.raises(MoneyError):
        rate_from_usd_per_million(text)


@pytest.mark.parametrize("text", ["0.0000000001", "9223372036.854775808"])
def test_amount_out_of_resolution_or_range_is_refused(text: str) -> None:
    """An amount finer than a nano-USD, or over what 64 bits hold, is refused."""
    with pytest.raises(MoneyError):
        nano_from_usd(text)


@settings(deadline=None)
@given(rates)
def test_rate_text_round_trips(rate: int) -> None:
    """Every rate can be written in the file's unit and read back unchanged."""
    assert rate_from_usd_per_million(usd_per_million_text(rate)) == rate


@settings(deadline=None)
@given(st.integers(0, MAX_AMOUNT))
def test_amount_text_round_trips(nano: int) -> None:
    """Every amount can be written as text and read back unchanged."""
    assert nano_from_usd(usd_text(nano)) == nano


@settings(deadline=None)
@given(integers)
def test_texts_are_exact(value: int) -> None:
    """Printed money equals the integer, with no exponent and no zero too many, and is a JSON number."""
    for text, decimals in (
        (usd_text(value), 9),
        (usd_per_token_text(value), 12),
        (usd_per_million_text(value), 6),
    ):
        assert Fraction(text) == Fraction(value, 10**decimals)
        assert "e" not in text.lower()
        assert "." not in text or not text.endswith(("0", "."))
    number = json.loads(usd_json(value), parse_float=Fraction, parse_int=Fraction)
    assert number == Fraction(value, 10**9)


@settings(deadline=None)
@given(integers)
def test_pico_to_nano_rounds_half_to_even(pico: int) -> None:
    """The rounding is the decimal module's half-even, for corrections (negative amounts) as well."""
    expected = (Decimal(pico) / 1000).quantize(Decimal(1), rounding=ROUND_HALF_EVEN)
    assert nano_from_pico(pico) == int(expected)


@pytest.mark.parametrize(
    ("pico", "nano"),
    [(500, 0), (1500, 2), (2500, 2), (501, 1), (499, 0), (-500, 0), (-1500, -2), (-2500, -2)],
)
def test_halves(pico: int, nano: int) -> None:
    """Exact halves go to the even neighbour."""
    assert nano_from_pico(pico) == nano


@settings(deadline=None)
@given(st.integers(0, 10**9), rates)
def test_amount_is_rounded_once_and_fits(tokens: int, rate: int) -> None:
    """Tokens times rate is off by at most half a nano-USD, and a billion tokens fit a 64-bit column."""
    nano = nano_from_pico(tokens * rate)
    assert abs(Fraction(tokens * rate, 1000) - nano) <= Fraction(1, 2)
    assert nano <= MAX_AMOUNT


def test_amount_of_a_small_cache_read() -> None:
    """Twenty tokens at 0.04 USD per million cost 0.8 micro-USD, to the nano."""
    assert usd_text(nano_from_pico(20 * rate_from_usd_per_million("0.04"))) == "0.0000008"


def test_missing_rates_fall_back() -> None:
    """Parts of the prompt fall back to its rate, parts of the answer to its rate; the request fee stays."""
    resolved = Rates(prompt=3, completion=7, request=11).resolved()
    assert resolved == Rates(3, 7, 3, 3, 7, 3, 7, 3, 7, 11, cache_write_1h=3)
    assert Rates(3, 7, cache_write=4).resolved().cache_write_1h == 4


def test_zero_is_a_rate() -> None:
    """A rate of zero is not taken for a missing one."""
    resolved = Rates(prompt=3, completion=7, cache_read=0, reasoning=0).resolved()
    assert (resolved.cache_read, resolved.reasoning) == (0, 0)


@settings(deadline=None)
@given(st.builds(Rates, rates, rates, *[maybe_rates] * 7, st.integers(0, 10**9)))
def test_rates_survive_the_journal(given_rates: Rates) -> None:
    """Rates are unchanged by MessagePack, and resolving twice changes nothing."""
    packed = msgspec.msgpack.encode(given_rates)
    assert msgspec.msgpack.decode(packed, type=Rates) == given_rates
    assert given_rates.resolved().resolved() == given_rates.resolved()


def test_rates_follow_the_order_of_usage() -> None:
    """Every token class has a rate of its name; the first nine stand in one order, in which old journals have them."""
    assert Rates.__struct_fields__[:9] == Usage.__struct_fields__[:9]
    assert set(Usage.__struct_fields__) < set(Rates.__struct_fields__)
