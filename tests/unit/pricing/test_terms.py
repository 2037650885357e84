"""Tiers, terms and the sums they keep: what is charged, what the list price is, and that nothing is lost between."""

from __future__ import annotations

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple

from gateway.pricing.charge import bound, charge, chosen, difference, payable, rates_id, tokens_per_usd
from gateway.types.charge import NO_CHARGE, Charge
from gateway.types.money import DEFAULT_TIER, LongContext, Rates, ServiceTier, nano_at_terms
from gateway.types.tokens import Usage

rates = st.integers(0, 10**9)
maybe = st.none() | rates
plain = st.builds(Rates, rates, rates, *[maybe] * 7, st.integers(0, 10**9))
longs = st.lists(st.tuples(st.integers(1, 10**6), plain), max_size=3, unique_by=lambda pair: pair[0]).map(
    lambda pairs: tuple(LongContext(*pair) for pair in sorted(pairs, key=lambda pair: pair[0]))
)
services = st.dictionaries(
    st.sampled_from(["flex", "priority", "batch"]),
    st.builds(lambda base, tiers: msgspec.structs.replace(base, tiers=tiers), plain, longs),
).map(lambda named: tuple(ServiceTier(*pair) for pair in named.items()))
tiered = st.builds(
    lambda base, tiers, services: msgspec.structs.replace(base, tiers=tiers, service_tiers=services),
    plain,
    longs,
    services,
)
terms = st.tuples(st.integers(0, 10_000), st.integers(0, 20_000))
tiers = st.sampled_from([DEFAULT_TIER, "flex", "priority", "batch"])
counts = st.integers(0, 10**6)
usages = st.builds(Usage, *[counts] * 9)

PLAIN = Rates(1_250_000, 10_000_000, cache_read=125_000)
LONG = Rates(2_500_000, 15_000_000, cache_read=250_000)
FLEX = Rates(625_000, 5_000_000, cache_read=62_500)
GEMINI = msgspec.structs.replace(PLAIN, tiers=(LongContext(200_000, LONG),), service_tiers=(ServiceTier("flex", FLEX),))


@pytest.mark.parametrize(("context", "expected"), [(0, PLAIN), (200_000, PLAIN), (200_001, LONG), (10**9, LONG)])
def test_the_whole_request_has_the_rates_of_its_input(context: int, expected: Rates) -> None:
    """Above the line every class is charged at the other rates, cached tokens too; at the line it is not."""
    usage = Usage(context, 1_000, cache_read=context // 2)
    assert charge(usage, GEMINI) == charge(usage, expected)


def test_cached_input_counts_towards_the_tier() -> None:
    """The input is all of it: 300,000 tokens of which 250,000 were cached are a long context."""
    usage = Usage(300_000, 10, cache_read=250_000)
    assert charge(usage, GEMINI).cache_read == 250_000 * 250_000 // 1_000


def test_a_part_of_a_request_has_the_tier_of_the_whole() -> None:
    """The second engine that went on with an answer reads no new input, but the request was a long one."""
    part = Usage(0, 1_000)
    assert charge(part, GEMINI, context=300_000) == charge(part, LONG)
    assert charge(part, GEMINI) == charge(part, PLAIN)


def test_a_service_tier_replaces_the_rates() -> None:
    """Its own rates count, also for long inputs when it says nothing of them; one without rates is the default."""
    usage = Usage(300_000, 1_000)
    assert charge(usage, GEMINI, "flex") == charge(usage, FLEX)
    assert charge(usage, GEMINI, "priority") == charge(usage, LONG)


def test_terms_worked_by_hand() -> None:
    """12.5 % off, then 2 % on: 10 USD become 8.925 USD, and the list price is what both add up to."""
    team = Rates(10_000_000, 0, discount=1_250, markup=200)
    paid, off = payable(Usage(1_000_000, 0), team)
    assert (paid.total, off.total) == (8_925_000_000, 1_075_000_000)


def test_a_free_request_keeps_its_fee_in_the_discount() -> None:
    """With everything off, the fee per request is discount too."""
    paid, off = payable(Usage(10, 0), Rates(1_000, 0, request=7_000, discount=10_000))
    assert (paid.total, off.request, off.prompt) == (0, 7_000, 10)


def test_a_later_part_pays_no_fee() -> None:
    """Neither in what is paid nor in what is discounted."""
    paid, off = payable(Usage(0, 10), Rates(0, 1_000, request=7_000, discount=5_000), later=True)
    assert (paid.request, off.request) == (0, 0)


@settings(deadline=None, max_examples=60)
@given(usages, tiered, terms, tiers, st.none() | counts)
def test_paid_and_discount_are_the_list_price(
    usage: Usage, rates: Rates, terms: tuple[int, int], tier: str, context: int | None
) -> None:
    """Class by class and in sum, whatever was rounded where; nothing is a fraction."""
    team = msgspec.structs.replace(rates, discount=terms[0], markup=terms[1])
    paid, off = payable(usage, team, tier, context=context)
    listed = charge(usage, rates, tier, context=context) if usage.total else NO_CHARGE
    assert difference(listed, paid) == off
    assert listed.total == paid.total + off.total
    assert all(type(amount) is int for amount in (*astuple(paid), *astuple(off)))


@settings(deadline=None, max_examples=60)
@given(usages, tiered, terms, tiers)
def test_every_class_is_rounded_once(usage: Usage, rates: Rates, terms: tuple[int, int], tier: str) -> None:
    """Each amount lies within half a nano-dollar of the exact one; a tie goes to the even neighbour."""
    team = msgspec.structs.replace(rates, discount=terms[0], markup=terms[1])
    found = chosen(rates, tier, usage.prompt).resolved()
    factor = Fraction((10_000 - terms[0]) * (10_000 + terms[1]), 10**8)
    parts = usage.split()
    exact = {
        "prompt": parts.prompt * found.prompt,
        "completion": parts.completion * found.completion,
        "cache_read": parts.cache_read * (found.cache_read or 0),
        "cache_write": parts.cache_write * (found.cache_write or 0)
        + parts.cache_write_1h * (found.cache_write_1h or 0),
        "reasoning": parts.reasoning * (found.reasoning or 0),
        "audio": parts.audio_prompt * (found.audio_prompt or 0)
        + parts.audio_completion * (found.audio_completion or 0),
        "image": parts.image_prompt * (found.image_prompt or 0)
        + parts.image_completion * (found.image_completion or 0),
        "request": found.request * 1_000,
    }
    paid = charge(usage, team, tier)
    for name, pico in exact.items():
        amount, due = getattr(paid, name), Fraction(pico, 1_000) * factor
        assert abs(amount - due) <= Fraction(1, 2)
        assert amount == round(due), name
    assert paid.total == sum(astuple(paid))


@settings(deadline=None, max_examples=60)
@given(usages, counts, st.integers(0, 8), plain, terms)
def test_more_tokens_never_cost_less(usage: Usage, more: int, place: int, rates: Rates, terms: tuple[int, int]) -> None:
    """Within a tier, more of a total, with its classes as they were, costs at least as much."""
    team = msgspec.structs.replace(rates, discount=terms[0], markup=terms[1])
    name = ("prompt", "completion")[place % 2]
    grown = msgspec.structs.replace(usage.split(), **{name: getattr(usage.split(), name) + more})
    # Disjoint counts again as totals, so that only the one class has grown.
    assert charge(_totals(grown), team).total >= charge(_totals(usage.split()), team).total


def _totals(parts: Usage) -> Usage:
    return msgspec.structs.replace(
        parts,
        prompt=parts.prompt + parts.cache_read + parts.cache_write + parts.audio_prompt + parts.image_prompt,
        completion=parts.completion + parts.reasoning + parts.audio_completion + parts.image_completion,
    )


@settings(deadline=None, max_examples=60)
@given(usages, tiered, terms, tiers)
def test_the_bound_holds(usage: Usage, rates: Rates, terms: tuple[int, int], tier: str) -> None:
    """What a request is charged is never above the bound for its input and output, in no class and no tier."""
    team = msgspec.structs.replace(rates, discount=terms[0], markup=terms[1])
    assert charge(usage, team, tier).total <= bound(team, usage.prompt, usage.completion)


@settings(deadline=None, max_examples=60)
@given(tiered, terms)
def test_rates_survive_the_journal_with_their_tiers(rates: Rates, terms: tuple[int, int]) -> None:
    """MessagePack and JSON give back the same rates and the same id; ids tell tiers and terms apart."""
    team = msgspec.structs.replace(rates, discount=terms[0], markup=terms[1])
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(team), type=Rates)
    assert again == team == msgspec.json.decode(msgspec.json.encode(team), type=Rates)
    assert rates_id(again) == rates_id(team) == rates_id(team.resolved())
    assert (rates_id(team) == rates_id(rates)) == (terms == (0, 0))


def test_rates_of_older_segments_can_be_read() -> None:
    """Ten fields are rates without tiers or terms, and simple rates keep the id they always had."""
    old = msgspec.msgpack.encode([100_000, 300_000, None, None, None, None, None, None, None, 5])
    read = msgspec.msgpack.decode(old, type=Rates)
    assert read == Rates(100_000, 300_000, request=5)
    assert rates_id(Rates(100_000, 300_000)) == 7_320_148_967_877_265_693


def test_half_to_even_at_terms() -> None:
    """Half a nano-dollar goes to the even neighbour, exactly, with any terms."""
    assert [nano_at_terms(pico, 5_000, 0) for pico in (1_000, 3_000, 5_000, 5_001, -1_000)] == [0, 2, 2, 3, 0]


def test_tokens_per_dollar_are_whole() -> None:
    """Rounded down; nothing paid is no number."""
    assert tokens_per_usd(1_000, 300_000_000) == 3_333
    assert tokens_per_usd(1_000, 0) is None
    assert tokens_per_usd(1_000, -5) is None


def test_no_charge_is_a_charge_of_nothing() -> None:
    """Nothing used is nothing paid, fee or not."""
    assert payable(Usage(), Rates(1, 1, request=5, discount=100)) == (Charge(), Charge())
