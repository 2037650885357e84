"""Rows on their way into the ledger."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.db.tables.ledger import LedgerRow
from gateway.metering.entry import COLUMNS, Entries, end_key
from gateway.metering.labels import COLUMNS as LABELS
from gateway.metering.labels import LabelBook, id_of
from gateway.metering.record import Close, RowKind, Status, end_of
from gateway.types import ids
from gateway.types.charge import Charge
from gateway.types.tokens import Usage
from tests.integration.metering.samples import closed, dims, opened, request_id_at

part = st.sampled_from([0, 0, 1, 17])
usages = st.builds(Usage, st.integers(0, 10**6), st.integers(0, 10**6), *[part] * 7)
charges = st.builds(Charge, *[part] * 8)


def rows_of(*closes: Close) -> list[dict[str, object]]:
    """Return what the books will hold of ``closes``: labels and defaults included."""
    rows = []
    for some in Entries.of([end_of(close) for close in closes]):
        for labels, row in zip(some.labels, some.rows, strict=True):
            named = dict(zip(some.columns, row, strict=True))
            rows.append(DEFAULTS | named | dict(zip(LABELS, labels.columns, strict=True)) | {"hour": some.hour})
    return rows


def row_of(close: Close) -> dict[str, object]:
    """Return what the books will hold of ``close``."""
    (row,) = rows_of(close)
    return row


LABEL_ID = 1296588821466837336
TABLE = LedgerRow.metadata.tables["ledger"]
DEFAULTS: dict[str, object] = {
    column.name: None if column.nullable else "" if column.type.python_type is str else 0
    for column in TABLE.columns
    if column.nullable or column.server_default is not None
}


def test_every_column_of_the_tables_is_filled() -> None:
    """No column of the ledger or of a label set is forgotten; those of the ledger without a default always come."""
    assert set(COLUMNS) == set(TABLE.columns.keys())
    (bare,) = Entries.of([end_of(Close(opened().request_id, 1, RowKind.USAGE, dims(user=""), 1, Status.FAILED))])
    assert set(bare.columns) == set(COLUMNS) - set(DEFAULTS)
    assert set(row_of(closed(opened()))) == set(COLUMNS) | set(LABELS) | {"hour"}


@given(usages, charges, charges, st.none() | charges)
def test_every_value_stands_in_its_column(usage: Usage, charged: Charge, cost: Charge, discount: Charge | None) -> None:
    """Each class of tokens and money reaches its own column, by the short form and by the long one."""
    close = msgspec.structs.replace(
        closed(opened(dims(user="me"))), usage=usage, charge=charged, cost=cost, discount=discount
    )
    row = row_of(close)
    for name in Charge.__struct_fields__:
        assert (row[f"discount_{name}"] or 0) == (getattr(discount, name) if discount else 0)
    assert (row["discount_nano"] or 0) == (discount.total if discount else 0)
    for name in Usage.__struct_fields__:
        assert row[f"tokens_{name}"] == getattr(usage, name)
    for name in Charge.__struct_fields__:
        assert row[f"charge_{name}"] == getattr(charged, name)
        assert row[f"cost_{name}"] == getattr(cost, name)
    assert (row["charge_nano"], row["cost_nano"]) == (charged.total, cost.total)
    assert (row["team"], row["end_user"], row["streamed"], row["price_id"]) == (
        close.dims.team,
        "me",
        1,
        close.dims.price_id,
    )
    assert (row["day"], row["request_id"]) == (ids.day(close.request_id), close.request_id)
    assert (row["status"], row["kind"], row["source"]) == ("ok", "usage", "upstream")
    assert row["hour"] == ids.hour(close.request_id)
    (some,) = Entries.of([end_of(close)])
    assert some.keys == [end_key(end_of(close))]


@given(st.lists(st.tuples(usages, charges, charges), min_size=1, max_size=8))
def test_rows_are_the_same_alone_and_together(counts: list[tuple[Usage, Charge, Charge]]) -> None:
    """A column that is left out of one row and not of its neighbour holds what it should in both."""
    closes = [
        msgspec.structs.replace(closed(opened()), usage=usage, charge=charged, cost=cost)
        for usage, charged, cost in counts
    ]
    assert rows_of(*closes) == [row_of(close) for close in closes]


def test_values_are_of_the_plain_types_the_driver_takes_fastest() -> None:
    """No enumeration or subclass reaches the driver."""
    (some,) = Entries.of([end_of(closed(opened()))])
    assert {type(value) for value in (*some.rows[0], *some.labels[0].columns)} <= {int, str, bytes}


def test_end_users_are_no_labels() -> None:
    """A million end users make one label set, not a million; each row still names its own."""
    rows = rows_of(*[closed(opened(dims(user=f"user-{number}"))) for number in range(50)])
    assert len({row["label_id"] for row in rows}) == 1
    assert [row["end_user"] for row in rows] == [f"user-{number}" for number in range(50)]


def test_label_ids_are_the_same_on_every_host() -> None:
    """Equal labels have equal ids wherever and whenever they are made, because hosts share a ledger."""
    assert id_of((*["a"] * 11, 0, 1, 2, "ok", "stop", 200, "upstream", "")) == LABEL_ID
    book, other = LabelBook(), LabelBook()
    key = (bytes(end_of(closed(opened())).dims), "ok", "stop", 200, "upstream", "")
    ((ours, label_id, _),) = book.find([key])
    ((theirs, _, _),) = other.find([key])
    assert ours.columns == theirs.columns
    assert id_of(ours.columns[1:]) == label_id


def test_rows_of_two_hours_are_told_apart() -> None:
    """A batch around the turn of an hour is counted in both."""
    hour_us = 3_600_000_000
    moments = [500 * hour_us - 1_000, 500 * hour_us, 500 * hour_us + 5_000, 500 * hour_us - 2_000]
    rows = rows_of(*[closed(opened(request_id=request_id_at(moment))) for moment in moments])
    assert sorted((row["hour"], row["day"]) for row in rows) == [(499, 20), (499, 20), (500, 20), (500, 20)]
    assert Entries.of([]) == []


@pytest.mark.parametrize(
    "usage", [Usage(2**62, 5), Usage(5, 2**62), Usage(9, 9, cache_read=2**60), Usage(-5, 7), Usage(9, 9, 0, 0, 2**63)]
)
def test_absurd_counts_are_cut_and_logged(usage: Usage) -> None:
    """An engine that reports more tokens than can be cannot stop the books of the host."""
    with capture_logs() as logs:
        row, sound = rows_of(msgspec.structs.replace(closed(opened()), usage=usage), closed(opened()))
    assert [entry["event"] for entry in logs] == ["ledger_row_implausible"]
    assert sound["tokens_prompt"] == 1_000
    assert all(0 <= int(str(row[f"tokens_{name}"])) <= 2**40 for name in Usage.__struct_fields__)


def test_absurd_money_is_cut() -> None:
    """A charge over a million dollars for one answer is a defect; sums of such rows must still fit."""
    with capture_logs() as logs:
        row = row_of(msgspec.structs.replace(closed(opened()), charge=Charge(2**62, 2**62)))
    assert len(logs) == 1
    assert int(str(row["charge_nano"])) <= 2**50


def test_corrections_may_be_negative() -> None:
    """A correction takes away what was charged too much; it is ours and is believed."""
    close = msgspec.structs.replace(
        closed(opened(), kind=RowKind.CORRECTION), usage=Usage(-5, -6), charge=Charge(-70, -80)
    )
    with capture_logs() as logs:
        row = row_of(close)
    assert (row["tokens_prompt"], row["charge_prompt"], row["charge_nano"]) == (-5, -70, -150)
    assert logs == []


def test_counts_of_older_and_newer_versions_are_taken() -> None:
    """A record with fewer classes has zeros in the others; one with more keeps those that are known."""
    end = end_of(closed(opened()))
    for usage in ((7, 8), (7, 8, *[0] * 9)):
        (some,) = Entries.of([msgspec.structs.replace(end, usage=usage)])
        row = dict(zip(some.columns, some.rows[0], strict=True))
        assert (row["tokens_prompt"], row["tokens_completion"]) == (7, 8)
