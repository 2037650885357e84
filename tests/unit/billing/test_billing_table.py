"""Tables are written exactly, in every form, and no cell of a CSV file is run by a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.billing.cell import safe
from gateway.billing.table import ROW_GROUP, Cell, Column, Kind, Tally, decimal_text, form_of
from gateway.types.errors import BadRequest

COLUMNS = (
    Column("text"),
    Column("moment", Kind.MOMENT),
    Column("count", Kind.COUNT, summed=True),
    Column("money", Kind.DECIMAL, 9, summed=True),
)
TEXT = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20))
ROWS = st.lists(
    st.tuples(TEXT, st.just("2026-10-01T00:00:00Z"), st.integers(0, 2**62), st.integers(-(2**62), 2**62)), max_size=30
)


def written(form: str, rows: Sequence[Sequence[Cell]], step: int = 7) -> bytes:
    """Return rows in a form, piece by piece."""
    writer = form_of(form, COLUMNS)
    pieces = [writer.rows(rows[start : start + step]) for start in range(0, len(rows), step)]
    return b"".join([*pieces, writer.end()])


def exact(row: Sequence[Cell]) -> tuple[Any, ...]:
    """Return a row with its amount as a decimal."""
    return (row[0], row[1], row[2], Decimal(int(row[3] or 0)).scaleb(-9))


@given(ROWS)
@settings(max_examples=20, deadline=None)
def test_every_form_holds_the_same_rows_exactly(rows: list[tuple[Cell, ...]]) -> None:
    """JSON, JSON lines and Parquet give back what went in, amounts to the last digit; CSV too, texts made safe."""
    from pyarrow import BufferReader, parquet  # type: ignore[import-untyped] # has no types

    due = [exact(row) for row in rows]
    lines = [json.loads(line) for line in written("jsonl", rows).decode().split("\n") if line] if rows else []
    assert [(row["text"], row["moment"], row["count"], Decimal(row["money"])) for row in lines] == due
    assert json.loads(written("json", rows)) == lines
    table = parquet.read_table(BufferReader(written("parquet", rows)))
    assert str(table.schema.field("money").type) == "decimal128(38, 9)"
    found = table.to_pylist()
    assert [(row["text"], row["count"], row["money"]) for row in found] == [(each[0], *each[2:]) for each in due]
    cells = list(csv.reader(io.StringIO(written("csv", rows).decode(), newline="")))
    assert cells[0] == [column.name for column in COLUMNS]
    assert [(row[0], Decimal(row[3])) for row in cells[1:]] == [(safe(str(each[0] or "")), each[3]) for each in due]


@given(
    st.lists(
        st.tuples(st.text('a",\r\n =', max_size=6), st.just(""), st.integers(0, 9), st.integers(-9, 9)), max_size=9
    )
)
@settings(max_examples=30, deadline=None)
def test_cells_of_a_csv_file_are_quoted_as_everybody_does(rows: list[tuple[Cell, ...]]) -> None:
    """Commas, quotation marks and line breaks in texts give the bytes that Python's own writer gives."""
    due = io.StringIO(newline="")
    writer = csv.writer(due, lineterminator="\r\n")
    writer.writerow([column.name for column in COLUMNS])
    writer.writerows((safe(str(row[0])), row[1], row[2], decimal_text(int(row[3] or 0), 9)) for row in rows)
    assert written("csv", rows).decode() == due.getvalue()


@pytest.mark.parametrize("start", list("=+-@\t\r\n\0"))
def test_no_text_of_a_csv_file_is_a_formula(start: str) -> None:
    """What would be run is led by an apostrophe; a negative amount stays a number."""
    data = written("csv", [(f"{start}cmd|' /C calc'!A0", "", 1, -1)]).decode()
    cells = next(row for row in csv.reader(io.StringIO(data, newline="")) if row[0] != "text")
    assert cells[0].startswith("'")
    assert cells[3] == "-0.000000001"


@given(st.text(max_size=30))
def test_safe_text_never_begins_like_a_formula(text: str) -> None:
    """Whatever comes, the first character is harmless, and harmless texts stay as they are."""
    made = safe(text)
    assert not made or made[0] not in "=+-@\t\r\n\0"
    assert made in {text, "'" + text} or "\0" in text


@given(st.integers(-(10**25), 10**25), st.integers(0, 15))
def test_an_integer_with_its_point_is_exact(value: int, decimals: int) -> None:
    """Text and number say the same, without an exponent."""
    text = decimal_text(value, decimals)
    assert Decimal(text) == Decimal(value).scaleb(-decimals)
    assert "e" not in text.lower()


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "parquet"])
def test_equal_rows_give_equal_bytes_in_constant_pieces(form: str) -> None:
    """Files of equal rows are equal, also when more than one row group is written; the tally knows rows and sums."""
    rows: list[tuple[Cell, ...]] = [(f"row {n}", "2026-10-01T00:00:00Z", n, -n) for n in range(ROW_GROUP + 10)]
    first, second = written(form, rows, 1_000), written(form, rows, 1_000)
    assert first == second
    tally = Tally(COLUMNS)
    tally.add(rows, first)
    total = sum(range(ROW_GROUP + 10))
    manifest = tally.manifest({"dataset": "x"})
    assert manifest["rows"] == len(rows)
    assert manifest["sums"] == {"count": str(total), "money": decimal_text(-total, 9)}
    assert manifest["bytes"] == len(first)


def test_an_unknown_form_is_refused() -> None:
    """The mistake names what there is."""
    with pytest.raises(BadRequest, match="csv, json, jsonl, parquet"):
        form_of("xls", COLUMNS)
