"""Promises of the judge: it passes only what was measured and is within its bar."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.check import BARS, judge, main, table
from bench.contestants import CONTESTANTS
from bench.contestants.base import ROOT
from bench.figures import KINDS


def _figure(value: float, unit: str = "µs") -> dict[str, Any]:
    return {"unit": unit, "median": value, "min": value, "max": value, "rounds": [value]}


@pytest.fixture
def good() -> dict[str, Any]:
    """A run in which every bar is met, some of them exactly."""
    weir = {
        "json_cpu_us": _figure(90.0),
        "json_serving_cpu_us": _figure(60.0),
        "drip_cpu_us": _figure(1300.0),
        "drip_serving_cpu_us": _figure(1260.0),
        "chunk_p50_ms": _figure(2.2, "ms"),
        "chunk_p99_ms": _figure(10.4, "ms"),
        "chunk_added_p50_ms": _figure(2.0, "ms"),
        "chunk_added_p99_ms": _figure(10.0, "ms"),
        "shipper_us_per_record": _figure(15.0),
        "translated_answer_us": _figure(60.0),
        "translated_chunk_us": _figure(10.0),
        "idle_mb": _figure(100.0, "MB"),
        "streams_mb": _figure(200.0, "MB"),
        "slow_reader_mb": _figure(10.0, "MB"),
    }
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "quick": False,
        "contestants": {
            "weir": {"failures": [], "figures": weir},
            "sglang-router": {"failures": [], "figures": {"json_cpu_us": _figure(60.0)}},
            "envoy": {"failures": [], "figures": {"drip_cpu_us": _figure(1260.0)}},
        },
    }


def _judged(run: dict[str, Any], folder: Path) -> int:
    path = folder / "run.json"
    path.write_text(json.dumps(run))
    return main([str(path)])


def test_a_run_at_its_bars_passes(good: dict[str, Any], tmp_path: Path) -> None:
    """A figure equal to its bar is met: the bars say at most."""
    assert [seen.state for seen in judge(good)] == ["met"] * len(BARS)
    assert _judged(good, tmp_path) == 0


@pytest.mark.parametrize("bar", BARS, ids=lambda bar: bar.figure)
def test_each_bar_fails_alone(bar: Any, good: dict[str, Any], tmp_path: Path) -> None:
    """Any one figure above its bar fails the run, and only that bar is missed."""
    figure = good["contestants"]["weir"]["figures"][bar.figure]
    for statistic in ("median", "max"):
        figure[statistic] *= 1.01
    assert [seen.bar.figure for seen in judge(good) if seen.state == "missed"] == [bar.figure]
    assert _judged(good, tmp_path) == 1


@pytest.mark.parametrize("bar", BARS, ids=lambda bar: bar.figure)
def test_each_figure_must_be_there(bar: Any, good: dict[str, Any], tmp_path: Path) -> None:
    """A missing figure fails the run as a missed bar does."""
    del good["contestants"]["weir"]["figures"][bar.figure]
    assert [seen.bar.figure for seen in judge(good) if seen.state == "missing"] == [bar.figure]
    assert _judged(good, tmp_path) == 1


@pytest.mark.parametrize("rival", ["sglang-router", "envoy"])
def test_a_rival_must_be_in_the_same_run(rival: str, good: dict[str, Any], tmp_path: Path) -> None:
    """Without the rival's figure there is no bar to meet, so the run fails."""
    del good["contestants"][rival]
    assert [seen.bar.rival for seen in judge(good) if seen.state == "missing"] == [rival]
    assert _judged(good, tmp_path) == 1


def test_times_are_judged_by_median_and_memory_by_its_worst_round(good: dict[str, Any]) -> None:
    """A single slow round does not fail a time, a single large round fails memory."""
    figures = good["contestants"]["weir"]["figures"]
    figures["json_serving_cpu_us"]["max"] = 1000.0
    figures["streams_mb"]["max"] = 201.0
    assert [seen.bar.figure for seen in judge(good) if seen.state != "met"] == ["streams_mb"]


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), True, "60", None])
def test_what_cannot_have_been_measured_is_missing(value: object, good: dict[str, Any]) -> None:
    """A negative or non-numeric figure is not a good one."""
    good["contestants"]["weir"]["figures"]["json_serving_cpu_us"]["median"] = value
    assert judge(good)[0].state == "missing"


def test_a_difference_may_be_negative(good: dict[str, Any], tmp_path: Path) -> None:
    """A busy moment of the baseline makes a small delay negative, which is still within its bar."""
    good["contestants"]["weir"]["figures"]["chunk_added_p99_ms"]["median"] = -0.4
    assert _judged(good, tmp_path) == 0


def test_a_part_of_weir_that_failed_in_a_round_fails_the_run(
    good: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Good rounds do not make up for a round in which something broke; a peer's failure does not count."""
    peer = copy.deepcopy(good)
    peer["contestants"]["envoy"]["failures"] = ["drip: cut"]
    assert _judged(peer, tmp_path) == 0
    good["contestants"]["weir"]["failures"] = ["1,000 streams: 3 of 1000 were lost"]
    assert _judged(good, tmp_path) == 1
    assert "failed: 1,000 streams: 3 of 1000 were lost" in capsys.readouterr().out


def test_the_table_tells_the_whole_cpu_beside_the_judged_one(good: dict[str, Any]) -> None:
    """CPU with the shipper is shown next to the figure without it, so nothing is hidden."""
    row = next(line for line in table(judge(good)).splitlines() if line.startswith("JSON"))
    assert "60.00 µs" in row
    assert "90.00 µs with the shipper" in row


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_an_unreadable_file_is_an_error_of_its_own(text: str, tmp_path: Path) -> None:
    """A file that is no run exits 2, which is neither met nor missed."""
    path = tmp_path / "latest.json"
    path.write_text(text)
    assert main([str(path)]) == 2
    assert main([str(tmp_path / "absent.json")]) == 2


@pytest.mark.parametrize("run", [{}, {"contestants": None}, {"contestants": {"weir": {"figures": []}}}])
def test_an_empty_run_has_every_figure_missing(run: dict[str, Any], tmp_path: Path) -> None:
    """Any shape of a run is judged, never a stack trace."""
    assert {seen.state for seen in judge(run)} == {"missing"}
    assert _judged(run, tmp_path) == 1


def test_bars_name_figures_and_contestants_that_exist() -> None:
    """A bar cannot wait for ever for a figure that nothing measures."""
    for bar in BARS:
        assert bar.figure in KINDS
        assert not bar.beside or bar.beside in KINDS
        assert bar.rival is None or (bar.rival in CONTESTANTS and bar.rival_figure in KINDS)


def test_it_runs_as_a_script_on_the_standard_library(good: dict[str, Any], tmp_path: Path) -> None:
    """`python bench/check.py` needs no environment and no package path."""
    path = tmp_path / "run.json"
    path.write_text(json.dumps(good))
    done = subprocess.run(
        [sys.executable, "-I", str(ROOT / "bench" / "check.py"), str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(" met") == len(BARS)
