"""Files that people open in a spreadsheet and programs read."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest

from dashboards.sheets import csv_of, harmless


@pytest.mark.parametrize("number", ["-0.0001656", "-12", "0", "7.5", "20042759.792071711", -3, 0.25, None])
def test_a_number_stays_a_number(number: object) -> None:
    """What a correction took back is added up by whoever reads the file."""
    assert harmless(number) == number


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "-", "-.5", "-1e9", "-1\n", "@x", "\tx", "\rx", "\n=x", "\0=x"])
def test_a_text_is_no_formula(text: str) -> None:
    """Also one that begins like a negative number."""
    assert harmless(text) == "'" + text.replace("\0", "")


def test_amounts_add_up_and_names_come_back() -> None:
    """Names with commas, quotes and other scripts are read as they were; negative amounts count."""
    names = ['Müller, "Söhne" & Co', "日本チーム", "two\nlines"]
    rows = [{"team": name, "cost_usd": amount} for name, amount in zip(names, ("1.5", "-0.25", "0"), strict=True)]
    answer = csv_of(rows, "costs")
    read = list(csv.DictReader(io.StringIO(bytes(answer.body).decode(), newline="")))
    assert [row["team"] for row in read] == names
    assert sum(Decimal(row["cost_usd"]) for row in read) == Decimal("1.25")
