"""An endpoint's track record: what counts, for how long, and that a reload keeps it."""

from __future__ import annotations

import pytest

from gateway.fleet.build import build
from gateway.fleet.track import Track
from gateway.types.failure import Cause, Failure
from tests.fakes.fleet import MODEL, backend, endpoint, model, price_id, snapshot


@pytest.mark.parametrize(
    ("failure", "counted"),
    [
        (None, (1, 0)),
        (Failure(Cause.ERROR, "x", 500), (0, 1)),
        (Failure(Cause.ERROR, "x", 401), (0, 1)),
        (Failure(Cause.CUT, "x", 200), (0, 1)),
        (Failure(Cause.CONNECT, "x"), (0, 1)),
        (Failure(Cause.ERROR, "x", 403), (0, 0)),
        (Failure(Cause.REFUSED, "x", 400), (0, 0)),
        (Failure(Cause.OVERLOADED, "x", 429), (0, 0)),
        (Failure(Cause.ABORTED, "x"), (0, 0)),
    ],
)
def test_what_counts_against_an_endpoint(failure: Failure | None, counted: tuple[int, int]) -> None:
    """Errors and broken answers do; what the caller did, volume and callers who left do not."""
    track = Track()
    track.ended(failure, 1_000.0)
    assert track.uptime(1_000.0) == counted
    assert track.uptime(1_000.0 + 1_700) == counted
    assert track.uptime(1_000.0 + 1_900) == (0, 0)


def test_percentiles_of_five_minutes() -> None:
    """p90 is what 90 % of requests do better than: a long wait, a low speed; after five minutes all is forgotten."""
    track = Track()
    assert track.speeds(600.0).latency is None
    for number in range(1, 101):
        track.answered(number / 100, 1.0, number, 600.0)
    speeds = track.speeds(610.0)
    assert speeds.latency is not None
    assert speeds.throughput is not None
    assert speeds.latency["p90"] == pytest.approx(0.90, rel=0.05)
    assert speeds.throughput["p90"] == pytest.approx(11, rel=0.1)
    assert speeds.latency["p50"] < speeds.latency["p75"] < speeds.latency["p99"]
    assert speeds.throughput["p50"] > speeds.throughput["p99"]
    assert track.speeds(600.0 + 360).latency is None


def test_tool_calls_are_told_from_two_hundred_on() -> None:
    """Few answers say nothing; the share is of the last two hours; an answer without calls is none."""
    track = Track()
    for number in range(200):
        assert track.tool_success(1_000.0) is None
        track.called(number % 10 != 0, 1_000.0)
        track.called(None, 1_000.0)
    assert track.tool_success(1_000.0) == pytest.approx(0.9)
    assert track.tool_success(1_000.0 + 9_000) is None


def test_a_reload_keeps_the_record_of_an_endpoint() -> None:
    """A new configuration does not make a bad endpoint good, nor another one inherit its record."""
    specs = [backend("a", provider="acme"), backend("b", provider="budget")]
    first = build(snapshot(specs), None, price_id)
    again = build(snapshot([specs[0], backend("b", provider="other")]), first, price_id)
    old, new = first.models[MODEL].endpoints, again.models[MODEL].endpoints
    assert new[0].track is old[0].track
    assert new[1].track is not old[1].track


def test_what_an_endpoint_supports_is_what_all_its_replicas_do() -> None:
    """Parameters come from the engine unless the configuration says otherwise; names are slugs of every width."""
    specs = [backend("a", region="eu"), backend("b", region="eu")]
    ends = [endpoint(specs[0], quantization="FP8"), endpoint(specs[1], quantization="FP8")]
    made = build(snapshot(specs, [model(ends)]), None, price_id).models[MODEL]
    assert {"tools", "structured_outputs", "top_k", "max_tokens"} <= made.endpoints[0].parameters
    assert made.candidates[0].names == {
        "own",
        "own/fp8",
        "own/eu",
        "own@eu",
        "own/fp8@eu",
        "own/fp8@eu/a",
        "a",
    }
    ends[1] = endpoint(specs[1], quantization="FP8", supported_parameters=("seed", "stop"), tool_quality=0.7)
    made = build(snapshot(specs, [model(ends)]), None, price_id).models[MODEL]
    assert made.endpoints[0].parameters == {"seed", "stop"}
    assert made.endpoints[0].tool_quality == 0.7
