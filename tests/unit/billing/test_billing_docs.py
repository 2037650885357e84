"""The worked numbers of docs/billing.md are what the program computes."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.billing.focus import unit_prices
from gateway.billing.table import decimal_text
from gateway.pricing.charge import payable
from gateway.types.money import Rates, rate_from_usd_per_million, usd_text
from gateway.types.tokens import Usage

PAGE = Path(__file__).parents[3] / "docs" / "billing.md"
ROWS = {"input": "prompt", "cache read": "cache_read", "output": "completion"}


def test_the_worked_example_is_true() -> None:
    """Each class and the sum, list, discount and effective, and the unit prices of the FOCUS rows."""
    page = PAGE.read_text()
    off = re.search(
        r"has ([\d.]+) % off `prompt: \"([\d.]+)\"`, `completion: \"([\d.]+)\"`, `cache_read: \"([\d.]+)\"`", page
    )
    assert off is not None
    prompt, completion, cache_read = map(rate_from_usd_per_million, off.groups()[1:])
    price = Rates(prompt, completion, cache_read=cache_read, discount=round(float(off[1]) * 100))
    usage = Usage(1_000, 100, 400)
    assert "reads 1,000 tokens, 400 of them from the cache, and makes 100" in page
    paid, less = payable(usage, price)
    table = page.partition("<!-- example -->")[2].partition("<!-- end -->")[0]
    shown = {
        cells[0].strip("* "): tuple(cell.strip() for cell in cells[1:])
        for line in table.strip().splitlines()[2:]
        if (cells := line.strip("| ").split("|"))
    }
    due = {
        name: (
            str(getattr(usage.split(), field)),
            usd_text(getattr(paid, field) + getattr(less, field)),
            usd_text(getattr(less, field)),
            usd_text(getattr(paid, field)),
        )
        for name, field in ROWS.items()
    }
    due["all"] = ("1100", usd_text(paid.total + less.total), usd_text(less.total), usd_text(paid.total))
    assert shown == due
    for field, listed, agreed in zip(
        ("prompt", "cache_read", "completion"), ("0.1", "0.02", "0.3"), ("0.0875", "0.0175", "0.2625"), strict=True
    ):
        tokens, charge, discount = getattr(usage.split(), field), getattr(paid, field), getattr(less, field)
        found = unit_prices(field, tokens, charge, discount, price, 1)
        assert (decimal_text(found[0], 15), decimal_text(found[1], 15), found[2]) == (listed, agreed, False)
        assert listed in page
        assert agreed in page
