"""``weir lab run`` from the outside: options, output, exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app

KEYS = [
    *("policy", "seed", "requests", "rejected", "goodput_per_s", "slo_attainment", "ttft_p50_s", "ttft_p90_s"),
    *("ttft_p99_s", "itl_p99_s", "hit_ratio", "ideal_hit_ratio", "usd_per_1k_requests", "jain", "ttft_error"),
]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Return a small trace in Azure's form."""
    rows = [f"{number * 0.2:.1f},{100 + number},{20 + number % 7}" for number in range(120)]
    path = tmp_path / "small.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "\n".join(rows) + "\n")
    return path


def weir(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``weir lab run``."""
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "lab", "run", "--workers", "1", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def test_policies_and_seeds_give_a_list_of_objects(trace: Path) -> None:
    """Several values may follow an option; there is an object for each policy and seed, with exactly these members."""
    done = weir("--trace", trace, "--format", "azure", "--policy", "balanced", "p2c", "--seed", "1", "2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(one["policy"], one["seed"]) for one in found] == [("balanced", 1), ("balanced", 2), ("p2c", 1), ("p2c", 2)]
    assert all(list(one) == KEYS for one in found)
    assert all(one["requests"] == 120 and one["rejected"] == 0 for one in found)


def test_the_table_and_the_page_show_the_same(trace: Path, tmp_path: Path) -> None:
    """A table in the terminal, and one self-contained page."""
    page = tmp_path / "page.html"
    done = weir("--trace", trace, "--format", "azure", "--policy", "balanced", "--fault", "slow", "--html", page)
    assert done.returncode == 0, done.stderr
    assert "balanced" in done.stdout
    content = page.read_text()
    assert "<svg" in content
    assert "<script" not in content
    assert "faults: slow" in content
    assert str(tmp_path) not in content


def test_bad_lines_are_told_or_refused(trace: Path) -> None:
    """Their numbers and their count on standard error; with --strict status 2 and the line."""
    with trace.open("a") as file:
        file.write("x,y,z\n1,2\n")
    done = weir("--trace", trace, "--format", "azure", "--json")
    assert done.returncode == 0
    assert "2 lines were left out: 122, 123" in done.stderr
    strict = weir("--trace", trace, "--format", "azure", "--strict")
    assert strict.returncode == 2
    assert "small.csv:122:" in strict.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--policy", "balancd"), "balanced"),
        (("--fault", "fire"), "slow, death"),
        (("--profile", "quick"), "fast, slow"),
        (("--admission", "maybe"), "on, off"),
        (("--replicas", "0"), "--external"),
        (("--window", "9:1"), "END"),
        (("--window", "500:900"), "no request"),
    ],
)
def test_a_wrong_option_says_what_would_be_right(words: tuple[str, ...], said: str, trace: Path) -> None:
    """Exit status 2 and one message that names the option's values."""
    done = CliRunner().invoke(
        app, ["lab", "run", "--trace", str(trace), "--format", "azure", *words], env={"COLUMNS": "200"}
    )
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_format_that_does_not_fit_is_refused(trace: Path) -> None:
    """The wrong reader finds no request and says what its first line lacks."""
    runner = CliRunner()
    done = runner.invoke(app, ["lab", "run", "--trace", str(trace), "--format", "mooncake"])
    assert done.exit_code == 2
    assert "no request" in done.stderr
    assert runner.invoke(app, ["lab", "run", "--trace", str(trace), "--format", "parquet"]).exit_code == 2
    assert runner.invoke(app, ["lab", "run", "--format", "azure"]).exit_code == 2


def test_a_trace_whose_replay_would_not_end_is_refused(tmp_path: Path) -> None:
    """One in which units of time are mixed, told before the first replay."""
    mixed = tmp_path / "mixed.jsonl"
    lines = [f'{{"at": {at}, "prompt_tokens": 10, "completion_tokens": 5}}' for at in (0, 1_763_942_400)]
    mixed.write_text("\n".join(lines))
    done = weir("--trace", mixed)
    assert done.returncode == 2
    assert "lasts 20416 days" in done.stderr
    assert "Traceback" not in done.stderr
