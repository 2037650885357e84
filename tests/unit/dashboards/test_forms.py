"""What fields of forms are read as."""

from __future__ import annotations

import pytest

from dashboards import forms
from dashboards.forms import Wrong


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0.50", 500_000_000),
        (" $5 ", 5_000_000_000),
        ("1,000", 1_000_000_000_000),
        ("12,345,678.9", 12_345_678_900_000_000),
    ],
)
def test_an_amount_is_read_with_commas_between_its_thousands(text: str, nano: int) -> None:
    """As people copy it from a bill."""
    assert forms.dollars({"limit": text}, "limit") == nano


@pytest.mark.parametrize(
    "text", ["0,50", "1,5", "10,00", "0,500", "1.000,50", "1,0000", "1,000,5", ",500", "1,000.5,0"]
)
def test_a_comma_that_may_be_a_decimal_point_is_refused(text: str) -> None:
    """Half a dollar never becomes fifty, and 1.5 no limit of 15."""
    with pytest.raises(Wrong):
        forms.dollars({"limit": text}, "limit")
    with pytest.raises(Wrong):
        forms.number({"rpm": text}, "rpm")


@pytest.mark.parametrize(("text", "value"), [("", None), ("60", 60), ("1,000", 1_000), ("1 000 000", 1_000_000)])
def test_a_whole_number_may_be_grouped(text: str, value: int | None) -> None:
    """By commas or spaces."""
    assert forms.number({"rpm": text}, "rpm") == value


@pytest.mark.parametrize("text", ["9" * 5_000, "0", "-1", "1.5", "²", "10000000000001"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    """However long it is."""
    with pytest.raises(Wrong):
        forms.number({"rpm": text}, "rpm")


@pytest.mark.parametrize(("text", "value"), [("17", 17), ("", 0), ("²", 0), ("-1", 0), ("9" * 19, 0), ("9" * 5_000, 0)])
def test_a_list_begins_where_its_link_says(text: str, value: int) -> None:
    """Anything that is no id is the newest page."""
    assert forms.cursor(text) == value
