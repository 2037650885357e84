"""FOCUS rows say what was used and paid, class by class, and keep the rules of 1.2; broken rules are found."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.billing.focus import COLUMNS, NAMES, FocusRows, unit_prices
from gateway.billing.focus_check import MANDATORY, UNION, check, check_file
from gateway.billing.line import Amounts, Line, LineKey
from gateway.billing.table import Kind, decimal_text, form_of
from gateway.pricing.charge import payable
from gateway.types.money import LongContext, Rates
from gateway.types.tokens import Usage

DAY = 20_741
PRICE = Rates(100_000, 300_000, cache_read=20_000, request=1_000, discount=1_250)
TIERED = Rates(100_000, 300_000, tiers=(LongContext(1_000, Rates(200_000, 600_000)),))


def line(usages: list[Usage], price: Rates, *, period: str = "2026-10", kind: str = "usage") -> Line:
    """Return the line of some requests."""
    rows = [payable(usage, price) for usage in usages]
    tokens = [sum(values) for values in zip(*(list(_tuple(usage.split())) for usage in usages), strict=True)]
    charge = tuple(sum(_tuple(paid)[place] for paid, _ in rows) for place in range(8))
    discount = tuple(sum(_tuple(less)[place] for _, less in rows) for place in range(8))
    key = LineKey(
        "search", DAY, "abcd1234", "qwen/qwen3-32b", "own/fp8@eu", "default", 7, kind, int(any(charge + discount))
    )
    fees = sum(1 for paid, less in rows if paid.request or less.request)
    return Line(period, key, Amounts(len(rows), len(rows), fees, tuple(tokens), charge, discount))


def _tuple(struct: Any) -> tuple[int, ...]:
    return tuple(getattr(struct, name) for name in struct.__struct_fields__)


def texts(found: Line, price: Rates | None) -> list[dict[str, str | None]]:
    """Return the rows of a line as a file has them."""
    made = FocusRows({"": "Example Ltd"}, {"search": "Search team"}).of(found, {} if price is None else {"7": price})
    rows = []
    for row in made:
        cells: dict[str, str | None] = {}
        for column, value in zip(COLUMNS, row, strict=True):
            number = column.kind is Kind.DECIMAL and value is not None
            cells[column.name] = decimal_text(int(value or 0), column.decimals) if number else _text(value)
        rows.append(cells)
    return rows


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


USAGES = st.lists(
    st.builds(
        Usage,
        st.integers(1, 5_000),
        st.integers(1, 900),
        st.integers(0, 500),
        st.integers(0, 100),
        st.integers(0, 100),
        *(st.integers(0, 50) for _ in range(4)),
    ),
    min_size=1,
    max_size=12,
)
RATES = st.builds(
    Rates,
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.one_of(st.none(), st.integers(0, 10**6)),
    request=st.integers(0, 10**6),
    discount=st.integers(0, 10_000),
    markup=st.integers(0, 3_000),
)


@given(USAGES, st.one_of(st.just(TIERED), RATES), st.sampled_from(["2026-10", "2026-11"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_rows_keep_the_rules_whatever_was_used_and_paid(
    usages: list[Usage], price: Rates, period: str, known: bool
) -> None:
    """Sums of rows are the sums of the line, and no rule of 1.2 is broken, blended unit prices included."""
    found = line(usages, price, period=period)
    rows = texts(found, price if known else None)
    report = check(list(NAMES), iter(rows))
    assert report.problems == []
    amounts = found.amounts
    assert sum(Decimal(row["BilledCost"] or 0) for row in rows) * 10**9 == amounts.charge_nano
    assert sum(Decimal(row["ListCost"] or 0) for row in rows) * 10**9 == amounts.charge_nano + amounts.discount_nano
    tokens = sum(int(row["ConsumedQuantity"] or 0) for row in rows if row["ConsumedUnit"] == "Tokens")
    assert tokens == sum(usage.total for usage in usages)
    assert sum(int(row["x_Requests"] or 0) for row in rows) == len(usages)


def test_a_row_says_what_a_class_costs() -> None:
    """The columns of the 23-column union and of tokens, for a line with a discount of 12.5 percent."""
    rows = {row["SkuMeter"]: row for row in texts(line([Usage(1_000_000, 0, 400_000)], PRICE), PRICE)}
    assert set(rows) == {"Input Tokens", "Cache Read Input Tokens", "Requests"}
    row = rows["Input Tokens"]
    assert set(UNION) <= set(row)
    assert len(set(UNION)) == 23
    due = {
        "BilledCost": "0.0525",
        "ListCost": "0.06",
        "ListUnitPrice": "0.1",
        "ContractedUnitPrice": "0.0875",
        "ConsumedQuantity": "600000",
        "ConsumedUnit": "Tokens",
        "PricingQuantity": "0.6",
        "PricingUnit": "1000000 Tokens",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ChargeClass": None,
        "ChargePeriodStart": "2026-10-15T00:00:00Z",
        "ChargePeriodEnd": "2026-10-16T00:00:00Z",
        "BillingPeriodEnd": "2026-11-01T00:00:00Z",
        "SubAccountName": "Search team",
        "HostProviderName": "own",
        "InvoiceIssuerName": "Example Ltd",
    }
    assert {name: row[name] for name in due} == due
    assert json.loads(row["SkuPriceDetails"] or "") == {"x_ModelId": "qwen/qwen3-32b", "x_TokenType": "Input"}
    fee = rows["Requests"]
    assert (fee["ConsumedUnit"], fee["PricingQuantity"], fee["BilledCost"]) == ("Requests", "1", "0.000000875")


def test_money_without_usage_is_an_adjustment() -> None:
    """A correction of an amount alone has no unit and no price, and keeps the rules."""
    key = LineKey("search", DAY, "abcd1234", "m", "own", "default", 7, "correction", 1)
    amounts = Amounts(1, 0, 0, (0,) * 10, (-1_000, *(0,) * 7), (0,) * 8)
    (row,) = texts(Line("2026-10", key, amounts), PRICE)
    assert (row["ChargeCategory"], row["BilledCost"], row["PricingUnit"]) == ("Adjustment", "-0.000001", None)
    assert check(list(NAMES), iter([row])).ok


@given(st.integers(1, 10**9), st.integers(0, 10**12), st.integers(-(10**9), 10**12), st.integers(1, 10**6))
def test_blended_prices_explain_the_amounts(quantity: int, charge: int, discount: int, rows: int) -> None:
    """The mean price times the quantity is the amount, to less than a nano-USD."""
    listed, contracted, blended = unit_prices("prompt", quantity, charge, discount, None, rows)
    assert blended
    assert abs(Decimal(contracted) * quantity - Decimal(charge) * 10**12) * 2 <= quantity
    assert abs(Decimal(listed) * quantity - Decimal(charge + discount) * 10**12) * 2 <= quantity


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"BilledCost": None}, "not-null"),
        ({"ListCost": "1,5"}, "numeric-format"),
        ({"ChargePeriodEnd": "2026-10-16"}, "date-time-format"),
        ({"ChargeCategory": "usage"}, "allowed-values"),
        ({"ServiceCategory": "LLM"}, "allowed-values"),
        ({"BillingCurrency": "usd"}, "currency-format"),
        ({"ListUnitPrice": "-1"}, "unit-prices-not-negative"),
        ({"ChargePeriodStart": "2026-10-16T00:00:00Z"}, "periods-ordered"),
        ({"BillingPeriodEnd": "2026-10-10T00:00:00Z"}, "charge-in-billing-period"),
        ({"PricingUnit": None}, "quantities-and-units"),
        ({"ConsumedUnit": None}, "quantities-and-units"),
        ({"ListUnitPrice": None}, "prices-and-skus"),
        ({"SkuPriceId": None}, "prices-and-skus"),
        ({"ListCost": "0.0601"}, "ListCost-product"),
        ({"ContractedCost": "0.06"}, "ContractedCost-product"),
        ({"SubAccountId": None}, "sub-accounts"),
        ({"Tags": "[]"}, "json-objects"),
        ({"ConsumedQuantity": "0.5"}, "whole-tokens"),
        ({"EffectiveCost": "0.01"}, "billed-is-effective"),
    ],
)
def test_every_broken_rule_is_found(change: dict[str, str | None], rule: str) -> None:
    """The check can fail, rule by rule."""
    rows = texts(line([Usage(1_000_000, 0, 400_000)], PRICE), PRICE)
    assert check(list(NAMES), iter(rows)).ok
    report = check(list(NAMES), iter([rows[0] | change]))
    assert rule in {problem["rule"] for problem in report.problems}


def test_missing_and_foreign_columns_are_found() -> None:
    """Each of the 21 mandatory columns must be there, and columns of one's own are marked."""
    rows = texts(line([Usage(10, 10)], PRICE), PRICE)
    for name in MANDATORY:
        assert not check([each for each in NAMES if each != name], iter(rows)).ok
    assert check([*NAMES, "TokenType"], iter(rows)).problems[0]["rule"] == "custom-columns"


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "parquet"])
def test_files_of_every_format_can_be_checked(form: str, tmp_path: Path) -> None:
    """The command reads what the export writes."""
    found = line([Usage(1_000, 10, 7)], PRICE)
    rows = FocusRows({"": "X"}, {}).of(found, {"7": PRICE})
    writer = form_of(form, COLUMNS)
    path = tmp_path / f"focus.{form}"
    path.write_bytes(writer.rows(rows) + writer.end())
    report = check_file(path)
    assert report.problems == []
    assert report.rows == len(rows)
