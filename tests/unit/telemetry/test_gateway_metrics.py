"""Promises of the catalogue: documented in full, no labels of people, events counted once in the right place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.access.keys import REASONS
from gateway.routing.admission.ticket import Reason
from gateway.telemetry.metrics import PARTS, UNKNOWN, GatewayMetrics
from gateway.types.failure import Cause
from gateway.types.tokens import Usage
from gateway.upstream.continuation import Outcome

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(weir_\w+)` \| (\w+) \| ([^|]+) \| (\w+) \| (.+) \|$", re.MULTILINE)


@pytest.fixture
def metrics() -> GatewayMetrics:
    """Return the metrics of a process that has done nothing yet."""
    return GatewayMetrics("1.2.3")


def scraped(metrics: GatewayMetrics) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Return all samples by name and labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    body, _ = metrics.render("application/openmetrics-text")
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_page_documents_every_metric(metrics: GatewayMetrics) -> None:
    """docs/metrics.md has one row per metric, in the same order, with its type, labels, fold and meaning."""
    rows = ROW.findall(PAGE.read_text())
    assert [name for name, *_ in rows] == list(metrics.families)
    for name, kind, labels, fold, meaning in rows:
        family = metrics.families[name]
        assert kind == family.kind, name
        assert tuple(re.findall(r"`(\w+)`", labels)) == family.labels, name
        assert fold == family.fold, name
        assert meaning.startswith(family.meaning), name


def test_page_explains_every_token_class() -> None:
    """The page says for each class of tokens what it is a part of."""
    text = PAGE.read_text()
    for part in Usage.__struct_fields__:
        assert f"| `{part}` |" in text


@pytest.mark.parametrize("place", ["docs/metrics.md", "dashboards/grafana/weir.json"])
def test_a_caller_too_slow_to_send_its_request_is_no_failure_of_a_backend(place: str) -> None:
    """It is told 408, with the status of a backend that took too long; what counts as failed tells them apart."""
    text = (PAGE.parents[1] / place).read_text().replace("\\", "")
    failed = [labels for labels in re.findall(r"weir_requests_total\{([^}]*)\}", text) if "timeout" in labels]
    assert failed
    for labels in failed:
        assert 'operation!="unread"' in labels


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("weir_auth_failures_total", {*REASONS.values(), "malformed"}),
        ("weir_admission_refusals_total", {reason.value for reason in Reason}),
        ("weir_continuations_total", {outcome.value for outcome in Outcome}),
    ],
)
def test_page_names_what_a_label_may_say(name: str, words: set[str]) -> None:
    """Whoever writes an alert on a word finds that word."""
    (meaning,) = (row[-1] for row in ROW.findall(PAGE.read_text()) if row[0] == name)
    assert words <= set(re.findall(r"`(\w+)`", meaning))


def test_page_names_only_metrics_that_exist(metrics: GatewayMetrics) -> None:
    """The alerts and hints of the page speak of metrics that exist."""
    for name in re.findall(r"\bweir_\w+", PAGE.read_text()):
        assert name in metrics.families, name


def test_no_label_names_a_person(metrics: GatewayMetrics) -> None:
    """No metric is labelled by team, key, user or application."""
    labels = {label for family in metrics.families.values() for label in family.labels}
    assert labels.isdisjoint({"team", "key", "key_id", "user", "app", "session"})


def test_names_follow_prometheus(metrics: GatewayMetrics) -> None:
    """Counters and nothing else end in ``_total``; histograms of time end in ``_seconds``."""
    for name, family in metrics.families.items():
        assert name.endswith("_total") == (family.kind == "counter"), name
        assert family.kind != "histogram" or name.endswith("_seconds"), name
        assert family.meaning.endswith("."), name


def test_idle_gateway_can_be_scraped(metrics: GatewayMetrics) -> None:
    """Before anything happened a scrape is valid and names the build."""
    assert scraped(metrics)["weir_build_info"] == {(("version", "1.2.3"),): 1}


def test_request_is_counted(metrics: GatewayMetrics) -> None:
    """A request counts under its operation, model and status, with its duration."""
    metrics.request("chat", "qwen/qwen3-32b", "ok", 0.3)
    metrics.request("chat", "", "not_found", 0.001)
    found = scraped(metrics)
    assert found["weir_requests_total"] == {
        (("model", "qwen/qwen3-32b"), ("operation", "chat"), ("status", "ok")): 1,
        (("model", UNKNOWN), ("operation", "chat"), ("status", "not_found")): 1,
    }
    assert found["weir_request_duration_seconds_sum"][(("model", "qwen/qwen3-32b"), ("operation", "chat"))] == 0.3


def test_answer_gives_tokens_and_pace(metrics: GatewayMetrics) -> None:
    """An answer counts its tokens by class, its first token and the mean time between tokens."""
    metrics.answer("m", "own/fp8", Usage(100, 11, cache_read=60, reasoning=4), 0.25, 2.0)
    found = scraped(metrics)
    assert {dict(labels)["class"]: count for labels, count in found["weir_tokens_total"].items()} == {
        "prompt": 100,
        "completion": 11,
        "cache_read": 60,
        "reasoning": 4,
    }
    where = (("endpoint", "own/fp8"), ("model", "m"))
    assert found["weir_time_to_first_token_seconds_sum"][where] == 0.25
    assert found["weir_inter_token_seconds_sum"][where] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("usage", "ttft", "generation"),
    [(Usage(5, 1), 0.1, 0.0), (Usage(5, 0), None, 0.0), (Usage(5, 9), 0.1, 0.0), (Usage(5, 1), 0.1, 0.5)],
    ids=["one token", "no output", "in one piece", "one token over time"],
)
def test_answer_without_pace_has_none(
    metrics: GatewayMetrics, usage: Usage, ttft: float | None, generation: float
) -> None:
    """An answer of one piece, one token or none says nothing about the time between tokens."""
    metrics.answer("m", "own", usage, ttft, generation)
    found = scraped(metrics)
    assert "weir_inter_token_seconds_sum" not in found
    assert ("weir_time_to_first_token_seconds_sum" in found) == (ttft is not None)


COUNTS = st.integers(0, 2**40)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.builds(Usage, *[COUNTS] * 9)), max_size=20))
def test_tokens_are_the_sum_of_all_usage(answers: list[tuple[str, Usage]]) -> None:
    """For every model and class the counter is exactly the sum over the answers' usage, as in the ledger."""
    metrics = GatewayMetrics("1")
    expected: dict[tuple[str, str], int] = {}
    for model, usage in answers:
        metrics.answer(model, "own", usage, None, 0)
        for part in Usage.__struct_fields__:
            expected[model, part] = expected.get((model, part), 0) + getattr(usage, part)
    found = {labels: cell[0] for labels, cell in metrics.tokens.samples().items()}
    assert {key: count for key, count in found.items() if count} == {k: count for k, count in expected.items() if count}


def test_parts_are_all_but_the_totals() -> None:
    """The classes counted as parts are the fields of the usage record after its two totals."""
    assert ("prompt", "completion", *PARTS) == Usage.__struct_fields__


@pytest.mark.parametrize("cause", [None, *Cause])
def test_attempt_has_one_outcome(metrics: GatewayMetrics, cause: Cause | None) -> None:
    """Every try has one outcome; only a backend's own failure counts against it."""
    metrics.attempt("gpu-a", cause)
    found = scraped(metrics)
    kept = {None: "ok", Cause.REFUSED: "refused", Cause.ABORTED: "aborted", Cause.HEDGED: "hedged"}
    outcome = kept.get(cause, "failed")
    assert found["weir_attempts_total"] == {(("backend", "gpu-a"), ("outcome", outcome)): 1}
    failures: dict[Any, float] = found.get("weir_upstream_failures_total", {})
    blamed = cause is not None and outcome == "failed"
    assert failures == ({(("backend", "gpu-a"), ("cause", cause)): 1} if blamed else {})


def test_values_kept_elsewhere_are_bound(metrics: GatewayMetrics) -> None:
    """Gauges and counters of other parts are read when scraped."""
    unshipped = [10]
    metrics.bind("weir_unshipped_bytes", lambda: unshipped[0])
    metrics.bind("weir_journal_bytes_total", lambda: 4_096)
    metrics.bind("weir_backend_up", lambda: {("gpu-a",): 1, ("gpu-b",): 0})
    unshipped[0] = 20
    found = scraped(metrics)
    assert found["weir_unshipped_bytes"] == {(): 20}
    assert found["weir_journal_bytes_total"] == {(): 4_096}
    assert found["weir_backend_up"] == {(("backend", "gpu-a"),): 1, (("backend", "gpu-b"),): 0}
