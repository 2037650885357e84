"""The worked numbers of ``docs/pricing.md`` are what the program computes."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from gateway.pricing.charge import payable
from gateway.tariff.allocation import HOUR_US, Use, allocate
from gateway.tariff.form import basis_points, rates_of
from gateway.tariff.version import Hourly
from gateway.types.money import DEFAULT_TIER, usd_text
from gateway.types.tokens import Usage

PAGE = (Path(__file__).parents[3] / "docs" / "pricing.md").read_text()
PRICES = yaml.safe_load(PAGE.partition("<!-- prices -->\n```yaml\n")[2].partition("```")[0])
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("<!-- worked -->\n")[2].partition("\n\n")[0].split("\n")[2:]
]


def test_there_are_worked_rows() -> None:
    """The page has a table, with every price in it."""
    assert {row[0] for row in ROWS} == set(PRICES)
    assert len(ROWS) == 12


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]}-{number}" for number, row in enumerate(ROWS)])
def test_a_worked_row(row: list[str]) -> None:
    """Every class, the charge and the list price are as the page says."""
    price, usage, tier, terms, classes, charged, listed = row
    rates = rates_of(PRICES[price], price)
    discount, markup = re.findall(r"[0-9.]+", terms) or ("0", "0")
    rates = msgspec.structs.replace(rates, discount=basis_points(discount, "page"), markup=basis_points(markup, "page"))
    prompt, completion = (int(number) for number in re.findall(r"[0-9]+", usage.partition(",")[0]))
    parts = {name: int(count) for name, count in re.findall(r"([a-z][a-z0-9_]*) ([0-9]+)", usage)}
    paid, off = payable(Usage(prompt, completion, **parts), rates, tier or DEFAULT_TIER)
    found = {name: usd_text(getattr(paid, name)) for name in paid.__struct_fields__ if getattr(paid, name)}
    assert found == dict(part.split(" ") for part in classes.split(", ") if part)
    assert (usd_text(paid.total), usd_text(paid.total + off.total)) == (charged, listed)


def test_the_machine_of_the_page() -> None:
    """4.60 USD an hour on two slots."""
    uses = [Use("a", "own", 1, HOUR_US // 2), Use("b", "own", 1, HOUR_US // 4)]
    _, lines = allocate(Hourly(4_600_000_000, 2), uses, 0)
    words = " USD, ".join(usd_text(line.cost) for line in lines)
    assert f"{words} USD idle" in PAGE
