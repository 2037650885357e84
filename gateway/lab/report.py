"""Replays as people read them: rows of a table, and the page with charts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.lab.figures import Figures
from gateway.lab.page import Bar as PageBar
from gateway.lab.page import Chart, Page, Table
from gateway.lab.suite import Bar
from gateway.lab.tasks import Done
from gateway.stepmodel import PROFILES

COLUMNS: Final = (
    "policy",
    "seed",
    "requests",
    "rejected",
    "goodput/s",
    "SLO",
    "TTFT p50",
    "p90",
    "p99",
    "ITL p99",
    "hits",
    "ideal",
    "USD/1k",
    "Jain",
    "TTFT error",
)
BAR_COLUMNS: Final = ("bar", "trace", "profile", "rate", "value", "spread", "limit", "", "note")
_CHARTS: Final = (
    ("goodput_per_s", "Goodput: requests within the SLO per second"),
    ("slo_attainment", "Share of requests within the SLO"),
    ("ttft_p90_s", "Time to first token, 90th percentile, seconds"),
    ("itl_p99_s", "Mean inter-token time of requests, 99th percentile, seconds"),
    ("hit_ratio", "Share of prompt tokens found in the prefix caches"),
    ("usd_per_1k_requests", "USD per 1,000 served requests"),
)


def row(found: Figures) -> tuple[str, ...]:
    """Return the cells of one replay under ``COLUMNS``."""
    return (
        found.policy,
        str(found.seed),
        str(found.requests),
        str(found.rejected),
        f"{found.goodput_per_s:.2f}",
        f"{found.slo_attainment:.1%}",
        _seconds(found.ttft_p50_s),
        _seconds(found.ttft_p90_s),
        _seconds(found.ttft_p99_s),
        _seconds(found.itl_p99_s, 1_000.0, " ms"),
        _share(found.hit_ratio),
        _share(found.ideal_hit_ratio),
        "-" if found.usd_per_1k_requests is None else f"{found.usd_per_1k_requests:.3f}",
        "-" if found.jain is None else f"{found.jain:.3f}",
        _share(found.ttft_error),
    )


def page(title: str, command: str, facts: Sequence[str], all_: Sequence[Figures]) -> Page:
    """Return the page of ``all_``, one bar per policy in the order of their first row."""
    policies = list(dict.fromkeys(found.policy for found in all_))
    charts = []
    for name, caption in _CHARTS:
        bars = []
        for policy in policies:
            values = [getattr(found, name) for found in all_ if found.policy == policy]
            bars.append(PageBar(policy, tuple(value for value in values if value is not None)))
        charts.append(Chart(caption, tuple(bars)))
    table = Table("Replays", COLUMNS, tuple(row(found) for found in all_), {})
    return Page(title, tuple(facts), command, (table,), tuple(charts))


def bar_row(bar: Bar) -> tuple[str, ...]:
    """Return the cells of one bar under ``BAR_COLUMNS``."""
    return (
        bar.bar,
        bar.trace,
        bar.profile,
        f"{bar.rate:.3g}",
        f"{bar.value:.3f}",
        f"{bar.least:.3f} to {bar.most:.3f}",
        f"{'at least' if bar.at_least else 'at most'} {bar.limit:g}",
        "met" if bar.met else "missed",
        bar.note,
    )


def bars_page(
    command: str, seeds: Sequence[int], profiles: Sequence[str], bars: Sequence[Bar], replays: Sequence[Done]
) -> Page:
    """Return the page of a suite: the bars, charts of what they compare, and every replay behind them."""
    facts = [
        f"Seeds: {', '.join(map(str, seeds))}; values are means over them, with the least and the most",
        "Fleet: 4 replicas; " + "; ".join(f"{name}: {PROFILES[name].description}" for name in profiles),
        "SLO: first token within 2 s and 1 s per 8,000 uncached prompt tokens, 60 ms between tokens on average",
        "Knee: the rate at which the best peer without admission keeps the SLO for 65 % of the requests",
    ]
    marks = {(at, 7): bar.met for at, bar in enumerate(bars)}
    tables = (
        Table("Bars", BAR_COLUMNS, tuple(bar_row(bar) for bar in bars), marks),
        Table(
            "Replays",
            ("trace", "profile", "rate", "faults", "gateways", "admission", *COLUMNS),
            tuple(_replay_row(done) for done in replays),
            {},
        ),
    )
    charts = []
    for name in dict.fromkeys(bar.bar for bar in bars):
        found = [bar for bar in bars if bar.bar == name]
        shown = tuple(PageBar(f"{bar.trace}, {bar.profile}", (bar.least, bar.most), bar.value) for bar in found)
        charts.append(Chart(name, shown, found[0].limit))
    return Page("Weir lab: the bars of routing", tuple(facts), command, tables, tuple(charts))


def _replay_row(done: Done) -> tuple[str, ...]:
    task = done.task
    return (
        task.source.path.name.partition(".")[0],
        task.setting.profile.name,
        f"{task.rate:.3g}",
        ", ".join(task.setting.faults) or "-",
        str(task.setting.gateways),
        "on" if task.setting.admission else "off",
        *row(done.figures),
    )


def _seconds(value: float | None, scale: float = 1.0, unit: str = " s") -> str:
    return "-" if value is None else f"{value * scale:.3g}{unit}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
