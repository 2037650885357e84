"""Numbers as people read them."""

from __future__ import annotations

import pytest

from dashboards import door, figures, forms


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (999.6, "1.00K"),
        (1_234, "1.23K"),
        (45_600_000, "45.6M"),
        (1_400_000_000_000, "1.40T"),
        (None, "–"),
    ],
)
def test_counts_are_short_and_keep_their_size(value: float | None, shown: str) -> None:
    """Three digits and a letter say how many."""
    assert figures.short(value) == shown


@pytest.mark.parametrize(
    ("nano", "shown", "exact"),
    [
        (0, "$0.00", "$0.00"),
        (1_500_000_000, "$1.50", "$1.50"),
        (123_456_789_012, "$123.46", "$123.456789012"),
        (12_000, "$0.000012", "$0.000012"),
        (-2_000_000_000, "−$2.00", "−$2.00"),
        (2_500_000_000_000_000, "$2.50M", "$2,500,000.00"),
    ],
)
def test_money_is_short_for_a_glance_and_exact_where_asked(nano: int, shown: str, exact: str) -> None:
    """Nothing of an exact amount is rounded away."""
    assert figures.usd(nano) == shown
    assert figures.exact_usd(nano) == exact


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ("/console/keys?team=a", "/console/keys?team=a"),
        ("https://evil.example", "/console"),
        ("//evil.example", "/console"),
        ("/\\evil.example", "/console"),
        ("/a\r\nset-cookie: x", "/console"),
        ("", "/console"),
    ],
)
def test_nobody_is_sent_to_another_site(wanted: str, path: str) -> None:
    """Only a path of this site is followed after signing in."""
    assert door.local_path(wanted) == path


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "１２", "9" * 20])
def test_a_limit_that_is_no_number_names_its_field(text: str) -> None:
    """What was typed wrong is said where it was typed."""
    with pytest.raises(forms.Wrong) as caught:
        forms.number({"rpm": text}, "rpm")
    assert caught.value.field == "rpm"


def test_fields_may_be_empty_or_grouped() -> None:
    """Nothing typed is no limit; commas may group digits."""
    assert forms.number({}, "rpm") is None
    assert forms.number({"rpm": " 1,000 "}, "rpm") == 1000
    assert forms.names({"models": "a, b\nb"}, "models") == ("a", "b")
    assert forms.dollars({"limit": "$1,250.50"}, "limit") == 1_250_500_000_000


def test_moments_are_told_as_finely_as_is_asked() -> None:
    """Minutes where days matter, seconds where requests follow one another, ISO 8601 for machines."""
    at = 1_778_484_669_500_000
    assert figures.moment(at) == "2026-05-11 07:31"
    assert figures.second(at) == "2026-05-11 07:31:09"
    assert figures.stamp(at) == "2026-05-11T07:31:09Z"
