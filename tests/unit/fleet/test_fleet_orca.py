"""Load that an engine reports beside an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet import orca
from gateway.fleet.load import ReplicaLoad


@pytest.mark.parametrize(
    "value",
    [
        b'JSON {"named_metrics": {"kv_cache_usage_perc": 0.25, "num_requests_waiting": 3.0}}',
        b"TEXT named_metrics.kv_cache_usage_perc=0.25, named_metrics.num_requests_waiting=3.0",
        b"TEXT num_requests_waiting=3,kv_cache_usage_perc=2.5e-1,cpu_utilization=0.7",
    ],
)
def test_both_forms_are_read(value: bytes) -> None:
    """JSON and text, in any order, with anything else beside."""
    assert orca.read(value) == (3, 0.25)


@given(st.binary(max_size=200))
def test_any_header_gives_numbers_or_nothing(value: bytes) -> None:
    """A header is foreign input: nothing in it raises, and a share is a share."""
    waiting, usage = orca.read(b"TEXT kv_cache_usage_perc=" + value)
    assert waiting is None or waiting >= 0
    assert usage is None or 0.0 <= usage <= 1.0


def test_a_hint_changes_what_is_known_of_the_queue_only_where_there_is_a_scrape_to_correct() -> None:
    """Without a scrape nobody would notice that the hint has grown old."""
    load = ReplicaLoad()
    load.hinted(4, 0.5)
    assert (load.waiting, load.kv_usage) == (None, None)
    load.reported(2, 0, 0.1, 1.0)
    load.hinted(4, 0.5)
    assert (load.waiting, load.kv_usage) == (4, 0.5)
    load.hinted(None, None)
    assert (load.waiting, load.kv_usage) == (4, 0.5)
    load.forget_gauges()
    assert (load.waiting, load.kv_usage) == (None, None)
