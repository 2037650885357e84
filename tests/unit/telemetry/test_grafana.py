"""Promises of the Grafana dashboard: every metric and label it asks for is exported, and no panel is broken."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.telemetry.metrics import GatewayMetrics

DASHBOARD: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "dashboards" / "grafana" / "weir.json").read_text(encoding="utf-8")
)
METRICS = GatewayMetrics("1").families
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SELECTOR = re.compile(r"\b(weir_\w+)(\{[^}]*\})?")
GROUPING = re.compile(r"\bby \(([^)]*)\)")


def queries() -> list[tuple[str, str, str]]:
    """Return title, expression and legend of every query."""
    return [(panel["title"], target["expr"], target["legendFormat"]) for panel in PANELS for target in panel["targets"]]


def family(series: str) -> str:
    """Return the metric a series belongs to."""
    for suffix in ("_bucket", "_count", "_sum"):
        base = series.removesuffix(suffix)
        if base != series and base in METRICS and METRICS[base].kind == "histogram":
            return base
    return series


@pytest.mark.parametrize(("title", "expression", "legend"), queries())
def test_query_asks_for_what_is_exported(title: str, expression: str, legend: str) -> None:
    """Every metric, selector label, grouping label and legend label of a query is in the catalogue."""
    known: set[str] = set()
    for series, selector in SELECTOR.findall(expression):
        assert family(series) in METRICS, (title, series)
        labels = {*METRICS[family(series)].labels, *(["le"] if series.endswith("_bucket") else [])}
        assert set(re.findall(r"(\w+)(?:=~|!=|!~|=)\"", selector)) <= labels, title
        known |= labels
    assert known or "{{" not in legend
    grouped = {label.strip() for labels in GROUPING.findall(expression) for label in labels.split(",")}
    assert grouped <= known, title
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= grouped, title


@pytest.mark.parametrize(("title", "expression", "legend"), queries())
def test_query_is_meaningful(title: str, expression: str, legend: str) -> None:
    """Counters are read as rates or increases, histograms as quantiles, and brackets close."""
    for series, _ in SELECTOR.findall(expression):
        metric = METRICS[family(series)]
        if metric.kind != "gauge":
            assert re.search(rf"(rate|increase)\({series}\b", expression), title
        if metric.kind == "histogram":
            assert "histogram_quantile(" in expression, title
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing), title


def test_variables_ask_for_what_is_exported() -> None:
    """The choices of model and backend come from labels that exist, and every variable used is declared."""
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    for variable in variables.values():
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
            assert asked is not None
            assert asked[2] in METRICS[asked[1]].labels
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(PANELS)))
    assert used == set(variables)


def test_every_metric_is_on_the_dashboard() -> None:
    """No metric is exported that nobody sees."""
    shown = {family(series) for _, expression, _ in queries() for series, _ in SELECTOR.findall(expression)}
    assert shown == set(METRICS)


def test_panels_are_explained_and_do_not_overlap() -> None:
    """Every panel has a title, a sentence and a place of its own within the grid; ids are unique."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["title"]
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)
