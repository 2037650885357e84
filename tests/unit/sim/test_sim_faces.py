"""What differs between the faces: metrics, usage, error words. Shapes over HTTP are in the integration tests."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.sim import KINDS, Kind, SimConfig, Timing
from gateway.sim.counters import Exposition, Histogram
from gateway.sim.engine import Engine, GenerationRun
from gateway.sim.faces import face_of
from gateway.sim.faces.face import Face
from gateway.sim.text import Prompt


class Nobody:
    """A reader that ignores everything."""

    def on_first(self) -> None:
        """Ignore."""

    def on_steps(self, first: int, last: int) -> None:
        """Ignore."""

    def on_limit(self) -> None:
        """Ignore."""

    def on_end(self) -> None:
        """Ignore."""

    def flush(self) -> None:
        """Ignore."""


def face(kind: Kind, **fields: Any) -> Face:
    """Return the face of ``kind`` over an engine on the running loop."""
    config = SimConfig(kind=kind, **fields)
    return face_of(config, Engine(config, asyncio.get_running_loop()))


def samples(page: bytes | None) -> dict[str, float]:
    """Return the samples of ``page`` by name, summed over their labels."""
    assert page is not None
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


@pytest.mark.parametrize(
    ("kind", "running", "waiting"),
    [
        ("vllm", "vllm:num_requests_running", "vllm:num_requests_waiting"),
        ("sglang", "sglang:num_running_reqs", "sglang:num_queue_reqs"),
        ("tgi", "tgi_batch_current_size", "tgi_queue_size"),
    ],
)
async def test_gauges_show_what_runs_and_waits(kind: Kind, running: str, waiting: str) -> None:
    """The load gauges of each engine follow its slots and queue."""
    shown = face(kind, timing=Timing(base_ttft=5, slots=2, queue_limit=9))
    runs = [GenerationRun(shown.engine, Prompt("a b c", 3), 5, Nobody(), streamed=True) for _ in range(5)]
    for run in runs:
        shown.engine.submit(run)
    page = samples(shown.metrics())
    assert (page[running], page[waiting]) == (2.0, 3.0)
    for run in runs:
        run.stop()
    page = samples(shown.metrics())
    assert (page[running], page[waiting]) == (0.0, 0.0)


async def test_vllm_metrics_have_the_names_and_labels_of_its_current_version() -> None:
    """What a scraper of vLLM 0.32 looks for is there, with model and engine; the old names are not."""
    page = face("vllm", models=('Qwen/"Q"', "alias"), kv_tokens=160_000).metrics()
    families = list(text_string_to_metric_families((page or b"").decode()))
    labelled = [sample for family in families for sample in family.samples]
    assert all(sample.labels["model_name"] == 'Qwen/"Q"' for sample in labelled)
    assert all(sample.labels["engine"] == "0" for sample in labelled)
    names = {sample.name for sample in labelled}
    assert {
        "vllm:kv_cache_usage_perc",
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "vllm:generation_tokens_total",
        "vllm:admission_rejections_total",
        "vllm:time_to_first_token_seconds_bucket",
        "vllm:inter_token_latency_seconds_count",
        "vllm:num_preemptions_total",
    } <= names
    assert "vllm:gpu_cache_usage_perc" not in names
    info = next(sample for sample in labelled if sample.name == "vllm:cache_config_info")
    assert (info.labels["block_size"], info.labels["num_gpu_blocks"]) == ("16", "10000")


async def test_only_the_external_api_has_no_metrics() -> None:
    """An OpenAI-like API shows no load."""
    assert [kind for kind in KINDS if face(kind).metrics() is None] == ["openai"]


@given(st.lists(st.floats(0, 100), max_size=50))
def test_histograms_add_up(values: list[float]) -> None:
    """Buckets are cumulative, the last one and the count hold all values, the sum is their sum."""
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    rows = histogram.cumulative()
    assert [number for _, number in rows] == sorted(number for _, number in rows)
    assert rows[-1] == ("+Inf", len(values))
    assert histogram.total == pytest.approx(sum(values))
    for bound, number in rows[:-1]:
        assert number == sum(value <= float(bound) for value in values)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20))
def test_any_label_survives(value: str) -> None:
    """Quotes and backslashes in a model name do not break the page."""
    page = Exposition({"model_name": value})
    page.gauge("load", 1.5)
    (family,) = text_string_to_metric_families(page.text().decode())
    assert family.samples[0].labels == {"model_name": value}
    assert family.samples[0].value == 1.5


@pytest.mark.parametrize("kind", KINDS)
async def test_what_does_not_fit_is_refused_with_its_numbers(kind: Kind) -> None:
    """Each engine refuses a prompt beyond its context in its own words, which carry limit and request."""
    shown = face(kind, context_length=1_000)
    assert shown.too_long(900, 50) is None
    assert shown.too_long(900, None) is None
    status = 422 if kind == "tgi" else 400
    for prompt, limit in ((1_200, None), (900, 400), (1_200, 400)):
        reply = shown.too_long(prompt, limit)
        assert reply is not None
        assert reply.status == status
        numbers = re.findall(rb"\d+", reply.body)
        assert str(prompt).encode() in numbers
        assert {b"1000", b"999"} & set(numbers)


@pytest.mark.parametrize(("kind", "status"), [("vllm", 503), ("sglang", 503), ("tgi", 429), ("openai", 503)])
async def test_full_engines_say_so_each_in_its_way(kind: Kind, status: int) -> None:
    """The status of an overloaded engine is its own."""
    reply = face(kind).overloaded("queue_full")
    assert reply.status == status
    assert isinstance(msgspec.json.decode(reply.body), dict)


async def test_error_bodies_have_the_shapes_of_their_engines() -> None:
    """Errors of vLLM and OpenAI are wrapped, SGLang is flat, TGI has words and a type."""
    bodies = {kind: msgspec.json.decode(face(kind).bad_request("no good", "n").body) for kind in KINDS}
    assert bodies["vllm"]["error"]["code"] == 400
    assert bodies["vllm"]["error"]["param"] == "n"
    assert bodies["openai"]["error"]["code"] is None
    assert bodies["openai"]["error"]["type"] == "invalid_request_error"
    assert bodies["sglang"]["object"] == "error"
    assert bodies["sglang"]["message"] == "no good"
    assert bodies["tgi"] == {"error": "Input validation error: no good", "error_type": "validation"}


async def test_usage_differs_in_its_details() -> None:
    """TGI knows three counts, OpenAI sends all details, vLLM and SGLang only what there is."""
    usage = {kind: face(kind).usage(100, 20, 48, 5) for kind in KINDS}
    for document in usage.values():
        assert (document["prompt_tokens"], document["completion_tokens"], document["total_tokens"]) == (100, 20, 120)
    assert set(usage["tgi"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert usage["vllm"]["prompt_tokens_details"] == {"cached_tokens": 48}
    assert usage["vllm"]["completion_tokens_details"] == {"reasoning_tokens": 5}
    assert usage["sglang"]["reasoning_tokens"] == 5
    assert face("vllm").usage(100, 20, 0, 0)["prompt_tokens_details"] is None
    assert face("vllm", report_cached=False).usage(100, 20, 48, 0)["prompt_tokens_details"] is None
    assert face("openai").usage(100, 20, 0, 0)["prompt_tokens_details"] == {"cached_tokens": 0, "audio_tokens": 0}


async def test_tgi_runs_128_requests_unless_told_otherwise() -> None:
    """TGI's own limit on concurrent requests holds when no queue limit is set."""
    assert (SimConfig(kind="tgi").slots, SimConfig(kind="tgi").waiting_limit) == (128, 0)
    few = SimConfig(kind="tgi", timing=Timing(slots=4))
    assert (few.slots, few.waiting_limit) == (4, 124)
    told = SimConfig(kind="tgi", timing=Timing(slots=200, queue_limit=5))
    assert (told.slots, told.waiting_limit) == (200, 5)
    assert SimConfig(kind="vllm").waiting_limit is None
