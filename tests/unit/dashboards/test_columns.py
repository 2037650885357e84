"""Charts as geometry: what is drawn where, without a browser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.charts.columns import OTHER, sparkline, stacked
from dashboards.charts.scale import SIZE, ticks
from dashboards.figures import short

SERIES = st.dictionaries(
    st.text(min_size=1, max_size=4), st.lists(st.integers(0, 10**15), min_size=5, max_size=5), max_size=14
)


@given(SERIES)
def test_columns_stand_on_each_other_and_hold_every_value(series: dict[str, list[int]]) -> None:
    """Parts of a column touch, none leaves the drawing, and their heights are the values."""
    chart = stacked(list("abcde"), series, short)
    top = max((sum(values[at] for values in series.values()) for at in range(5)), default=0)
    scale = ticks(top)[-1]
    for at, column in enumerate(chart.columns):
        y = SIZE
        for part in column.parts:
            assert part.y + part.height == pytest.approx(y, abs=0.05)
            y = part.y
        assert y >= -0.05
        whole = sum(values[at] for values in series.values())
        assert SIZE - y == pytest.approx(SIZE * whole / scale, abs=0.3)


def test_small_series_are_summed_up_last() -> None:
    """Only so many series are told apart; the rest is one, at the end."""
    chart = stacked(["x"], {f"m{number}": [100 - number] for number in range(12)}, short, most=8)
    assert chart.names == (*(f"m{number}" for number in range(8)), OTHER)
    assert chart.columns[0].lines[-1] == (8, OTHER, short(92 + 91 + 90 + 89))


def test_nothing_used_is_nothing_drawn() -> None:
    """A window without usage has no series and still has its axis."""
    chart = stacked(["x", "y"], {"m": [0, 0]}, short)
    assert chart.empty
    assert [column.parts for column in chart.columns] == [(), ()]


@given(st.floats(1e-6, 1e18), st.integers(2, 8))
def test_ticks_are_few_round_and_reach_the_top(largest: float, most: int) -> None:
    """An axis ends at or above the largest value and not far above it."""
    marks = ticks(largest, most)
    assert marks[0] == 0
    assert marks[-1] >= largest * (1 - 1e-6)
    assert len(marks) <= most + 2
    assert marks[-1] - marks[-2] <= largest + 1e-9


def test_a_sparkline_stays_in_its_box() -> None:
    """Its points run from left to right and never out of it."""
    points = [tuple(map(float, point.split(","))) for point in sparkline([0, 5, 3, 9]).split()]
    assert [x for x, _ in points] == [0, 100, 200, 300]
    assert all(0 <= y <= 100 for _, y in points)
    assert sparkline([1]) == ""
