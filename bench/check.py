"""The judge: compares a run with the bars and exits 1 when one is missed or its figure is missing.

`python bench/check.py [FILE]` reads `docs/bench/latest.json` unless told otherwise. It stands alone, on the
standard library, so it runs before any environment is made. Times are judged by their median over the
rounds, memory by its worst round; a part that failed in any round fails the whole. A file that cannot be
read exits 2.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LATEST: Final = Path(__file__).resolve().parents[1] / "docs" / "bench" / "latest.json"


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise: a figure of Weir that must not exceed a number or a rival's figure."""

    name: str
    figure: str
    limit: float
    """In the figure's unit, or the factor on the rival's figure."""
    rival: str | None = None
    rival_figure: str = ""
    statistic: str = "median"
    beside: str = ""
    """A figure of Weir that is told beside the verdict but does not count."""
    difference: bool = False
    """Whether the figure is a difference, which noise can make negative."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one bar was kept. `measured` and `limit` are in `unit`, None when a figure is missing."""

    bar: Bar
    measured: float | None
    limit: float | None
    unit: str
    note: str = ""

    @property
    def state(self) -> str:
        """`met`, `missed` or `missing`."""
        if self.measured is None or self.limit is None:
            return "missing"
        return "met" if self.measured <= self.limit else "missed"


BARS: Final[Sequence[Bar]] = (
    Bar(
        "JSON: CPU per request beside sglang-router",
        "json_serving_cpu_us",
        1.0,
        rival="sglang-router",
        rival_figure="json_cpu_us",
        beside="json_cpu_us",
    ),
    Bar(
        "drip: CPU per stream beside Envoy",
        "drip_serving_cpu_us",
        1.0,
        rival="envoy",
        rival_figure="drip_cpu_us",
        beside="drip_cpu_us",
    ),
    Bar("a chunk's stay in the gateway, p50", "chunk_added_p50_ms", 2.0, beside="chunk_p50_ms", difference=True),
    Bar("a chunk's stay in the gateway, p99", "chunk_added_p99_ms", 10.0, beside="chunk_p99_ms", difference=True),
    Bar("shipper: CPU per record", "shipper_us_per_record", 15.0),
    Bar("another dialect: CPU of a JSON answer", "translated_answer_us", 60.0, difference=True),
    Bar("another dialect: CPU of a chunk", "translated_chunk_us", 10.0, difference=True),
    Bar("memory, idle worker", "idle_mb", 100.0, statistic="max"),
    Bar("memory, 1,000 open streams", "streams_mb", 200.0, statistic="max"),
    Bar("memory, one reader that does not read", "slow_reader_mb", 10.0, statistic="max"),
)
"""The bars of the design.

Serving CPU is all CPU of Weir's processes without the shipper, which has its own bar. A chunk's stay is its
delay from the backend's write to the client's read, less the same delay without a gateway in the same round.
Another dialect's CPU is what it takes beyond the chat form, in the dearest case of `bench.translation`.
"""

_BESIDE: Final[Mapping[str, str]] = {
    "json_serving_cpu_us": "with the shipper",
    "drip_serving_cpu_us": "with the shipper",
    "chunk_added_p50_ms": "from backend to client",
    "chunk_added_p99_ms": "from backend to client",
}
"""What the figure told beside a verdict is."""


def _figure(run: Mapping[str, object], contestant: str, figure: str) -> Mapping[str, object] | None:
    """Returns a contestant's figure, or None when any part of the way to it is missing."""
    found: object = run
    for key in ("contestants", contestant, "figures", figure):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _number(figure: Mapping[str, object] | None, statistic: str, *, difference: bool = False) -> float | None:
    """Returns a statistic of a figure when it is a number that can have been measured."""
    value = figure.get(statistic) if figure is not None else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) and (difference or value >= 0) else None


def judge(run: Mapping[str, object]) -> list[Verdict]:
    """Returns the verdict on every bar."""
    verdicts = []
    for bar in BARS:
        own = _figure(run, "weir", bar.figure)
        measured = _number(own, bar.statistic, difference=bar.difference)
        limit: float | None = bar.limit
        if bar.rival is not None:
            rival = _number(_figure(run, bar.rival, bar.rival_figure), bar.statistic)
            limit = None if rival is None else bar.limit * rival
        unit = str((own or {}).get("unit", ""))
        beside = _number(_figure(run, "weir", bar.beside), bar.statistic) if bar.beside else None
        note = "" if beside is None else f"{beside:,.2f} {unit} {_BESIDE[bar.figure]}"
        verdicts.append(Verdict(bar, measured, limit, unit, note))
    return verdicts


def failures(run: Mapping[str, object]) -> list[str]:
    """Returns what of Weir could not be measured in some round: its other rounds do not make up for it."""
    contestants = run.get("contestants")
    weir = contestants.get("weir") if isinstance(contestants, Mapping) else None
    told = weir.get("failures") if isinstance(weir, Mapping) else None
    return [str(text) for text in told] if isinstance(told, list) else []


def table(verdicts: Sequence[Verdict]) -> str:
    """Returns the verdicts as lines of text."""

    def shown(value: float | None, unit: str) -> str:
        return "-" if value is None else f"{value:,.2f} {unit}"

    lines = [f"{'bar':<46} {'measured':>13} {'limit':>13}  state"]
    for seen in verdicts:
        measured, limit = shown(seen.measured, seen.unit), shown(seen.limit, seen.unit)
        lines.append(f"{seen.bar.name:<46} {measured:>13} {limit:>13}  {seen.state:<8} {seen.note}".rstrip())
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Reads a run, prints the table, returns the exit status."""
    path = Path(arguments[0]) if arguments else LATEST
    try:
        run = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        print(f"{path} cannot be read: {error}; `make bench` writes it", file=sys.stderr)
        return 2
    if not isinstance(run, dict):
        print(f"{path} is not a run: expected an object", file=sys.stderr)
        return 2
    verdicts = judge(run)
    print(f"{run.get('date', 'undated')}{', quick run' if run.get('quick') else ''}")
    print(table(verdicts))
    failed = failures(run)
    for text in failed:
        print(f"failed: {text}")
    return 0 if not failed and all(seen.state == "met" for seen in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
