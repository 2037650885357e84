"""Promises of the report: a file for the judge, a page for readers, nothing of the machine's paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.check import judge
from bench.contestants.base import ROOT
from bench.figures import Figure, over_rounds
from bench.report import Entry, Run, cell, document, page, write
from bench.run import _public


@pytest.fixture
def run() -> Run:
    """A run of two contestants, one of which failed in part."""
    weir = Entry("**Weir**, everything on", "0.1.0", "all on")
    weir.figures = over_rounds(
        [
            {"json_cpu_us": 80.0, "json_serving_cpu_us": 58.4, "idle_mb": 64.0, "lone_p50_us": 150.0},
            {"json_cpu_us": 90.0, "json_serving_cpu_us": 60.6, "idle_mb": 64.0, "lone_p50_us": 160.0},
        ]
    )
    rival = Entry("sglang-router (Rust)", "0.3.2", "cache_aware")
    rival.figures = over_rounds([{"json_cpu_us": 1109.6}])
    rival.failures = ["drip: cut"]
    return Run(
        date="2026-01-02T03:04:05+00:00",
        quick=False,
        seconds=754.2,
        machine={"cores": 2},
        versions={"wrk": "4.1.0"},
        method={"rounds": 2},
        contestants={"weir": weir, "sglang-router": rival, "direct": Entry("direct to the mock", "", "none")},
    )


def test_the_document_is_what_the_judge_reads(run: Run, tmp_path: Path) -> None:
    """`latest.json` carries every figure to the judge."""
    latest, _ = write(run, tmp_path)
    first = judge(json.loads(latest.read_text()))[0]
    assert (first.measured, first.limit, first.state) == (59.5, 1109.6, "met")
    assert json.loads(latest.read_text()) == document(run)


def test_the_page_is_dated_and_replaced(run: Run, tmp_path: Path) -> None:
    """A second run of a day replaces its page; no half-written file stays."""
    _, dated = write(run, tmp_path)
    assert write(run, tmp_path)[1] == dated
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2026-01-02.md", "latest.json"]


def test_the_page_shows_tables_bars_machine_and_failures(run: Run) -> None:
    """A reader finds medians with ranges, the bars, the machine, the versions and what failed."""
    text = page(run)
    assert "| **Weir**, everything on | 85 (80–90) | – | – |" in text
    assert "| sglang-router (Rust) | 1,110 | – | – |" in text
    assert "| **Weir**, everything on | 60 (58–61) | – | – |" in text
    assert "| 59.50 µs | 1,109.60 µs | met, 85.00 µs with the shipper |" in text
    assert "* direct to the mock: none." in text
    assert "* cores: 2" in text
    assert "* wrk: 4.1.0" in text
    assert "* sglang-router: drip: cut" in text


def test_a_contestant_without_a_tables_figures_has_no_row(run: Run) -> None:
    """Empty rows would read like zeros."""
    assert "| direct to the mock |" not in page(run)
    assert "Without the shipper" in page(run)
    del run.contestants["weir"]
    assert "Without the shipper" not in page(run)


@pytest.mark.parametrize(
    ("figure", "decimals", "expected"),
    [
        (None, 1, "–"),
        (Figure("ms", 1.25, 1.2, 1.3, []), 1, "1.2 (1.2–1.3)"),
        (Figure("MB", 64.2, 63.9, 64.4, []), 0, "64"),
        (Figure("µs", 14_900.4, 14_000.0, 15_000.0, []), 0, "14,900 (14,000–15,000)"),
    ],
)
def test_a_cell_is_the_median_and_its_range(figure: Figure | None, decimals: int, expected: str) -> None:
    """A range that vanishes at the printed precision is not printed."""
    assert cell(figure, decimals) == expected


def test_kept_failures_name_no_path_of_the_machine() -> None:
    """What is committed tells the first line of a failure without where it happened."""
    told = _public(f"start: {ROOT}/.venv/bin/weir and {Path.home()}/x failed\nsecond line")
    assert told == "start: ./.venv/bin/weir and ~/x failed"
