"""Lines: what a team used on one day under one key, model, endpoint, tier and price, with amounts by class.

A line is a sum of ledger rows, so lines add up to the ledger, and everything that is billed is made of lines. Token
counts are disjoint here, unlike in the ledger: no token is in two classes. Money is in nano-USD. Values only.
"""

from __future__ import annotations

from operator import add, sub
from typing import Final, NamedTuple

import msgspec

from gateway.types.charge import Charge
from gateway.types.money import Rates
from gateway.types.tokens import Usage

TOKENS: Final = len(Usage.__struct_fields__)
CLASSES: Final = Charge.__struct_fields__
_NOTHING: Final = (0,) * len(CLASSES)

KEY: Final = ("team", "day", "key_id", "model", "endpoint", "tier", "price_id", "kind", "charged")
"""Columns that tell lines of one period apart, in their order."""


class LineKey(NamedTuple):
    """What tells two lines of one period apart.

    Attributes:
        team: slug of the team that pays.
        day: UTC day of the usage, counted from 1970.
        key_id: public id of the inference key.
        model: our model id.
        endpoint: slug of the endpoint.
        tier: service tier.
        price_id: id of the rates.
        kind: ``usage`` or ``correction``: that of the ledger rows.
        charged: 1 when the rows carry money, else 0.
    """

    team: str
    day: int
    key_id: str
    model: str
    endpoint: str
    tier: str
    price_id: int
    kind: str
    charged: int


class Amounts(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a line sums up.

    Attributes:
        rows: ledger rows.
        requests: requests of callers among them: rows that are no corrections and answered one.
        fees: rows with a fee per request.
        tokens: disjoint token counts, in the order of ``Usage``.
        charge: what the team pays by class, in the order of ``Charge``.
        discount: how much that is below the list price, by class; negative for a markup.
    """

    rows: int
    requests: int
    fees: int
    tokens: tuple[int, ...]
    charge: tuple[int, ...]
    discount: tuple[int, ...] = _NOTHING

    @property
    def empty(self) -> bool:
        """Whether there is nothing to bill and nothing to show."""
        return not (self.requests or self.fees or any(self.tokens) or any(self.charge) or any(self.discount))

    @property
    def charge_nano(self) -> int:
        """What the team pays."""
        return sum(self.charge)

    @property
    def discount_nano(self) -> int:
        """How much that is below the list price."""
        return sum(self.discount)

    @property
    def prompt_tokens(self) -> int:
        """Input tokens of all classes."""
        return sum(self.tokens) - self.completion_tokens

    @property
    def completion_tokens(self) -> int:
        """Output tokens of all classes."""
        tokens = self.tokens
        return tokens[1] + tokens[4] + tokens[6] + tokens[8]

    def plus(self, other: Amounts) -> Amounts:
        """Return the sums of both."""
        return Amounts(
            self.rows + other.rows,
            self.requests + other.requests,
            self.fees + other.fees,
            tuple(map(add, self.tokens, other.tokens)),
            tuple(map(add, self.charge, other.charge)),
            tuple(map(add, self.discount, other.discount)),
        )

    def minus(self, other: Amounts) -> Amounts:
        """Return what this has more than ``other``."""
        return Amounts(
            self.rows - other.rows,
            self.requests - other.requests,
            self.fees - other.fees,
            tuple(map(sub, self.tokens, other.tokens)),
            tuple(map(sub, self.charge, other.charge)),
            tuple(map(sub, self.discount, other.discount)),
        )


NOTHING: Final = Amounts(0, 0, 0, (0,) * TOKENS, _NOTHING)


class Line(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A line.

    Attributes:
        period: the period it is, or will be, billed in.
        key: what it is of.
        amounts: what it sums up.
    """

    period: str
    key: LineKey
    amounts: Amounts


class LinePage(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Some lines of a sheet, in order.

    Attributes:
        lines: the lines.
        cursor: where the next page goes on, None after the last one.
        rates: rates that lines name, by their ids as text; those that are unknown are missing.
    """

    lines: tuple[Line, ...]
    cursor: LineKey | None
    rates: dict[str, Rates]
