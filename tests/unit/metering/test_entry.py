"""Rows on their way into the ledger."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.db.tables.ledger import LedgerRow
from gateway.metering.entry import COLUMNS, CORE_COLUMNS, Entry, end_key, entries
from gateway.metering.record import RowKind, end_of
from gateway.types import ids
from gateway.types.charge import Charge
from gateway.types.tokens import Usage
from tests.integration.metering.samples import closed, dims, opened

part = st.sampled_from([0, 0, 1, 17])
usages = st.builds(Usage, st.integers(17, 10**6), st.integers(17, 10**6), *[part] * 7)
charges = st.builds(Charge, *[part] * 8)


def by_column(entry: Entry) -> dict[str, object]:
    """Return what the ledger will hold of ``entry``, defaults included."""
    named = dict(zip(CORE_COLUMNS if entry.core else COLUMNS, entry.columns, strict=True))
    return dict.fromkeys(COLUMNS, 0) | named


def test_every_column_of_the_table_is_filled() -> None:
    """No column of the ledger is forgotten, and those left out of the core have a default of zero."""
    table = LedgerRow.metadata.tables["ledger"]
    assert sorted(COLUMNS) == sorted(table.columns.keys())
    left_out = set(COLUMNS) - set(CORE_COLUMNS)
    assert {name for name in COLUMNS if table.columns[name].server_default is not None} == left_out


@given(usages, charges, charges)
def test_every_value_stands_in_its_column(usage: Usage, charged: Charge, cost: Charge) -> None:
    """Each class of tokens and money reaches its own column, by the short form and by the long one."""
    close = msgspec.structs.replace(closed(opened(dims(user="me"))), usage=usage, charge=charged, cost=cost)
    entry = Entry.of(close)
    row = by_column(entry)
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
    assert entry.hour == ids.hour(close.request_id)
    assert entry.key == end_key(end_of(close)) == entry.columns[:4]


def test_values_are_of_the_plain_types_the_driver_takes_fastest() -> None:
    """No enumeration or subclass reaches the driver."""
    entry = Entry.of(closed(opened()))
    assert {type(value) for value in entry.columns} <= {int, str, bytes}


@pytest.mark.parametrize(
    "usage", [Usage(2**62, 5), Usage(5, 2**62), Usage(9, 9, cache_read=2**60), Usage(-5, 7), Usage(9, 9, 0, 0, 2**63)]
)
def test_absurd_counts_are_cut_and_logged(usage: Usage) -> None:
    """An engine that reports more tokens than can be cannot stop the books of the host."""
    with capture_logs() as logs:
        entry = Entry.of(msgspec.structs.replace(closed(opened()), usage=usage))
    assert [entry["event"] for entry in logs] == ["ledger_row_implausible"]
    row = by_column(entry)
    assert all(0 <= int(str(row[f"tokens_{name}"])) <= 2**40 for name in Usage.__struct_fields__)


def test_absurd_money_is_cut() -> None:
    """A charge over a million dollars for one answer is a defect; sums of such rows must still fit."""
    with capture_logs() as logs:
        entry = Entry.of(msgspec.structs.replace(closed(opened()), charge=Charge(2**62, 2**62)))
    assert len(logs) == 1
    assert entry.charge_nano == by_column(entry)["charge_nano"] <= 2**50


def test_corrections_may_be_negative() -> None:
    """A correction takes away what was charged too much; it is ours and is believed."""
    close = msgspec.structs.replace(
        closed(opened(), kind=RowKind.CORRECTION), usage=Usage(-5, -6), charge=Charge(-70, -80)
    )
    with capture_logs() as logs:
        entry = Entry.of(close)
    row = by_column(entry)
    assert (row["tokens_prompt"], row["charge_prompt"], row["charge_nano"]) == (-5, -70, -150)
    assert logs == []


async def test_many_ends_become_entries_in_order() -> None:
    """Slicing for the event loop's sake changes nothing."""
    ends = [end_of(closed(opened())) for _ in range(250)]
    assert [entry.end for entry in await entries(ends)] == ends
