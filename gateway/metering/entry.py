"""Rows on their way from the journal into the books, in the form in which ledger and rollups take them.

They are worked on by column and not by row: the loops then run inside the interpreter's C functions, and a column that
is zero in every row is neither bound nor written. Both, and plain built-in types (the SQLite driver looks up an adapter
for every other one), make up much of the shipper's speed.

What a broken engine may have reported is cut here, so that no row can stop the books of the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from operator import add
from typing import Any, Final

import msgspec
from msgspec.structs import astuple
from sqlmodel import SQLModel

from gateway.db.tables.ledger import LedgerRow
from gateway.metering.labels import OUTCOME, LabelBook, Labels, printable
from gateway.metering.record import End, RowKind
from gateway.telemetry import logs
from gateway.types import ids
from gateway.types.charge import Charge
from gateway.types.tokens import Usage

RowKey = tuple[int, bytes, int, str]
"""Day, request id, attempt, kind."""
Column = tuple[Any, ...]
Row = tuple[Any, ...]

KEY: Final = ("day", "request_id", "attempt", "kind")
_TABLE: Final = SQLModel.metadata.tables[LedgerRow.__tablename__]
COLUMNS: Final = (*KEY, *(column.name for column in _TABLE.columns if column.name not in KEY))
"""Columns of the ledger, the key first."""
TOKENS: Final = tuple(f"tokens_{name}" for name in Usage.__struct_fields__)
_CHARGE: Final = tuple(f"charge_{name}" for name in Charge.__struct_fields__)
_COST: Final = tuple(f"cost_{name}" for name in Charge.__struct_fields__)
_DISCOUNT: Final = tuple(f"discount_{name}" for name in Charge.__struct_fields__)
_ALWAYS: Final = frozenset({*KEY, "label_id", "opened_us"})
"""Columns without a default."""
SUMS: Final = (*TOKENS, "charge_nano", "cost_nano", "discount_nano")
"""Columns that rollups sum up."""

TOKEN_BITS: Final = 40
"""One row is believed up to 2**40 tokens of a class; more is a defect of the engine that reported them."""
MONEY_BITS: Final = 50
"""One row is believed up to 2**50 nano-USD, about a million USD."""
_LIMITS: Final = dict.fromkeys(TOKENS, TOKEN_BITS) | {"charge_nano": MONEY_BITS, "cost_nano": MONEY_BITS}

_book: Final = LabelBook()
log: Final = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Entries:
    """Some rows for the ledger, all of one hour.

    Attributes:
        hour: UTC hour of their requests, counted from 1970.
        columns: names of the columns that are not zero or empty in every row; the first four are the key.
        rows: the values of ``columns``, row by row.
        labels: label set of each row.
    """

    hour: int
    columns: tuple[str, ...]
    rows: Sequence[Row]
    labels: Sequence[Labels]

    @classmethod
    def of(cls, ends: Sequence[End]) -> list[Entries]:
        """Return ends of attempts as rows.

        Raises:
            msgspec.DecodeError: one has no readable dimensions.
        """
        if not ends:
            return []
        values = _by_field(ends)
        # Ids begin with their time, so the least and the greatest tell of all between.
        hour = ids.hour(min(values["request_id"]))
        if hour == ids.hour(max(values["request_id"])):
            return [cls._of(ends, values, hour)]
        by_hour: dict[int, list[End]] = {}
        for end in ends:
            by_hour.setdefault(ids.hour(end.request_id), []).append(end)
        return [cls._of(some, _by_field(some), hour) for hour, some in by_hour.items()]

    @classmethod
    def _of(cls, ends: Sequence[End], values: dict[str, Column], hour: int) -> Entries:
        """Return ends of attempts of one hour, and the same by field, as rows."""
        try:
            counts = _counts(values)
            plausible = _plausible(counts)
        except ValueError:
            plausible = False
        if not plausible:
            values = _by_field([_mended(end) for end in ends])
            counts = _counts(values)
        values |= counts
        outcome = [values[name] for name in OUTCOME]
        found = _book.find(list(zip(map(bytes, values["dims"]), *outcome, strict=True)))
        labels, values["label_id"], values["end_user"] = zip(*found, strict=True)
        if "\0" in "".join(values["upstream_id"]):
            values["upstream_id"] = tuple(map(printable, values["upstream_id"]))
        values["day"] = (hour // 24,) * len(ends)
        columns = tuple(name for name in COLUMNS if name in values and (name in _ALWAYS or any(values[name])))
        return cls(hour, columns, list(zip(*[values[name] for name in columns], strict=True)), labels)

    @property
    def keys(self) -> list[RowKey]:
        """What the ledger knows each row by."""
        return [row[: len(KEY)] for row in self.rows]

    def only(self, wanted: Sequence[bool]) -> Entries:
        """Return the rows that are ``wanted``."""
        rows, labels = list(compress(self.rows, wanted)), list(compress(self.labels, wanted))
        return Entries(self.hour, self.columns, rows, labels)


def end_key(end: End) -> RowKey:
    """Return what the ledger knows the row of ``end`` by."""
    return (ids.day(end.request_id), end.request_id, end.attempt, end.kind)


def _by_field(ends: Sequence[End]) -> dict[str, Column]:
    """Return the fields of ``ends`` by column."""
    return dict(zip(End.__struct_fields__, zip(*map(astuple, ends), strict=True), strict=True))


def _counts(values: dict[str, Column]) -> dict[str, Column]:
    """Return those columns of tokens and amounts that are not zero in every row, sums included.

    Raises ``ValueError`` when a row has not one count for each class.
    """
    counts: dict[str, Column] = {}
    for field, names in (("usage", TOKENS), ("charge", _CHARGE), ("cost", _COST), ("discount", _DISCOUNT)):
        nothing = (0,) * len(names)
        amounts = values[field]
        if amounts.count(None if field == "discount" else nothing) == len(amounts):
            continue
        if field == "discount":
            amounts = tuple(each or nothing for each in amounts)
        by_class = zip(names, zip(*amounts, strict=True), strict=True)
        # Told by one comparison, because zero is always the same object; most columns are.
        zeros = (0,) * len(amounts)
        used = {name: column for name, column in by_class if column != zeros}
        if used and field != "usage":
            total, *others = used.values()
            for column in others:
                total = tuple(map(add, total, column))
            used[f"{field}_nano"] = total
        counts |= used
    return counts


def _plausible(counts: dict[str, Column]) -> bool:
    """Return whether no count is negative or larger than any answer's."""
    # A sum takes a quarter of the time of a maximum, and is below the limit unless a row is close to it.
    return not any(
        min(column) < 0 or (sum(column) >> _LIMITS[name] and max(column) >> _LIMITS[name])
        for name, column in counts.items()
        if name in _LIMITS
    )


def _mended(end: End) -> End:
    """Return ``end`` with a count for every class, and none that sums could not hold.

    Classes that an older version did not know are zero. Counts that no answer can have are cut and logged, so that
    an engine that reports absurd usage cannot stop the shipper. Corrections are ours and may be negative.
    """
    most_tokens, most_nano = 1 << TOKEN_BITS, 1 << (MONEY_BITS - 4)
    least = 0
    if end.kind != RowKind.USAGE:
        least, most_tokens, most_nano = -(2**62), 2**62, 2**62
    mended: End = msgspec.structs.replace(
        end,
        usage=_classes(end.usage, len(TOKENS), least, most_tokens),
        charge=_classes(end.charge, len(_CHARGE), least, most_nano),
        cost=_classes(end.cost, len(_CHARGE), least, most_nano),
        discount=_classes(end.discount, len(_DISCOUNT), -most_nano, most_nano) if end.discount else None,
    )
    if any(
        before[: len(after)] != after[: len(before)]
        for before, after in (
            (end.usage, mended.usage),
            (end.charge, mended.charge),
            (end.cost, mended.cost),
            (end.discount or (), mended.discount or ()),
        )
    ):
        log.error("ledger_row_implausible", request_id=end.request_id.hex())
    return mended


def _classes(counts: tuple[int, ...], classes: int, least: int, most: int) -> tuple[int, ...]:
    """Return ``classes`` numbers: ``counts``, each cut to ``least`` to ``most``, then zeros."""
    return tuple(min(max(count, least), most) for count in counts[:classes]) + (0,) * (classes - len(counts))
