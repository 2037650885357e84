"""Windows of time as callers write them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.leaderboard.question import Grain
from gateway.leaderboard.window import Window, board_window, dataset_window, day_text, moment_text, record_window
from gateway.types.errors import BadRequest

NOW_US = 1_795_305_600_000_000 + 3_600_000_000 * 7
"""2026-11-22T07:00Z."""
TODAY = 20_779


def test_defaults() -> None:
    """Datasets end with the last completed day, boards with the one that runs."""
    assert day_text(TODAY) == "2026-11-22"
    assert dataset_window(None, None, NOW_US) == Window("day", TODAY - 30, TODAY - 1)
    assert dataset_window(None, "2026-05-11", NOW_US).text(dataset_window(None, "2026-05-11", NOW_US).first) == (
        "2026-04-12"
    )
    assert board_window(None, None, "day", NOW_US) == Window("day", TODAY - 29, TODAY)
    hours = board_window(None, None, "hour", NOW_US)
    assert (hours.text(hours.first), hours.text(hours.last)) == ("2026-11-21T08:00Z", "2026-11-22T07:00Z")
    assert moment_text(NOW_US) == "2026-11-22T07:00:00.000Z"


def test_the_floor_of_datasets() -> None:
    """An earlier start is taken for the first day of 2025, an earlier end is refused."""
    window = dataset_window("2020-01-01", "2025-01-05", NOW_US)
    assert (window.text(window.first), window.length) == ("2025-01-01", 5)
    with pytest.raises(BadRequest):
        dataset_window(None, "2024-12-31", NOW_US)


@pytest.mark.parametrize(
    ("start", "end", "param"),
    [
        ("2026-02-30", None, "start_date"),
        ("20260210", None, "start_date"),
        ("2026-05-12", "2026-05-11", "start_date"),
        ("2025-05-11", "2026-05-12", "start_date"),
        (None, "soon", "end_date"),
        (None, "2026-05-11T00:00", "end_date"),
    ],
)
def test_windows_of_no_use_are_refused(start: str | None, end: str | None, param: str) -> None:
    """Days that are none, backward windows, and more than 366 days are errors that name the parameter."""
    with pytest.raises(BadRequest) as caught:
        dataset_window(start, end, NOW_US)
    assert caught.value.param == param


def test_a_leap_year_is_the_longest() -> None:
    """366 days with both ends are shown."""
    assert dataset_window("2025-05-12", "2026-05-12", NOW_US).length == 366


def test_hours() -> None:
    """Hours are written as such, or as days from their first to their last hour; two weeks of them at most."""
    window = board_window("2026-11-20", "2026-11-21T05", "hour", NOW_US)
    assert (window.text(window.first), window.length) == ("2026-11-20T00:00Z", 30)
    for start, end in (("2026-11-01", "2026-11-15"), ("2026-11-20T24", None), (None, "2026-11-20T5")):
        with pytest.raises(BadRequest):
            board_window(start, end, "hour", NOW_US)


@given(st.text(max_size=24), st.text("0123456789-T:Z", max_size=20))
def test_any_text_is_a_window_or_refused(one: str, other: str) -> None:
    """Nothing that a caller writes raises anything else."""
    for start, end in ((one, other), (other, one), (other, other)):
        _is_a_window_or_refused(start, end)


@example("0001-01-01", "0001-12-31")
@example("9999-12-31", "9999-12-31")
@given(st.dates().map(str), st.dates().map(str))
def test_any_day_is_a_window_or_refused(one: str, other: str) -> None:
    """Also at the edge of the calendar: what lies before a window can be told."""
    for start, end in ((one, other), (None, one), (one, one)):
        _is_a_window_or_refused(start, end)


def _is_a_window_or_refused(start: str | None, end: str) -> None:
    with suppress(BadRequest):
        _has_a_window_before(dataset_window(start, end, NOW_US))
    with suppress(BadRequest):
        _has_a_window_before(record_window(start, end, NOW_US))
    grains: tuple[Grain, ...] = ("day", "hour")
    for grain in grains:
        with suppress(BadRequest):
            _has_a_window_before(board_window(start, end, grain, NOW_US))


def _has_a_window_before(window: Window) -> None:
    assert 1 <= window.length <= (366 if window.grain == "day" else 14 * 24)
    before = Window(window.grain, window.first - window.length, window.first - 1)
    assert before.text(before.first) < window.text(window.first) <= window.text(window.last)
