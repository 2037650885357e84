"""OpenRouter's datasets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.leaderboard.datasets import (
    OTHER,
    TOP,
    AppRow,
    DailyRow,
    app_id,
    app_rows,
    categories_of,
    daily_rows,
    refuse_unrecorded,
)
from gateway.leaderboard.question import AppStanding, DayTokens
from gateway.types.errors import BadRequest

DAY = 20_584
"""2026-05-11, a Monday."""


def test_fifty_and_the_rest() -> None:
    """The 50 greatest of each day, ties by name, then what all others used together; totals are strings."""
    models = [f"m{number:02d}" for number in range(53)]
    rows = daily_rows(
        [DayTokens(DAY, models, [2**62, *range(52, 1, -1), 7]), DayTokens(DAY + 1, ["a", "b"], [0, 3])], "day"
    )
    first = [row for row in rows if row.date == "2026-05-11"]
    assert first[0] == DailyRow("2026-05-11", "m00", str(2**62))
    assert len(first) == TOP + 1
    assert first[-1] == DailyRow("2026-05-11", OTHER, str(2 + 3 + 4))
    assert [row for row in rows if row.date == "2026-05-12"] == [DailyRow("2026-05-12", "b", "3")]
    ties = daily_rows([DayTokens(DAY, ["b", "a"], [1, 1])], "day")
    assert [row.model_permaslug for row in ties] == ["a", "b"]


def test_weeks_and_months_are_summed_up() -> None:
    """A week begins on Monday, a month with its first day."""
    found = [DayTokens(DAY - 1, ["a"], [1]), DayTokens(DAY, ["a"], [2]), DayTokens(DAY + 25, ["a", "b"], [4, 1])]
    assert [(row.date, row.total_tokens) for row in daily_rows(found, "week")] == [
        ("2026-05-04", "1"),
        ("2026-05-11", "2"),
        ("2026-06-01", "4"),
        ("2026-06-01", "1"),
    ]
    assert [(row.date, row.total_tokens) for row in daily_rows(found, "month")] == [
        ("2026-05-01", "3"),
        ("2026-06-01", "4"),
        ("2026-06-01", "1"),
    ]


@given(
    st.lists(st.dictionaries(st.text("abc", min_size=1, max_size=5), st.integers(0, 10**16), max_size=90), max_size=8),
    st.sampled_from(["day", "week", "month"]),
)
def test_nothing_is_lost(days: list[dict[str, int]], period: str) -> None:
    """The rows of any window add up to all tokens, in at most 51 rows a date, dates in order."""
    found = [DayTokens(DAY + number, list(day), list(day.values())) for number, day in enumerate(days)]
    rows = daily_rows(found, period)
    assert sum(int(row.total_tokens) for row in rows) == sum(sum(day.values()) for day in days)
    dates = [row.date for row in rows]
    assert dates == sorted(dates)
    assert all(dates.count(date) <= TOP + 1 for date in set(dates))


def test_apps_by_volume_and_by_growth() -> None:
    """Popular goes by tokens; trending by tokens beyond the mean of the three windows before, growers alone."""
    apps = [
        AppStanding("a.example", "A", 900, 9, 2_700),
        AppStanding("b.example", "", 500, 5, 300),
        AppStanding("c.example", "C", 100, 1, 0),
    ]
    popular = app_rows(apps, "popular", 10, 0)
    assert popular[1] == AppRow(2, app_id("b.example"), "b.example", "500", 5)
    assert [row.rank for row in app_rows(apps, "popular", 1, 1)] == [2]
    assert [row.app_name for row in app_rows(apps, "trending", 10, 0)] == ["b.example", "C"]
    assert app_id("a.example") == app_id("a.example") < 2**53


def test_categories() -> None:
    """A group stands for its members; a member outside of its group is a contradiction."""
    assert "cli-agent" in categories_of("coding", None)
    assert categories_of("coding", "cli-agent") == ("cli-agent",)
    assert categories_of(None, None) == ()
    for pair in (("coding", "game"), ("cooking", None), (None, "cooking")):
        with pytest.raises(BadRequest):
            categories_of(*pair)


@pytest.mark.parametrize("name", ["modality", "context_bucket", "category", "language_type"])
def test_filters_that_nothing_here_can_answer_are_refused(name: str) -> None:
    """An answer that looks filtered and is not would be wrong."""
    refuse_unrecorded({name: None})
    with pytest.raises(BadRequest) as caught:
        refuse_unrecorded({name: "text"})
    assert caught.value.param == name
