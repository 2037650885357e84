"""Promises of the benchmark's arithmetic: medians, ranges, percentiles, differences."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import KINDS, as_json, over_rounds, percentile
from bench.measure import Round, _subtract


def test_rounds_become_a_median_with_its_range() -> None:
    """A figure is the median of its rounds, told with the smallest, the largest and every round."""
    figures = over_rounds([{"json_cpu_us": 60.0}, {"json_cpu_us": 50.0}, {"json_cpu_us": 58.0}])
    seen = figures["json_cpu_us"]
    assert (seen.median, seen.min, seen.max, list(seen.rounds)) == (58.0, 50.0, 60.0, [60.0, 50.0, 58.0])
    assert seen.unit == "µs"


def test_a_figure_without_rounds_is_absent() -> None:
    """What no round measured is missing, not zero; what one round lacks comes from the others."""
    figures = over_rounds([{"idle_mb": 80.0}, {}, {"idle_mb": 90.0}])
    assert set(figures) == {"idle_mb"}
    assert figures["idle_mb"].median == 85.0


def test_an_unknown_figure_is_refused() -> None:
    """A misspelt figure cannot slip into a report."""
    with pytest.raises(KeyError, match="jsn_cpu"):
        over_rounds([{"jsn_cpu": 1.0}])


def test_figures_are_json_in_the_order_of_their_kinds() -> None:
    """The plain form can be written as JSON and keeps a thousandth of the unit."""
    plain = as_json(over_rounds([{"idle_mb": 1.23456, "json_cpu_us": 2.0}]))
    assert list(plain) == [name for name in KINDS if name in plain]
    assert json.loads(json.dumps(plain))["idle_mb"] == {
        "unit": "MB",
        "median": 1.235,
        "min": 1.235,
        "max": 1.235,
        "rounds": [1.235],
    }


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100), (0.01, 1), (0.001, 1)]
)
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    """Of the numbers 1 to 100 the p-th percentile is p."""
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected


def test_percentile_of_nothing_is_refused() -> None:
    """No measurement is an error, not a delay of zero."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=200),
    st.integers(min_value=1, max_value=100),
)
def test_percentile_covers_its_share_and_not_more(values: list[float], hundredths: int) -> None:
    """At least the share is at or below the percentile, and fewer than the share are below it."""
    found = percentile(values, hundredths / 100)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= hundredths * len(values)
    assert sum(value < found for value in values) < math.ceil(hundredths * len(values) / 100)


def test_differences_are_taken_only_from_what_both_measured() -> None:
    """Added delay is the gateway's minus direct's; without a baseline there is none."""
    figures = {"lone_p50_us": 150.0, "chunk_p50_ms": 0.5, "first_chunk_ms": 21.0}
    _subtract(figures, {"lone_p50_us": 30.0, "chunk_p50_ms": 0.1})
    assert figures["lone_added_us"] == 120.0
    assert figures["chunk_added_p50_ms"] == pytest.approx(0.4)
    assert "first_chunk_added_ms" not in figures


def test_a_part_that_fails_is_kept_as_a_reason_and_the_rest_goes_on() -> None:
    """One failed part of a round loses its own figures only, and says why."""

    def broken() -> dict[str, float]:
        raise TimeoutError

    seen = Round()
    seen.attempt("idle", lambda: {"idle_mb": 80.0})
    seen.attempt("drip", broken)
    seen.attempt("burst", lambda: {"burst_cpu_us": 100.0})
    assert seen.figures == {"idle_mb": 80.0, "burst_cpu_us": 100.0}
    assert seen.failures == ["drip: TimeoutError"]
