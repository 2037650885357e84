"""Tiers in the configuration file: strictly checked, and resolved to rates."""

from __future__ import annotations

import pytest

from gateway.config.problem import ConfigError
from gateway.config.snapshot import ConfigSnapshot
from gateway.tariff.overlay import stated
from gateway.tariff.version import Kind
from gateway.types.money import LongContext, Rates, ServiceTier
from tests.unit.tariff.files import BIG, snapshot_of

BASE = 'prompt: "1", completion: "2"'


def of(rest: str) -> ConfigSnapshot:
    """Return the configuration whose big model has a price with ``rest``."""
    return snapshot_of(price=f"{{{BASE}, {rest}}}")


def test_tiers_become_rates() -> None:
    """By rising lines, whole; service tiers have their own."""
    snapshot = of(
        f'tiers: [{{above: 10, prompt: "3", completion: "4"}}, {{above: 20, prompt: "5", completion: "6"}}], '
        f"service_tiers: {{flex: {{{BASE}, tiers: []}}}}"
    )
    assert snapshot.models[BIG].price == Rates(
        1_000_000,
        2_000_000,
        tiers=(LongContext(10, Rates(3_000_000, 4_000_000)), LongContext(20, Rates(5_000_000, 6_000_000))),
        service_tiers=(ServiceTier("flex", Rates(1_000_000, 2_000_000)),),
    )


@pytest.mark.parametrize(
    ("rest", "key", "said"),
    [
        ('tiers: [{above: 0, prompt: "3", completion: "4"}]', "tiers[0].above", "at least 1"),
        ('tiers: [{prompt: "3", completion: "4"}]', "tiers[0].above", "is missing"),
        ('tiers: [{above: 5, prompt: "3"}]', "tiers[0].completion", "is missing"),
        ('tiers: [{above: 5, prompt: 3, completion: "4"}]', "tiers[0].prompt", "decimal string"),
        (
            'cache_read: "1", tiers: [{above: 5, prompt: "3", completion: "4"}]',
            "tiers[0]",
            "does not say cache_read",
        ),
        ('request: "1", service_tiers: {flex: {prompt: "3", completion: "4"}}', "flex", "does not say request"),
        (
            'tiers: [{above: 5, prompt: "3", completion: "4"}, {above: 5, prompt: "3", completion: "4"}]',
            "tiers[1].above",
            "not more than",
        ),
        (
            'tiers: [{above: 5, prompt: "3", completion: "4"}], service_tiers: {flex: {prompt: "3", completion: "4"}}',
            "service_tiers.flex",
            "long input",
        ),
        ('service_tiers: {turbo: {prompt: "3", completion: "4"}}', "turbo", "not a known key"),
        (
            'service_tiers: {flex: {prompt: "3", completion: "4", service_tiers: {}}}',
            "flex.service_tiers",
            "not a known key",
        ),
    ],
    ids=["zero", "line", "class", "number", "cached", "fee", "order", "length", "name", "nested"],
)
def test_a_tier_that_leaves_something_open_is_refused(rest: str, key: str, said: str) -> None:
    """With the key and what is wrong."""
    with pytest.raises(ConfigError) as refused:
        of(rest)
    assert key in str(refused.value)
    assert said in str(refused.value)


def test_costs_are_judged_too() -> None:
    """What the owner pays has the same form and the same rules."""
    cost = '{prompt: "1", completion: "1", tiers: [{above: 5, prompt: "2", completion: "2"}]}'
    found = {each.subject: each for each in stated(snapshot_of(cost=cost))}
    rates = found[Kind.COST, BIG, "acme"].rates
    assert rates is not None
    assert rates.tiers[0].above == 5
    with pytest.raises(ConfigError, match="does not say cache_read"):
        snapshot_of(
            cost='{prompt: "1", completion: "1", cache_read: "0", tiers: [{above: 5, prompt: "2", completion: "2"}]}'
        )


def test_replicas_are_stated_once() -> None:
    """An endpoint has one price of its own, wherever it is written."""
    kinds = [each.subject for each in stated(snapshot_of())]
    assert len(kinds) == len(set(kinds))
    assert (Kind.SELL, BIG, "own") in kinds
