"""Prices of other sources: read exactly, written to a file, compared, and never applied by being read."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings

from gateway.tariff.form import basis_points, change_percent, moment_of, percent, rates_form, rates_of
from gateway.tariff.offers import (
    Target,
    assembled,
    change_form,
    changes,
    document_of,
    nano_of,
    offers_form,
    offers_of,
    pico_of,
    proposals,
    targets,
)
from gateway.tariff.sources import from_genai_prices, from_litellm
from gateway.tariff.version import Kind
from gateway.types.errors import BadRequest
from gateway.types.money import LongContext, Rates, ServiceTier
from tests.unit.pricing.test_terms import tiered
from tests.unit.tariff.files import BIG, snapshot_of

MAP = {
    "acme/big-1": {
        "litellm_provider": "acme",
        "mode": "chat",
        "input_cost_per_token": 1.25e-06,
        "output_cost_per_token": 1e-05,
        "cache_read_input_token_cost": 1.25e-07,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token_above_200k_tokens": 1.5e-05,
        "input_cost_per_token_flex": 6.25e-07,
        "output_cost_per_token_flex": 5e-06,
        "search_context_cost_per_query": 0.035,
        "max_tokens": 8192,
    },
    "odd": {"input_cost_per_token": 1.23456789e-15, "output_cost_per_token": 1e-06},
    "half": {"input_cost_per_token": 1e-06},
}
TARGET = Target(Kind.COST, BIG, "acme", "acme", ("acme/big-1", "big-1", BIG))


def test_litellm_is_read_exactly() -> None:
    """Its floats are decimal numbers in the file and stay decimal; tiers say every class."""
    found = from_litellm(json.dumps(MAP).encode(), [TARGET], {}, None)
    (offer,) = found.offers
    assert offer.matched == "acme/big-1"
    base = Rates(1_250_000, 10_000_000, cache_read=125_000)
    long = Rates(2_500_000, 15_000_000, cache_read=125_000)
    flex = Rates(625_000, 5_000_000, cache_read=125_000)
    assert offer.rates.tiers == (LongContext(200_000, long),)
    (service,) = offer.rates.service_tiers
    assert service.name == "flex"
    assert service.rates.prompt == flex.prompt
    assert service.rates.tiers[0].rates.prompt == flex.prompt, "a tier's own word goes before a longer line of others"
    assert (offer.rates.prompt, offer.rates.cache_read) == (base.prompt, base.cache_read)
    assert "search_context_cost_per_query is not charged here" in offer.notes


def test_what_cannot_be_held_is_not_taken() -> None:
    """A price finer than the books, or half a price, is reported with its reason; an unknown model is missing."""
    wanted = [Target(Kind.COST, name, "b", "p", (name,)) for name in ("odd", "half", "nowhere")]
    found = from_litellm(json.dumps(MAP).encode(), wanted, {}, None)
    assert found.offers == ()
    assert [target.model for target, _ in found.unclear] == ["odd", "half"]
    assert "finer" in found.unclear[0][1]
    assert "completion" in found.unclear[1][1]
    assert [target.model for target in found.missing] == ["nowhere"]


def test_a_model_may_be_called_otherwise() -> None:
    """``--map`` names it, and goes before every guess."""
    target = Target(Kind.COST, "ours", "b", "p", ("ours",))
    found = from_litellm(json.dumps(MAP).encode(), [target], {"ours": "acme/big-1"}, None)
    assert found.offers[0].matched == "acme/big-1"


@pytest.mark.parametrize(
    "data", [b"[]", b"{", b'{"a": 1}', b"\xff", b"[" * 100_000], ids=["list", "cut", "flat", "bytes", "deep"]
)
def test_a_file_that_is_no_price_map_is_refused(data: bytes) -> None:
    """With a sentence, whatever it is."""
    with pytest.raises(BadRequest):
        from_litellm(data, [TARGET], {}, None)


def test_genai_prices_knows_long_contexts_and_service_tiers() -> None:
    """The package's own data: a model with a line at 200,000 tokens, one with flex and priority."""
    wanted = [
        Target(Kind.COST, "google/gemini-2.5-pro", "g", "google", ("gemini-2.5-pro",)),
        Target(Kind.COST, "openai/gpt-5", "o", "openai", ("gpt-5",)),
        Target(Kind.COST, "acme/unheard-of", "a", "acme", ("unheard-of",)),
    ]
    found = from_genai_prices(wanted, {}, None)
    gemini, gpt = found.offers
    assert gemini.rates.tiers[0].above == 200_000
    assert gemini.rates.tiers[0].rates.prompt > gemini.rates.prompt > 0
    assert {"flex", "priority"} <= {tier.name for tier in gpt.rates.service_tiers}
    assert [target.model for target in found.missing] == ["acme/unheard-of"]
    named = from_genai_prices(wanted[2:], {"acme/unheard-of": "openai/gpt-5"}, None)
    assert named.offers[0].rates == gpt.rates


def test_a_file_of_offers_there_and_back() -> None:
    """What is written is read again, may be edited between, and becomes proposals with source and date."""
    found = from_litellm(json.dumps(MAP).encode(), [TARGET], {}, None)
    again = offers_of(json.loads(json.dumps(offers_form(found))))
    assert again.offers[0].rates == found.offers[0].rates
    (made,) = proposals(again, who="ada", why="autumn", valid_from_us=5)
    assert (made.kind, made.model, made.place) == (Kind.COST, BIG, "acme")
    assert (made.source, made.source_version, made.valid_from_us) == ("litellm", found.source_version, 5)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "no file of offers"),
        ({"offers": [{"kind": "terms"}]}, "offers.0"),
        ({"offers": [{"kind": "sell", "model": "m", "price": {"prompt": 0.1, "completion": "1"}}]}, "prompt"),
        (
            {
                "offers": [
                    {
                        "kind": "sell",
                        "model": "m",
                        "price": {
                            "prompt": "1",
                            "completion": "1",
                            "cache_read": "1",
                            "tiers": [{"above": 5, "prompt": "2", "completion": "2"}],
                        },
                    }
                ]
            },
            "does not say cache_read",
        ),
        (
            {
                "offers": [
                    {"kind": "cost", "model": "m", "place": "acme", "price": {"prompt": "1", "completion": "1"}},
                    {"kind": "sell", "model": "m", "price": {"prompt": "1", "completion": "1"}},
                    {"kind": "cost", "model": "m", "place": "acme", "price": {"prompt": "2", "completion": "2"}},
                ]
            },
            r"offers\.2 \(m\): the price of cost m acme is there twice, first in offers\.0: keep one of them",
        ),
    ],
    ids=["list", "kind", "float", "tier", "twice"],
)
def test_an_edited_file_is_judged_as_the_configuration_is(document: object, said: str) -> None:
    """The place is named."""
    with pytest.raises(BadRequest, match=said):
        offers_of(document)


def test_a_file_that_says_a_key_twice_is_refused() -> None:
    """The last one would win, and nobody who reads the file would know."""
    with pytest.raises(BadRequest, match="'price' is there twice in one object of the file, behind m: keep one"):
        document_of(b'{"offers": [{"kind": "sell", "model": "m", "price": {}, "price": {}}]}')


def test_a_price_that_the_map_says_twice_is_not_taken() -> None:
    """Said twice and differently it is unclear, with the reason; the same words twice harm nobody."""
    target = Target(Kind.COST, "m", "acme", "acme", ("acme/m", "m"))
    line = '{"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}'
    other = '{"input_cost_per_token": 3e-6, "output_cost_per_token": 2e-6}'
    rate = '{"input_cost_per_token": 1e-6, "input_cost_per_token": 2e-6, "output_cost_per_token": 2e-6}'
    for entries, said in (
        (f'"m": {line}, "m": {other}', "m: m is in the file twice, and differently: keep one of them"),
        (f'"m": {rate}', "m: input_cost_per_token is in the file twice, and differently: keep one of them"),
    ):
        found = from_litellm(b"{%s}" % entries.encode(), [target], {}, None)
        assert (found.offers, found.unclear) == ((), ((target, said),))
    found = from_litellm(f'{{"m": {line}, "m": {line}, "n": {rate}, "n": {line}}}'.encode(), [target], {}, None)
    assert [offer.rates.prompt for offer in found.offers] == [1_000_000]


@settings(deadline=None, max_examples=60)
@given(tiered)
def test_rates_there_and_back(rates: Rates) -> None:
    """The form of a price says exactly what the rates say, tiers and service tiers too."""
    filled = rates.resolved()
    read = rates_of(json.loads(json.dumps(rates_form(filled))), "test").resolved()
    assert changes(filled, read) == changes(read, filled) == []
    assert (len(read.tiers), len(read.service_tiers)) == (len(filled.tiers), len(filled.service_tiers))


def test_changes_name_every_rate() -> None:
    """Old, new and percent; a tier that is new has no old rate; a fallback written out is no change."""
    before = Rates(100_000, 300_000)
    after = Rates(110_000, 300_000, tiers=(LongContext(200_000, Rates(200_000, 600_000)),))
    found = [change_form(change) for change in changes(before, after)]
    base = [each for each in found if not each["above"]]
    read = {"prompt", "cache_read", "cache_write", "cache_write_1h", "audio_prompt", "image_prompt"}
    assert {each["class"] for each in base} == read
    assert all((each["old"], each["new"], each["percent"]) == ("0.1", "0.11", "10") for each in base)
    assert {(each["above"], each["old"]) for each in found if each["above"]} == {(200_000, None)}
    assert changes(before, before.resolved()) == []
    assert changes(None, before)


def test_points_fill_tiers() -> None:
    """What a tier leaves out is that of the line below, then of the default tier."""
    points = {
        ("default", 0, "prompt"): 1,
        ("default", 0, "completion"): 2,
        ("default", 0, "cache_read"): 3,
        ("default", 100, "prompt"): 4,
        ("batch", 0, "completion"): 5,
    }
    rates = assembled(points)
    assert rates.tiers == (LongContext(100, Rates(4, 2, 3)),)
    batch = Rates(1, 5, 3, tiers=(LongContext(100, Rates(4, 5, 3)),))
    assert rates.service_tiers == (ServiceTier("batch", batch),)


def test_targets_are_what_the_owner_buys_or_sells() -> None:
    """Costs of endpoints of external APIs; prices of models."""
    snapshot = snapshot_of()
    assert [(each.model, each.place, each.names[:2]) for each in targets(snapshot, Kind.COST)] == [
        (BIG, "acme", ("acme/big-1", "big-1"))
    ]
    assert [(each.model, each.place) for each in targets(snapshot, Kind.SELL)] == [(BIG, ""), ("qwen/small", "")]


@pytest.mark.parametrize("usd", ["1e-13", "-1e-6", "NaN", "Infinity", "2", "1e999999", "1e-999999"])
def test_no_rate_is_guessed(usd: str) -> None:
    """Too fine, negative, no number, or over a dollar a token: refused."""
    with pytest.raises(ValueError, match="finer"):
        pico_of(Decimal(usd))


@pytest.mark.parametrize("usd", ["1e-13", "-1", "NaN", "1e999999", "1e-999999"])
def test_no_fee_is_guessed(usd: str) -> None:
    """Too fine, negative, or no amount: refused."""
    with pytest.raises(ValueError, match="finer"):
        nano_of(Decimal(usd))


def test_percent_is_exact() -> None:
    """To a hundredth; finer is refused; changes are rounded half up to a hundredth."""
    assert basis_points("12.5", "x") == 1_250
    assert percent(1_250) == "12.5"
    with pytest.raises(BadRequest, match="hundredth"):
        basis_points("0.001", "x")
    assert change_percent(300, 200) == "-33.33"
    assert change_percent(3, 4) == "33.33"
    assert change_percent(0, 4) is None


def test_moments_are_utc() -> None:
    """A date is its first moment; a zone is heeded."""
    assert moment_of("1970-01-02", "x") == 86_400_000_000
    assert moment_of("1970-01-01T02:00+02:00", "x") == 0
    with pytest.raises(BadRequest, match="date"):
        moment_of("soon", "x")
