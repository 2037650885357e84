"""What tokens cost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.pricing.charge import charge, rates_id
from gateway.types.charge import Charge
from gateway.types.money import MAX_RATE, LongContext, Rates, nano_from_pico
from gateway.types.tokens import Usage

IDS = (3_388_432_154_223_648_433, 7_764_382_532_524_851_062)
counts = st.integers(0, 10**9)
rate = st.integers(0, MAX_RATE)
usages = st.builds(Usage, *[counts] * 10)
maybe = st.none() | rate
rates = st.builds(Rates, rate, rate, *[maybe] * 7, request=st.integers(0, 10**12), cache_write_1h=maybe)


@given(usages, rates)
def test_total_is_the_sum_of_the_classes(usage: Usage, price: Rates) -> None:
    """A row's total is the sum of its classes, never a rounding of its own."""
    result = charge(usage, price)
    assert result.total == sum(getattr(result, name) for name in Charge.__struct_fields__)
    assert all(getattr(result, name) >= 0 for name in Charge.__struct_fields__)


@given(usages, rates)
def test_each_class_is_rounded_once(usage: Usage, price: Rates) -> None:
    """Every class is its exact product in pico-USD, rounded half to even to nano-USD, once."""
    parts, full = usage.split(), price.resolved()
    result = charge(usage, price)
    for name in ("prompt", "completion", "cache_read", "reasoning"):
        assert getattr(result, name) == nano_from_pico(getattr(parts, name) * getattr(full, name))
    written = sum(getattr(parts, name) * getattr(full, name) for name in ("cache_write", "cache_write_1h"))
    assert result.cache_write == nano_from_pico(written)
    for name in ("audio", "image"):
        exact = sum(
            getattr(parts, f"{name}_{side}") * getattr(full, f"{name}_{side}") for side in ("prompt", "completion")
        )
        assert getattr(result, name) == nano_from_pico(exact)
    assert result.request == price.request


@given(usages, rates)
def test_no_token_is_charged_twice(usage: Usage, price: Rates) -> None:
    """However a backend's parts contradict its totals, the whole costs no more than all tokens at the dearest rate."""
    full = price.resolved()
    dearest = max(getattr(full, name) for name in Usage.__struct_fields__)
    assert charge(usage, price).total <= usage.total * dearest // 1000 + 7 + price.request


@given(usages, counts, rates)
def test_more_tokens_never_cost_less(usage: Usage, more: int, price: Rates) -> None:
    """Adding completion tokens never lowers the charge."""
    longer = Usage(
        **{name: getattr(usage, name) for name in Usage.__struct_fields__} | {"completion": usage.completion + more}
    )
    assert charge(longer, price).total >= charge(usage, price).total


@given(st.integers(0, 10**9), st.integers(0, 10**9), rate, rate)
def test_plain_usage_takes_the_same_amounts_by_either_way(
    prompt: int, completion: int, prompt_rate: int, completion_rate: int
) -> None:
    """An answer without special classes costs what the general rule says."""
    price = Rates(prompt_rate, completion_rate)
    plain = charge(Usage(prompt, completion), price)
    assert plain == Charge(nano_from_pico(prompt * prompt_rate), nano_from_pico(completion * completion_rate))


def test_known_amounts() -> None:
    """0.10 and 0.30 USD per million tokens, a fifth of it for cached ones: figures checked by hand."""
    price = Rates(100_000, 300_000, cache_read=20_000, request=5)
    assert charge(Usage(1_000, 500, cache_read=400), price) == Charge(60_000, 150_000, cache_read=8_000, request=5)


def test_what_is_kept_for_an_hour_has_a_price_of_its_own() -> None:
    """Of 900 tokens written 400 for an hour: 500 at 3.75, 400 at 6 USD per million; without that rate all at 3.75."""
    usage = Usage(1_200, 10, cache_read=200, cache_write=900, cache_write_1h=400)
    price = Rates(3_000_000, 15_000_000, cache_read=300_000, cache_write=3_750_000)
    longer = Rates(3_000_000, 15_000_000, cache_read=300_000, cache_write=3_750_000, cache_write_1h=6_000_000)
    assert charge(usage, longer) == Charge(300_000, 150_000, cache_read=60_000, cache_write=4_275_000)
    assert charge(usage, price).cache_write == 3_375_000
    assert rates_id(longer) != rates_id(price)


def test_rates_without_an_hours_price_keep_their_id() -> None:
    """Ids are the same in every version: these were made before caches had a price by time."""
    assert rates_id(Rates(100_000, 300_000, cache_read=20_000)) == IDS[0]
    assert rates_id(Rates(100_000, 300_000, tiers=(LongContext(10, Rates(1, 2)),), discount=5)) == IDS[1]
    assert rates_id(Rates(100_000, 300_000, cache_write=7, cache_write_1h=7)) == rates_id(
        Rates(100_000, 300_000, cache_write=7)
    )


def test_an_hours_price_of_nothing_is_a_price_of_its_own() -> None:
    """Cache writes that are free for an hour are not those that cost what a prompt costs."""
    assert rates_id(Rates(1, 0, cache_write_1h=0)) != rates_id(Rates(1, 0))


@given(rates)
def test_rates_id_is_a_positive_63_bit_number(price: Rates) -> None:
    """The id fits a signed 64-bit column and is never 0, which means "no rates"."""
    assert 1 <= rates_id(price) < 2**63


@given(rates, rates)
def test_rates_id_tells_prices_apart(one: Rates, other: Rates) -> None:
    """Equal prices have equal ids, written out or by fallback; different prices have different ones."""
    assert rates_id(one) == rates_id(one.resolved())
    assert (rates_id(one) == rates_id(other)) == (one.resolved() == other.resolved())


def test_rates_id_is_the_same_on_every_host_and_in_every_version() -> None:
    """The id is stored in ledgers: this value may never change."""
    assert rates_id(Rates(100_000, 300_000)) == 7320148967877265693
