"""A provider's invoice as a CSV file: a line per day and model.

Columns, in any order, named in the first line: ``day`` (``2026-11-02``, or an ISO 8601 time of that UTC day), ``model``
(the provider's name of it, or ours), ``cost_usd`` (a decimal number of USD, negative for a credit) and, if known,
``tokens``. Others are ignored. Lines of one day and model are added; the sum is rounded once to nano-USD, half to even.
What cannot be read is ``BadRequest`` and names the line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from gateway.types.day import YEARS
from gateway.types.errors import BadRequest

MOST_LINES: Final = 200_000
LARGEST: Final = 64 * 1024 * 1024
_NEEDED: Final = ("day", "model", "cost_usd")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_NANO: Final = 2**62
_DECIMAL: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,30})?")
_NANO: Final = Decimal(10**9)


class InvoiceLine(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a provider wants for one model on one UTC day.

    Attributes:
        day: counted from 1970.
        model: as the invoice calls it.
        cost: nano-USD.
        tokens: None when the invoice does not say.
    """

    day: int
    model: str
    cost: int
    tokens: int | None = None


def read_invoice(data: bytes) -> tuple[InvoiceLine, ...]:
    """Return the lines of an invoice file, by day and model."""
    if len(data) > LARGEST:
        raise BadRequest("the invoice is over 64 MB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRequest("the invoice is not UTF-8 text") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip().casefold() for name in reader.fieldnames or ()]
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            raise BadRequest(f"the invoice has no column {missing[0]}: the first line names day, model, cost_usd")
        twice = [name for name in (*_NEEDED, "tokens") if names.count(name) > 1]
        if twice:
            raise BadRequest(f"the invoice has two columns {twice[0]}: leave one")
        reader.fieldnames = names
        costs: dict[tuple[int, str], Decimal] = {}
        tokens: dict[tuple[int, str], int | None] = {}
        for number, row in enumerate(reader, 2):
            if number > MOST_LINES:
                raise BadRequest(f"the invoice has over {MOST_LINES} lines")
            if any(extra.strip() for extra in row.get(None, ())):
                # Of `1,234.56` without quotes the cost would be one dollar.
                raise BadRequest(f"line {number} has more fields than the first line: quote those with commas")
            key = (_day(row, number), _model(row, number))
            costs[key] = costs.get(key, Decimal()) + _usd(row, number)
            counted, before = _tokens(row, number), tokens.get(key, 0)
            tokens[key] = None if counted is None or before is None else before + counted
    except csv.Error as error:
        raise BadRequest(f"the invoice is not CSV: line {reader.line_num}: {error}") from None
    return tuple(InvoiceLine(*key, _nano(costs[key], key), tokens[key]) for key in sorted(costs))


def _word(row: Mapping[str, str | None], name: str) -> str:
    return (row.get(name) or "").strip()


def _day(row: Mapping[str, str | None], number: int) -> int:
    try:
        moment = datetime.fromisoformat(_word(row, "day"))
        if not YEARS[0] <= moment.year <= YEARS[1]:
            raise ValueError(moment)
    except ValueError:
        raise BadRequest(f"line {number}: day is not a date such as 2026-11-02") from None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(days=1)


def _model(row: Mapping[str, str | None], number: int) -> str:
    model = _word(row, "model")
    if not model or len(model) > 200 or not model.isprintable():
        raise BadRequest(f"line {number}: model is empty, too long, or not text")
    return model


def _usd(row: Mapping[str, str | None], number: int) -> Decimal:
    text = _word(row, "cost_usd")
    if not _DECIMAL.fullmatch(text):
        raise BadRequest(f"line {number}: cost_usd is not a plain decimal number of USD")
    return Decimal(text)


def _tokens(row: Mapping[str, str | None], number: int) -> int | None:
    text = _word(row, "tokens")
    if not text:
        return None
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal(-1)
    if not found.is_finite() or found < 0 or found != found.to_integral_value() or found > 2**62:
        raise BadRequest(f"line {number}: tokens is not a whole number")
    return int(found)


def _nano(usd: Decimal, key: tuple[int, str]) -> int:
    nano = int((usd * _NANO).to_integral_value())
    if abs(nano) > _MOST_NANO:
        raise BadRequest(f"the cost of {key[1]} is more than fits the books")
    return nano
