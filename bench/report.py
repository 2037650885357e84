"""What a run leaves behind: `latest.json` for the judge and a dated page for readers.

Files are replaced whole. The page names the machine's parts but no paths, hosts or users.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.check import judge
from bench.contestants.base import ROOT
from bench.figures import KINDS, Figure, as_json

DOCS: Final = ROOT / "docs" / "bench"
SCHEMA: Final = 1

_CPU: Final = (
    ("json_cpu_us", "JSON"),
    ("calm_cpu_us", "JSON, 100 a second"),
    ("burst_cpu_us", "burst"),
    ("drip_cpu_us", "drip"),
)
_SERVING: Final = (
    ("json_serving_cpu_us", "JSON"),
    ("calm_serving_cpu_us", "JSON, 100 a second"),
    ("burst_serving_cpu_us", "burst"),
    ("drip_serving_cpu_us", "drip"),
)
_DELAY: Final = (
    ("lone_p50_us", "alone"),
    ("lone_added_us", "added"),
    ("first_chunk_ms", "first chunk"),
    ("first_chunk_added_ms", "added"),
    ("chunk_p50_ms", "chunk p50"),
    ("chunk_added_p50_ms", "added"),
    ("chunk_p99_ms", "chunk p99"),
    ("chunk_added_p99_ms", "added"),
)
_MEMORY: Final = (
    ("idle_mb", "idle"),
    ("streams_mb", "1,000 open streams"),
    ("slow_reader_mb", "reader that does not read"),
)
_SATURATED: Final = (
    ("json_per_s", "answers"),
    ("json_p99_ms", "p99"),
    ("shipper_us_per_record", "shipper per record"),
)
_TRANSLATED: Final = (
    ("translated_answer_us", "a JSON answer"),
    ("translated_chunk_us", "a chunk"),
)


@dataclass(slots=True)
class Entry:
    """One contestant in the report; `direct` is the mock without a gateway."""

    title: str
    version: str
    setup: str
    figures: dict[str, Figure] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """A whole run. `date` is the UTC time of its beginning, `seconds` how long it took."""

    date: str
    quick: bool
    seconds: float
    machine: Mapping[str, object]
    versions: Mapping[str, str]
    method: Mapping[str, object]
    contestants: dict[str, Entry] = field(default_factory=dict)


def document(run: Run) -> dict[str, object]:
    """Returns the run as the plain object that `latest.json` holds."""
    return {
        "schema": SCHEMA,
        "date": run.date,
        "quick": run.quick,
        "seconds": round(run.seconds),
        "machine": dict(run.machine),
        "versions": dict(run.versions),
        "method": dict(run.method),
        "contestants": {
            name: {
                "title": entry.title.replace("*", ""),
                "version": entry.version,
                "setup": entry.setup,
                "failures": entry.failures,
                "figures": as_json(entry.figures),
            }
            for name, entry in run.contestants.items()
        },
    }


def cell(figure: Figure | None, decimals: int) -> str:
    """Returns a table cell: the median, and the range when it is not a point at this precision."""
    if figure is None:
        return "–"
    median, low, high = (f"{value:,.{decimals}f}" for value in (figure.median, figure.min, figure.max))
    return median if low == high else f"{median} ({low}–{high})"


def _table(run: Run, columns: Sequence[tuple[str, str]]) -> list[str]:
    """Returns a Markdown table with a row per contestant that has any of the columns' figures."""
    heads = [f"{title}, {KINDS[name].unit}" for name, title in columns]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(columns)]
    for entry in run.contestants.values():
        if any(name in entry.figures for name, _ in columns):
            cells = [cell(entry.figures.get(name), KINDS[name].decimals) for name, _ in columns]
            lines.append(f"| {entry.title} | " + " | ".join(cells) + " |")
    return lines


def _bars(run: Run) -> list[str]:
    """Returns the verdicts as a Markdown table."""
    lines = ["| bar | measured | limit | |", "|---|---:|---:|---|"]
    for seen in judge(document(run)):
        shown = ["–" if value is None else f"{value:,.2f} {seen.unit}" for value in (seen.measured, seen.limit)]
        lines.append(
            f"| {seen.bar.name} | {shown[0]} | {shown[1]} | {', '.join(filter(None, (seen.state, seen.note)))} |"
        )
    return lines


def page(run: Run) -> str:
    """Returns the dated page."""
    lines = [f"# Benchmark of {run.date[:10]}{' (quick run)' if run.quick else ''}", ""]
    lines += [
        f"Begun {run.date}, took {run.seconds / 60:.0f} minutes. How it is measured: [README.md](README.md).",
        "A cell is the median over the rounds, with the smallest and the largest round behind it.",
        "",
    ]
    lines += ["## CPU of the gateway's processes per request", "", *_table(run, _CPU), ""]
    serving = _table(run, _SERVING)
    if len(serving) > 2:
        lines += ["Without the shipper, which moves records to the ledger off the request's path:", ""]
        lines += [*serving, ""]
    lines += ["## Delay", "", *_table(run, _DELAY), ""]
    lines += ["## Memory", "", *_table(run, _MEMORY), ""]
    lines += ["## Saturated, 32 connections, and the shipper", "", *_table(run, _SATURATED), ""]
    translated = _table(run, _TRANSLATED)
    if len(translated) > 2:
        lines += ["## CPU of another dialect beyond the chat form, the dearest case", "", *translated, ""]
    lines += ["## Bars", "", *_bars(run), ""]
    lines += ["## Contestants", ""]
    for entry in run.contestants.values():
        lines.append(f"* {' '.join((entry.title, entry.version)).strip()}: {entry.setup}.")
    lines += ["", "## Machine, versions, sizes", ""]
    for facts in (run.machine, run.versions, run.method):
        lines += [f"* {name.replace('_', ' ')}: {value}" for name, value in facts.items()]
    failures = [f"* {name}: {text}" for name, entry in run.contestants.items() for text in entry.failures]
    if failures:
        lines += ["", "## What failed", "", *failures]
    return "\n".join(lines) + "\n"


def write(run: Run, folder: Path) -> tuple[Path, Path]:
    """Writes `latest.json` and the dated page into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    latest, dated = folder / "latest.json", folder / f"{run.date[:10]}.md"
    for path, text in (
        (latest, json.dumps(document(run), indent=1, ensure_ascii=False) + "\n"),
        (dated, page(run)),
    ):
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(path)
    return latest, dated
