"""Rules of FOCUS 1.2, Cost and Usage: what a file must keep, whoever made it.

Those rules are checked that concern usage and adjustments billed in money: columns that must be there, values that must
not be null, formats, allowed values, and what columns of a row say together. Quantity times unit price may be off by
half a nano-USD for each amount that was rounded; where a file does not say how many there were (``x_LedgerRows``), by
a hundredth of a percent. Files are read row by row.

Raises ``OSError`` and ``ValueError`` for a file that is none; broken rules are in the report.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

Row = Mapping[str, str | None]
MOST_PROBLEMS: Final = 100

MANDATORY: Final = (
    *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd"),
    *("BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd"),
    *("ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity"),
    *("PricingUnit", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName"),
)
"""The 21 columns that every file of 1.2 has."""
UNION: Final = (*MANDATORY, "HostProviderName", "ServiceProviderName")
"""With those that 1.3 adds."""
_NOT_NULL: Final = frozenset(MANDATORY) - {
    *("BillingAccountName", "ChargeClass", "ChargeDescription", "PricingQuantity", "PricingUnit")
}
_DECIMALS: Final = (
    *("BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "ListUnitPrice", "ContractedUnitPrice"),
    *("PricingQuantity", "ConsumedQuantity", "PricingCurrencyListUnitPrice", "PricingCurrencyEffectiveCost"),
    "PricingCurrencyContractedUnitPrice",
)
_PRICES: Final = ("ListUnitPrice", "ContractedUnitPrice")
_MOMENTS: Final = ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd")
_ALLOWED: Final[Mapping[str, set[str | None]]] = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {None, "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {None, "Standard", "Dynamic", "Committed", "Other"},
    "CommitmentDiscountStatus": {None, "Used", "Unused"},
    "ServiceCategory": {
        *("AI and Machine Learning", "Analytics", "Business Applications", "Compute", "Databases", "Developer Tools"),
        *("Identity", "Integration", "Internet of Things", "Management and Governance", "Media", "Migration", "Mobile"),
        *("Multicloud", "Networking", "Other", "Security", "Storage", "Web"),
    },
}
_MOMENT: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ")
_DECIMAL: Final = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_TOLERANCE: Final = Decimal("0.0000000005")


@dataclass(slots=True)
class Report:
    """What a check found.

    Attributes:
        rows: rows read.
        rules: rules checked.
        problems: the first ``MOST_PROBLEMS``, each with rule, row (1-based, 0 for the file) and problem.
    """

    rows: int = 0
    rules: int = 0
    problems: list[dict[str, Any]] = field(default_factory=list)
    found: int = 0

    @property
    def ok(self) -> bool:
        """Whether all rules are kept."""
        return not self.found

    def say(self, rule: str, row: int, problem: str) -> None:
        """Report a broken rule."""
        self.found += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append({"rule": rule, "row": row, "problem": problem[:300]})


def check_file(path: Path) -> Report:
    """Return which rules a file breaks."""
    columns, rows = read_rows(path)
    return check(columns, rows)


def check(columns: list[str], rows: Iterator[Row]) -> Report:
    """Return which rules rows break."""
    report = Report(rules=len(MANDATORY) + len(_RULES))
    for name in MANDATORY:
        if name not in columns:
            report.say(f"{name}-present", 0, f"the column {name} is missing")
    for name in columns:
        if name not in KNOWN and not name.startswith("x_"):
            report.say("custom-columns", 0, f"{name} is no column of FOCUS: its own are prefixed with x_")
    for number, row in enumerate(rows, 1):
        report.rows = number
        for rule, judge in _RULES.items():
            try:
                problem = judge(row)
            except (InvalidOperation, ValueError):
                continue  # a rule of formats has told
            if problem:
                report.say(rule, number, problem)
    return report


def read_rows(path: Path) -> tuple[list[str], Iterator[Row]]:
    """Return the columns and the rows of a file; null and, in CSV, empty values are None."""
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            columns = next(csv.reader(file), [])
        return columns, _csv(path)
    lines = _json_lines(path)
    first = next(lines, {})
    return list(first), _after(first, lines)


def _after(first: Row, lines: Iterator[Row]) -> Iterator[Row]:
    if first:
        yield first
    yield from lines


def _csv(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {name: value or None for name, value in row.items()}


def _json_lines(path: Path) -> Iterator[Row]:
    """Yield the rows of JSON lines, or of an array with a row in each line."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            text = line.strip().rstrip(",")
            if text not in {"", "[", "]", "[]"}:
                row = json.loads(text)
                if not isinstance(row, dict):
                    raise ValueError("a line holds no row")
                yield {name: None if value is None else str(value) for name, value in row.items()}


def _parquet(path: Path) -> tuple[list[str], Iterator[Row]]:
    from pyarrow import parquet  # type: ignore[import-untyped] # noqa: PLC0415 - heavy and without types

    file = parquet.ParquetFile(path)

    def rows() -> Iterator[Row]:
        for batch in file.iter_batches(1_000):
            for row in batch.to_pylist():
                yield {name: _text(value) for name, value in row.items()}

    return list(file.schema_arrow.names), rows()


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if hasattr(value, "strftime"):
        return str(value.strftime("%Y-%m-%dT%H:%M:%SZ"))
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _null(row: Row) -> str:
    missing = [name for name in sorted(_NOT_NULL) if name in row and row[name] is None]
    return f"{', '.join(missing)} must not be null" if missing else ""


def _numbers(row: Row) -> str:
    wrong = [name for name in _DECIMALS if (value := row.get(name)) is not None and not _DECIMAL.fullmatch(value)]
    return f"{', '.join(wrong)} is no decimal number" if wrong else ""


def _moments(row: Row) -> str:
    wrong = [name for name in _MOMENTS if (value := row.get(name)) is not None and not _MOMENT.fullmatch(value)]
    return f"{', '.join(wrong)} is no moment such as 2026-10-01T00:00:00Z" if wrong else ""


def _allowed(row: Row) -> str:
    for name, values in _ALLOWED.items():
        if name in row and row[name] not in values:
            return f"{name} is {row[name]!r}, which is not allowed"
    return ""


def _currencies(row: Row) -> str:
    for name in ("BillingCurrency", "PricingCurrency"):
        value = row.get(name)
        if value is not None and not _CURRENCY.fullmatch(value):
            return f"{name} is {value!r}, no code of ISO 4217"
    return ""


def _not_negative(row: Row) -> str:
    wrong = [name for name in _PRICES if (value := row.get(name)) is not None and Decimal(value) < 0]
    return f"{', '.join(wrong)} must not be negative" if wrong else ""


def _ordered(row: Row) -> str:
    for start, end in (("BillingPeriodStart", "BillingPeriodEnd"), ("ChargePeriodStart", "ChargePeriodEnd")):
        if (row.get(start) or "") >= (row.get(end) or "~"):
            return f"{start} is not before {end}"
    return ""


def _inside(row: Row) -> str:
    """Usage lies in its billing period, unless it corrects an earlier one."""
    if row.get("ChargeClass") == "Correction" or row.get("ChargeCategory") != "Usage":
        return ""
    begin, end = row.get("BillingPeriodStart") or "", row.get("BillingPeriodEnd") or ""
    inside = begin <= (row.get("ChargePeriodStart") or "") and (row.get("ChargePeriodEnd") or "") <= end
    return "" if inside else "the charge is outside of its billing period and no correction"


def _quantities(row: Row) -> str:
    usage = row.get("ChargeCategory") in {"Usage", "Purchase"} and row.get("ChargeClass") != "Correction"
    if usage and (row.get("PricingQuantity") is None or row.get("PricingUnit") is None):
        return "usage needs PricingQuantity and PricingUnit"
    for quantity, unit in (("PricingQuantity", "PricingUnit"), ("ConsumedQuantity", "ConsumedUnit")):
        if (row.get(quantity) is None) != (row.get(unit) is None):
            return f"{quantity} and {unit} are null together"
    if row.get("ChargeCategory") != "Usage" and row.get("ConsumedQuantity") is not None:
        return "only usage has a ConsumedQuantity"
    return ""


def _priced(row: Row) -> str:
    usage = row.get("ChargeCategory") in {"Usage", "Purchase"} and row.get("ChargeClass") != "Correction"
    if usage and "ListUnitPrice" in row and row["ListUnitPrice"] is None:
        return "usage needs a ListUnitPrice"
    if usage and "PricingCategory" in row and row["PricingCategory"] is None:
        return "usage needs a PricingCategory"
    if any(row.get(name) is not None for name in _PRICES) and "SkuPriceId" in row and row["SkuPriceId"] is None:
        return "a unit price needs a SkuPriceId"
    return ""


def _product(price: str, cost: str) -> Callable[[Row], str]:
    def judge(row: Row) -> str:
        values = [row.get(name) for name in (price, "PricingQuantity", cost)]
        if row.get("ChargeClass") == "Correction" or None in values:
            return ""
        unit, quantity, total = (Decimal(value or 0) for value in values)
        rounded = row.get("x_LedgerRows")
        off = abs(unit * quantity - total)
        within = abs(total) / 10_000 if rounded is None else _TOLERANCE * (int(rounded) + 1)
        # A unit price is exact to 15 decimals.
        within += abs(quantity) * Decimal("1e-15")
        return f"{price} times PricingQuantity is {unit * quantity}, {cost} is {total}" if off > within else ""

    return judge


def _accounts(row: Row) -> str:
    if row.get("SubAccountName") is not None and row.get("SubAccountId") is None:
        return "SubAccountName needs a SubAccountId"
    return ""


def _objects(row: Row) -> str:
    for name in ("Tags", "SkuPriceDetails"):
        value = row.get(name)
        if value is not None and not isinstance(json.loads(value), dict):
            return f"{name} is no JSON object"
    return ""


def _tokens(row: Row) -> str:
    """What is measured in tokens is a whole number of them."""
    quantity = row.get("ConsumedQuantity")
    if row.get("ConsumedUnit") == "Tokens" and quantity is not None and Decimal(quantity) % 1:
        return "ConsumedQuantity is no whole number of tokens"
    return ""


def _billed(row: Row) -> str:
    """Without commitments, what is billed is what is effectively paid."""
    if row.get("CommitmentDiscountStatus") is not None:
        return ""
    same = Decimal(row.get("BilledCost") or 0) == Decimal(row.get("EffectiveCost") or 0)
    return "" if same else "BilledCost and EffectiveCost differ without a commitment"


_RULES: Final[Mapping[str, Callable[[Row], str]]] = {
    "not-null": _null,
    "numeric-format": _numbers,
    "date-time-format": _moments,
    "allowed-values": _allowed,
    "currency-format": _currencies,
    "unit-prices-not-negative": _not_negative,
    "periods-ordered": _ordered,
    "charge-in-billing-period": _inside,
    "quantities-and-units": _quantities,
    "prices-and-skus": _priced,
    "ListCost-product": _product("ListUnitPrice", "ListCost"),
    "ContractedCost-product": _product("ContractedUnitPrice", "ContractedCost"),
    "sub-accounts": _accounts,
    "json-objects": _objects,
    "whole-tokens": _tokens,
    "billed-is-effective": _billed,
}

KNOWN: Final = frozenset(
    {
        *UNION,
        *("AvailabilityZone", "BillingAccountType", "CapacityReservationId", "CapacityReservationStatus"),
        *("ChargeFrequency", "CommitmentDiscountCategory", "CommitmentDiscountId", "CommitmentDiscountName"),
        *("CommitmentDiscountQuantity", "CommitmentDiscountStatus", "CommitmentDiscountType"),
        *("CommitmentDiscountUnit", "ConsumedQuantity", "ConsumedUnit", "ContractedUnitPrice", "InvoiceId"),
        *("ListUnitPrice", "PricingCategory", "PricingCurrency", "PricingCurrencyContractedUnitPrice"),
        *("PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice", "RegionId", "RegionName", "ResourceId"),
        *("ResourceName", "ResourceType", "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId"),
        *("SubAccountId", "SubAccountName", "SubAccountType", "Tags"),
        *("AllocatedMethodDetails", "AllocatedMethodId", "AllocatedResourceId", "AllocatedResourceName"),
        *("AllocatedTags", "ContractApplied", "InvoiceDetailId"),
    }
)
"""Columns of FOCUS 1.2 to 1.4."""
