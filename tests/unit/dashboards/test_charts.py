"""Charts as geometry: axes, sparklines, usage by name, without a browser."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dashboards.charts.scale import ticks
from dashboards.charts.spark import sparkline
from dashboards.charts.strata import OTHER
from dashboards.charts.usage import drawn
from dashboards.figures import short
from dashboards.span import Span
from gateway.console.measure import REST, Sum


def test_usage_is_drawn_by_name_with_the_rest_last() -> None:
    """The greatest name is undermost, what belongs to no name on top, and a point without usage is empty."""

    def used(point: int, name: str, tokens: int) -> Sum:
        return Sum(point, name, 1, 0, 0, tokens, 0, 0, 0, 0)

    rows = [used(7, "a", 5), used(9, "b", 30), used(9, "", 4), used(9, REST, 2)]
    chart = drawn(rows, Span("7d", "day", 7, 9), lambda row: row.tokens, short, {"b": "The second"})
    assert [layer.name for layer in chart.layers] == ["The second", "a", "none", OTHER]
    assert [layer.values for layer in chart.layers] == [(0, 0, 30), (5, 0, 0), (0, 0, 4), (0, 0, 2)]
    assert chart.totals == (5, 0, 36)
    assert chart.labels == ("08 Jan", "09 Jan", "10 Jan")
    assert drawn([], Span("7d", "day", 7, 9), lambda row: row.tokens, short).empty


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
