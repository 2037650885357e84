"""FOCUS rows of lines (FinOps Open Cost and Usage Specification, Cost and Usage dataset): one per line and token class.

The columns are the union of what versions 1.2, 1.3 and 1.4 ask for: 1.3 adds ``HostProviderName`` and
``ServiceProviderName``, 1.4 drops ``ProviderName`` and ``PublisherName``. Tokens are written as the drafts of 1.5 write
them: ``ConsumedUnit`` "Tokens" with the raw count, ``PricingUnit`` "1000000 Tokens". What 1.5 has not settled yet is
prefixed with ``x_``. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from gateway.billing.line import CLASSES, Amounts, Line
from gateway.billing.period import days_of, moment_text, period_of
from gateway.billing.table import Cell, Column, Kind
from gateway.metering.record import RowKind
from gateway.types.money import Rates

MONEY: Final = 9
RATE: Final = 15
"""Decimals of unit prices: blended ones need more than listed ones have."""
MILLION: Final = 1_000_000

COLUMNS: Final = (
    Column("BilledCost", Kind.DECIMAL, MONEY, summed=True),
    Column("BillingAccountId"),
    Column("BillingAccountName"),
    Column("BillingCurrency"),
    Column("BillingPeriodEnd", Kind.MOMENT),
    Column("BillingPeriodStart", Kind.MOMENT),
    Column("ChargeCategory"),
    Column("ChargeClass"),
    Column("ChargeDescription"),
    Column("ChargeFrequency"),
    Column("ChargePeriodEnd", Kind.MOMENT),
    Column("ChargePeriodStart", Kind.MOMENT),
    Column("CommitmentDiscountStatus"),
    Column("ConsumedQuantity", Kind.DECIMAL, 0, summed=True),
    Column("ConsumedUnit"),
    Column("ContractedCost", Kind.DECIMAL, MONEY, summed=True),
    Column("ContractedUnitPrice", Kind.DECIMAL, RATE),
    Column("EffectiveCost", Kind.DECIMAL, MONEY, summed=True),
    Column("HostProviderName"),
    Column("InvoiceId"),
    Column("InvoiceIssuerName"),
    Column("ListCost", Kind.DECIMAL, MONEY, summed=True),
    Column("ListUnitPrice", Kind.DECIMAL, RATE),
    Column("PricingCategory"),
    Column("PricingCurrency"),
    Column("PricingCurrencyContractedUnitPrice", Kind.DECIMAL, RATE),
    Column("PricingCurrencyEffectiveCost", Kind.DECIMAL, MONEY),
    Column("PricingCurrencyListUnitPrice", Kind.DECIMAL, RATE),
    Column("PricingQuantity", Kind.DECIMAL, 6),
    Column("PricingUnit"),
    Column("ProviderName"),
    Column("PublisherName"),
    Column("ServiceCategory"),
    Column("ServiceName"),
    Column("ServiceProviderName"),
    Column("ServiceSubcategory"),
    Column("SkuId"),
    Column("SkuMeter"),
    Column("SkuPriceDetails"),
    Column("SkuPriceId"),
    Column("SubAccountId"),
    Column("SubAccountName"),
    Column("Tags"),
    Column("x_KeyId"),
    Column("x_Model"),
    Column("x_Endpoint"),
    Column("x_ServiceTier"),
    Column("x_Requests", Kind.COUNT, summed=True),
    Column("x_LedgerRows", Kind.COUNT),
)
NAMES: Final = tuple(column.name for column in COLUMNS)

METERS: Final = {
    "prompt": ("Input Tokens", "Input", (0,)),
    "completion": ("Output Tokens", "Output", (1,)),
    "cache_read": ("Cache Read Input Tokens", "CacheRead", (2,)),
    "cache_write": ("Cache Write Input Tokens", "CacheWrite", (3,)),
    "reasoning": ("Reasoning Output Tokens", "Reasoning", (4,)),
    "audio": ("Audio Tokens", "Audio", (5, 6)),
    "image": ("Image Tokens", "Image", (7, 8)),
    "request": ("Requests", "", ()),
}
"""By class: its meter, its token type, and its places in ``Amounts.tokens``."""


class FocusRows:
    """Makes the rows of one export.

    Args:
        issuers: who charges, by closed period; ``""`` of open ones.
        names: what people call the teams, by slug.
    """

    def __init__(self, issuers: Mapping[str, str], names: Mapping[str, str]) -> None:
        self._issuers = issuers
        self._names = names
        self._moments: dict[int, str] = {}

    def of(self, line: Line, rates: Mapping[str, Rates]) -> list[tuple[Cell, ...]]:
        """Return the rows of a line, one for each class that was used or costs something."""
        amounts = line.amounts
        price = rates.get(str(line.key.price_id))
        head = self._head(line)
        rows = []
        # Requests are a fact of the line and not of one class: its first row says them.
        requests = amounts.requests
        for place, name in enumerate(CLASSES):
            quantity = self._quantity(amounts, name)
            charge, discount = amounts.charge[place], amounts.discount[place]
            if not (quantity or charge or discount):
                continue
            rows.append(self._row(line, head, name, quantity, charge, discount, price, requests))
            requests = 0
        return rows

    @staticmethod
    def _quantity(amounts: Amounts, name: str) -> int:
        return amounts.fees if name == "request" else sum(amounts.tokens[place] for place in METERS[name][2])

    def _moment(self, day: int) -> str:
        found = self._moments.get(day)
        if found is None:
            found = self._moments[day] = moment_text(day)
        return found

    def _head(self, line: Line) -> dict[str, Cell]:
        """Return the cells that all rows of a line share."""
        key, period = line.key, line.period
        first, last = days_of(period)
        issuer = self._issuers.get(period) or self._issuers.get("", "")
        provider = key.endpoint.partition("/")[0] or issuer
        late = period_of(key.day) != period
        tags = {"weir:key": key.key_id, "weir:tier": key.tier}
        return {
            "BillingAccountId": "weir",
            "BillingAccountName": issuer,
            "BillingCurrency": "USD",
            "BillingPeriodEnd": self._moment(last + 1),
            "BillingPeriodStart": self._moment(first),
            "ChargeCategory": "Usage",
            "ChargeClass": "Correction" if late else None,
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodEnd": self._moment(key.day + 1),
            "ChargePeriodStart": self._moment(key.day),
            "CommitmentDiscountStatus": None,
            "HostProviderName": provider,
            "InvoiceId": f"weir-{period}-{key.team}",
            "InvoiceIssuerName": issuer,
            "PricingCategory": "Standard",
            "PricingCurrency": "USD",
            "ProviderName": issuer,
            "PublisherName": issuer,
            "ServiceCategory": "AI and Machine Learning",
            "ServiceName": "Weir",
            "ServiceProviderName": issuer,
            "ServiceSubcategory": "Generative AI",
            "SubAccountId": key.team,
            "SubAccountName": self._names.get(key.team, key.team),
            "Tags": json.dumps(tags, ensure_ascii=False, separators=(",", ":")),
            "x_KeyId": key.key_id,
            "x_Model": key.model,
            "x_Endpoint": key.endpoint,
            "x_ServiceTier": key.tier,
        }

    def _row(
        self,
        line: Line,
        head: Mapping[str, Cell],
        name: str,
        quantity: int,
        charge: int,
        discount: int,
        price: Rates | None,
        requests: int,
    ) -> tuple[Cell, ...]:
        key = line.key
        meter, kind, _ = METERS[name]
        unit = "Tokens" if kind else "Requests"
        # What nobody is charged for, an answer without a completion, was consumed but is not priced.
        priced = quantity if key.charged else 0
        listed, contracted, blended = unit_prices(name, priced, charge, discount, price, line.amounts.rows)
        sku = f"{key.model}:{name}"
        details: dict[str, str | bool] = {"x_ModelId": key.model}
        if kind:
            details["x_TokenType"] = kind
        if blended:
            details["x_BlendedUnitPrice"] = True
        what = f"{meter} of {key.model}" + ("" if key.charged else ", not charged")
        if key.kind == RowKind.CORRECTION:
            what += ", correction"
        cells = dict(head)
        if not quantity:
            # Money without usage: a correction of what was charged, which has no unit and no price.
            cells.update(x_Requests=requests, x_LedgerRows=line.amounts.rows)
            return self._adjusted(cells, what, charge, discount)
        cells.update(
            BilledCost=charge,
            ChargeDescription=what,
            ConsumedQuantity=quantity,
            ConsumedUnit=unit,
            ContractedCost=charge,
            ContractedUnitPrice=contracted,
            EffectiveCost=charge,
            ListCost=charge + discount,
            ListUnitPrice=listed,
            PricingCurrencyContractedUnitPrice=contracted,
            PricingCurrencyEffectiveCost=charge,
            PricingCurrencyListUnitPrice=listed,
            PricingQuantity=priced if kind else priced * MILLION,
            PricingUnit="1000000 Tokens" if kind else "Requests",
            SkuId=sku,
            SkuMeter=meter,
            SkuPriceDetails=json.dumps(details, ensure_ascii=False, separators=(",", ":")),
            SkuPriceId=f"{sku}:{key.price_id}",
            x_Requests=requests,
            x_LedgerRows=line.amounts.rows,
        )
        return tuple(map(cells.__getitem__, NAMES))

    @staticmethod
    def _adjusted(cells: dict[str, Cell], what: str, charge: int, discount: int) -> tuple[Cell, ...]:
        cells.update(
            BilledCost=charge,
            ChargeCategory="Adjustment",
            ChargeDescription=what,
            ChargeFrequency="One-Time",
            ContractedCost=charge,
            EffectiveCost=charge,
            ListCost=charge + discount,
            PricingCategory=None,
            PricingCurrencyEffectiveCost=charge,
        )
        return tuple(map(cells.get, NAMES))


def unit_prices(
    name: str, quantity: int, charge: int, discount: int, price: Rates | None, rows: int
) -> tuple[int, int, bool]:
    """Return list and contracted unit price (USD with ``RATE`` decimals), and whether they are blended.

    The unit is a million tokens, or a request. They are those of the price where these explain the amounts to within
    the rounding of each row (half a nano-USD), which they do unless the price has tiers or a class has several rates;
    else they are the mean over the line.
    """
    tokens = name != "request"
    if price is not None and not (price.tiers or price.service_tiers):
        full = price.listed.resolved()
        # A rate in pico-USD per token is micro-USD per million; a fee is in nano-USD.
        rate = full.request * 10**6 if not tokens else (_rate(full, name) or 0) * 10**9
        terms = (10_000 - price.discount) * (10_000 + price.markup)
        agreed = rate * terms // 10**8
        scale = 10**12 if tokens else 10**6
        within = (rows + 1) * scale
        # Both sides in units of 10**-21 USD, doubled: a row is off by half a nano-USD at most.
        fits = abs(quantity * rate - (charge + discount) * scale) * 2 <= within
        if fits and abs(quantity * agreed - charge * scale) * 2 <= within and rate * terms % 10**8 == 0:
            return rate, agreed, False
    if not quantity:
        return 0, 0, False
    per = 10**12 if tokens else 10**6
    return _mean((charge + discount) * per, quantity), _mean(charge * per, quantity), True


def _mean(total: int, count: int) -> int:
    """Return ``total`` over ``count``, rounded half up."""
    if count < 0:
        total, count = -total, -count
    return (2 * total + count) // (2 * count)


def _rate(full: Rates, name: str) -> int | None:
    """Return the one rate of a class; None where it has several."""
    if name == "audio":
        return full.audio_prompt if full.audio_prompt == full.audio_completion else None
    if name == "image":
        return full.image_prompt if full.image_prompt == full.image_completion else None
    rate: int | None = getattr(full, name)
    return rate
