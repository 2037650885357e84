"""Charts of the rankings as geometry: stacked columns and lines, without a browser."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.assets import FOLDER
from dashboards.charts.axes import HEIGHT, PLACE
from dashboards.charts.lines import lines
from dashboards.charts.scale import ticks
from dashboards.charts.strata import MOST, OTHER, strata
from dashboards.charts.table import CELL, HEAD, ROW, text
from dashboards.figures import short, whole

DAYS = 6
VALUES = st.lists(st.integers(0, 10**15), min_size=DAYS, max_size=DAYS)
RANKED = st.lists(VALUES, max_size=14).map(lambda found: [(f"m{number}", each) for number, each in enumerate(found)])
LABELS = [f"2026-05-{day:02d}" for day in range(1, DAYS + 1)]


@given(RANKED, VALUES)
def test_heights_of_a_column_add_up_to_its_total(ranked: list[tuple[str, list[int]]], rest: list[int]) -> None:
    """Nobody's usage is lost or counted twice, whatever is drawn by itself."""
    chart = strata(LABELS, ranked, rest, short)
    assert list(chart.totals) == [sum(each[day] for _, each in ranked) + rest[day] for day in range(DAYS)]
    top = ticks(max(chart.totals))[-1]
    for day in range(DAYS):
        drawn = sum(bar.height for layer in chart.layers for bar in layer.bars if bar.point == day)
        assert drawn == round(HEIGHT - HEIGHT * 0) - round(HEIGHT - HEIGHT * chart.totals[day] / top)


@given(RANKED, VALUES)
def test_parts_touch_and_never_overlap(ranked: list[tuple[str, list[int]]], rest: list[int]) -> None:
    """Each part stands on the one below it, the first on the floor, and none leaves the drawing."""
    chart = strata(LABELS, ranked, rest, short)
    for day in range(DAYS):
        parts = [bar for layer in chart.layers for bar in layer.bars if bar.point == day]
        floors = [HEIGHT, *(bar.y for bar in parts)]
        assert [bar.y + bar.height for bar in parts] == floors[:-1]
        assert all(0 <= bar.y <= HEIGHT for bar in parts)


@given(RANKED, VALUES)
def test_only_so_many_series_have_a_colour(ranked: list[tuple[str, list[int]]], rest: list[int]) -> None:
    """The first by rank are told apart, in their order; all others are one, the last."""
    chart = strata(LABELS, ranked, rest, short)
    used = [name for name, values in ranked if any(values)]
    beyond = any(rest) or len(used) > MOST
    assert [layer.name for layer in chart.layers] == used[:MOST] + [OTHER] * beyond
    assert [layer.colour for layer in chart.layers] == [str(each) for each in range(len(used[:MOST]))] + ["o"] * beyond


def test_columns_of_a_path_stand_in_their_places() -> None:
    """What is drawn is what was worked out: one box for each value, inside the place of its day."""
    (layer,) = strata(["a", "b", "c"], [("m", [4, 0, 2])], [0, 0, 0], short).layers
    boxes = re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)h-\d+z", layer.path)
    assert [(int(x) // PLACE, int(y), int(height)) for x, y, _, height in boxes] == [(0, 0, HEIGHT), (2, 2000, 2000)]
    assert all(int(x) % PLACE + int(width) <= PLACE for x, _, width, _ in boxes)


def test_nothing_one_day_and_one_model() -> None:
    """The smallest charts there are: none, and a single column that fills its axis."""
    empty = strata(["a"], [("m", [0])], [0], short)
    assert empty.empty
    assert empty.ticks[0] == (0.0, "0")
    assert strata([], [], [], short).empty
    single = strata(["a"], [("m", [10])], [0], short)
    assert (single.width, [bar.height for bar in single.layers[0].bars]) == (PLACE, [HEIGHT])
    assert single.marks == ((0.5, "a"),)


def test_a_year_has_few_marks_in_order() -> None:
    """The axis of a year stays readable, and each mark stands at its own day."""
    labels = [str(day) for day in range(365)]
    chart = strata(labels, [("m", [1] * 365)], [0] * 365, short)
    assert len(chart.marks) <= 7
    assert all(int(words) == math.floor(share * 365) for share, words in chart.marks)


@given(st.lists(st.none() | st.integers(0, 10**9), min_size=1, max_size=30))
def test_a_line_lifts_its_pen_where_nothing_was_measured(values: list[int | None]) -> None:
    """Every value is a point of the path at its height; no line goes through a gap, and one alone can be seen."""
    chart = lines([str(each) for each in range(len(values))], [("m", values)], short)
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    assert chart.empty == (not known)
    if not known:
        return
    points = re.findall(r"([ML])(\d+) (\d+)", chart.layers[0].path)
    assert [int(x) // PLACE for _, x, _ in points] == [at for at, _ in known]
    assert all(0 <= int(y) <= HEIGHT for _, _, y in points)
    joined = [pen == "L" for pen, _, _ in points]
    assert joined == [False, *(after[0] == before[0] + 1 for before, after in pairwise(known))]
    drawn = [re.findall(r"[MLh]", run) for run in re.findall(r"M[^M]*", chart.layers[0].path)]
    assert all(len(pens) > 1 for pens in drawn), "a point alone draws nothing"
    assert chart.layers[0].path.count(f"h{PLACE}") == sum(pens == ["M", "h"] for pens in drawn)


# Machado, Oliveira and Fernandes 2009, severity 1: what linear RGB becomes for who lacks one kind of cones.
SIGHTS = {
    "all": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}
PALETTE = re.compile(r"--(s[0-7o]): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)")
APART = 12.0
"""CIE 1976 difference; 2.3 is just noticeable side by side."""


def lab(colour: str, sight: tuple[tuple[float, ...], ...]) -> tuple[float, float, float]:
    """Return a colour as it is seen, in CIE Lab."""
    raw = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in raw]
    r, g, b = (min(1.0, max(0.0, sum(m * each for m, each in zip(row, linear, strict=True)))) for row in sight)
    x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883
    fx, fy, fz = (each ** (1 / 3) if each > 0.008856 else 7.787 * each + 16 / 116 for each in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


@pytest.mark.parametrize("look", [1, 2], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_of_series_are_told_apart(look: int, sight: str) -> None:
    """Any two of the nine differ for everybody, also for who sees no red, no green or no blue."""
    found = PALETTE.findall((FOLDER / "css/weir.css").read_text(encoding="utf-8"))
    assert len(found) == 9
    seen = {each[0]: lab(each[look], SIGHTS[sight]) for each in found}
    near = [(a, b) for a in seen for b in seen if a < b and math.dist(seen[a], seen[b]) < APART]
    assert near == []


def test_the_picture_for_other_sites_has_the_colours_of_the_page() -> None:
    """One palette, said in two places."""
    found = PALETTE.findall((FOLDER / "css/weir.css").read_text(encoding="utf-8"))
    style = (FOLDER.parent / "templates/rankings_style.svg").read_text(encoding="utf-8")
    light, dark, auto = (dict(re.findall(r"--(s[0-7o]):(#[0-9a-f]{6})", part)) for part in style.split("--bg:")[1:])
    assert light == {name: colour for name, colour, _ in found}
    assert dark == auto == {name: colour for name, _, colour in found}


def test_the_table_behind_has_every_number() -> None:
    """A row for each point: its label, the total where values add up, and what each layer says; gaps are told."""
    chart = strata(["a", "b"], [("m", [4, 0]), ("n", [1234, 2])], [0, 0], short)
    rows = [row.split(HEAD) for row in text(chart, whole, chart.totals).split(ROW)]
    assert [(label, cells.split(CELL)) for label, cells in rows] == [
        ("a", ["1,238", "4", "1,234"]),
        ("b", ["2", "0", "2"]),
    ]
    ratios = lines(["a", "b"], [("m", [None, 7])], short)
    assert text(ratios, whole) == f"a{HEAD}–{ROW}b{HEAD}7"
