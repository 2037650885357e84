"""What tokens cost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.pricing.charge import charge, rates_id
from gateway.types.charge import Charge
from gateway.types.money import MAX_RATE, Rates, nano_from_pico
from gateway.types.tokens import Usage

counts = st.integers(0, 10**9)
rate = st.integers(0, MAX_RATE)
usages = st.builds(Usage, counts, counts, counts, counts, counts, counts, counts, counts, counts)
rates = st.builds(Rates, rate, rate, *[st.none() | rate for _ in range(7)], request=st.integers(0, 10**12))


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
    for name in ("prompt", "completion", "cache_read", "cache_write", "reasoning"):
        assert getattr(result, name) == nano_from_pico(getattr(parts, name) * getattr(full, name))
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
