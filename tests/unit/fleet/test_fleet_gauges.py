"""Gauges out of real engines' Prometheus pages."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.engines.catalogue import ENGINES
from gateway.engines.kind import MetricNames
from gateway.fleet.gauges import Gauges, read

VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-32B"} 3.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-32B"} 4.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-32B"} 1.0
vllm:num_requests_waiting{engine="1",model_name="Qwen/Qwen3-32B"} 2.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="Qwen/Qwen3-32B",reason="capacity"} 1.0
vllm:num_requests_waiting_by_reason{engine="1",model_name="Qwen/Qwen3-32B",reason="deferred"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-32B"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="Qwen/Qwen3-32B"} 0.75
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="Qwen/Qwen3-32B"} 0.0
"""
VLLM_OLD = b"""\
vllm:num_requests_running{model_name="m"} 2
vllm:num_requests_waiting{model_name="m"} 0
vllm:gpu_cache_usage_perc{model_name="m"} 0.125
"""
SGLANG = b"""\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="Qwen/Qwen3-8B",dp_rank="0"} 12.0
sglang:num_running_reqs{model_name="Qwen/Qwen3-8B",dp_rank="1"} 8.0
sglang:num_queue_reqs{model_name="Qwen/Qwen3-8B",dp_rank="0"} 5.0
sglang:token_usage{model_name="Qwen/Qwen3-8B",dp_rank="0"} 0.5
sglang:token_usage{model_name="Qwen/Qwen3-8B",dp_rank="1"} 0.9
"""
TGI = b"""\
# TYPE tgi_queue_size gauge
tgi_queue_size 4

# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 16

# TYPE tgi_batch_current_max_tokens gauge
tgi_batch_current_max_tokens 4000

# TYPE tgi_batch_max_total_tokens gauge
tgi_batch_max_total_tokens 16000
"""
LLAMACPP = b"""\
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 4
# HELP llamacpp:requests_deferred Number of requests deferred.
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 2
"""
LLAMACPP_OLD = LLAMACPP + b"llamacpp:kv_cache_usage_ratio 0.5\nllamacpp:kv_cache_tokens 100\n"


@pytest.mark.parametrize(
    ("kind", "page", "expected"),
    [
        ("vllm", VLLM, Gauges(7, 3, 0.75)),
        ("vllm", VLLM_OLD, Gauges(2, 0, 0.125)),
        ("sglang", SGLANG, Gauges(20, 5, 0.9)),
        ("tgi", TGI, Gauges(16, 4, 0.25, 16_000)),
        ("llamacpp", LLAMACPP, Gauges(4, 2, None)),
        ("llamacpp", LLAMACPP_OLD, Gauges(4, 2, 0.5)),
    ],
)
def test_each_engines_page_is_understood(kind: str, page: bytes, expected: Gauges) -> None:
    """New and old names, label sets summed, KV usage the highest, a neighbour with a longer name left alone."""
    assert read(page, ENGINES[kind].metrics) == expected
    assert read(page.replace(b"\n", b"\r\n"), ENGINES[kind].metrics) == expected


def test_another_engines_page_says_nothing() -> None:
    """A page without the wanted names is empty, not zero."""
    found = read(TGI, ENGINES["vllm"].metrics)
    assert found == Gauges(None, None, None)
    assert found.empty
    assert read(VLLM, MetricNames()).empty


@pytest.mark.parametrize(
    "line",
    [
        b'vllm:num_requests_running{model_name="a}b{c,\\"d\\" e"} 5',
        b"vllm:num_requests_running 5",
        b"vllm:num_requests_running\t5 1700000000000",
        b'vllm:num_requests_running{} 5.0 # {trace="1"} 0.5',
        b'vllm:num_requests_running{a="1",} 5e0',
    ],
)
def test_forms_of_a_sample(line: bytes) -> None:
    """Quotes and braces inside labels, timestamps and exemplars do not confuse the value."""
    assert read(line, ENGINES["vllm"].metrics).running == 5


@pytest.mark.parametrize(
    "line",
    [
        b"vllm:num_requests_running NaN",
        b"vllm:num_requests_running +Inf",
        b"vllm:num_requests_running -3",
        b"vllm:num_requests_running 1e300",
        b"vllm:num_requests_running",
        b"vllm:num_requests_running ",
        b'vllm:num_requests_running{model="x} 5',
        b"vllm:num_requests_running five",
        b"vllm:num_requests_running\n5",
        b"# vllm:num_requests_running 5",
        b"x_vllm:num_requests_running 5",
    ],
)
def test_garbage_is_nothing(line: bytes) -> None:
    """A value that is no count is not taken for one."""
    assert read(line, ENGINES["vllm"].metrics).running is None


def test_one_bad_label_set_does_not_hide_the_others() -> None:
    """NaN of one engine leaves the sum of the others."""
    page = b'vllm:num_requests_running{engine="0"} NaN\nvllm:num_requests_running{engine="1"} 2\n'
    assert read(page, ENGINES["vllm"].metrics).running == 2


def test_a_neighbour_with_a_longer_name_may_come_first() -> None:
    """The wanted metric is found behind it; a stray sample behind the metric's group is not part of it."""
    page = (
        b'vllm:num_requests_running_by_reason{reason="a"} 9\nvllm:num_requests_running_by_reason 9\n'
        b'vllm:num_requests_running{engine="0"} 3\nvllm:num_requests_running{engine="1"} 4\n'
        b"# TYPE x gauge\nx 1\nvllm:num_requests_running 100\n"
    )
    assert read(page, ENGINES["vllm"].metrics).running == 7


def test_a_share_above_one_is_one() -> None:
    """KV usage is a share."""
    assert read(b"vllm:kv_cache_usage_perc 1.5", ENGINES["vllm"].metrics).kv_usage == 1.0


def test_a_batch_without_a_limit_has_no_usage() -> None:
    """No division by a capacity of zero."""
    page = b"tgi_batch_current_max_tokens 10\ntgi_batch_max_total_tokens 0\n"
    assert read(page, ENGINES["tgi"].metrics).kv_usage is None


pieces = st.sampled_from(
    [
        b"\n", b" ", b"{", b"}", b'"', b"\\", b",", b"=", b"#", b"NaN", b"1e999", b"-", b"3", b"0.5", b"\x00", b"\xff",
        b"vllm:num_requests_running", b"vllm:kv_cache_usage_perc", b'{model_name="m"} ', b"\r\n", b"_by_reason",
    ]
)  # fmt: skip


@given(st.lists(pieces, max_size=40).map(b"".join) | st.binary(max_size=200))
@example(b"\nvllm:num_requests_running{" * 3)
def test_no_page_breaks_the_reader(page: bytes) -> None:
    """Whatever a backend sends, the result is counts and shares in range, or nothing."""
    found = read(page, ENGINES["vllm"].metrics)
    assert found.running is None or 0 <= found.running <= 10**18
    assert found.kv_usage is None or 0.0 <= found.kv_usage <= 1.0


def test_a_page_made_to_be_slow_is_bounded() -> None:
    """A hostile page of repeated names is read up to a bound: the sum shows that reading stopped."""
    page = b'vllm:num_requests_running{a="b"} 1\n' * 20_000
    assert read(page, ENGINES["vllm"].metrics).running == 256
