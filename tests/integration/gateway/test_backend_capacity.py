"""What backends say of their room is heard: limits of external APIs, refusals, load beside an answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from gateway.fleet.load import ReplicaLoad
from gateway.sim import SimConfig, SimFleet, Timing
from tests.fakes.backend import Visit, hand_backend
from tests.harness import Backend, Stage, chat_body, configuration, over, staged

OFF = "admission: {enabled: false}"


async def ask(stage: Stage) -> httpx.Response:
    """Send one plain request."""
    headers = {"authorization": f"Bearer {stage.key}"}
    return await stage.http.post(f"{stage.url}/v1/chat/completions", json=chat_body(), headers=headers)


def load_of(stage: Stage, name: str) -> ReplicaLoad:
    """Return the books of a replica."""
    return stage.gateway.registry.fleet.replicas[name].load


async def test_an_api_that_says_nothing_is_left_is_not_asked(tmp_path: Path) -> None:
    """After its rate-limit headers said so, requests are refused here, with the time, and the API never sees them."""
    async with (
        SimFleet([SimConfig(kind="openai", name="api", rpm=3)]) as fleet,
        staged(tmp_path, configuration(over(fleet["api"]), more=OFF)) as stage,
    ):
        assert [(await ask(stage)).status_code for _ in range(3)] == [200, 200, 200]
        refused = await ask(stage)
        assert refused.status_code == 503
        assert "0 requests are left" in refused.text
        assert fleet["api"].books.totals.completed == 3
        assert load_of(stage, "api").quota.limited


async def test_refusals_teach_how_much_a_replica_can_take(tmp_path: Path) -> None:
    """An engine that refuses beyond two at a time is sent fewer at once than it refused; its owner need not say so."""
    timing = Timing(itl=0.02, slots=2, queue_limit=0)
    async with (
        SimFleet([SimConfig(name="gpu", timing=timing, answer_tokens=10)]) as fleet,
        staged(tmp_path, configuration(over(fleet["gpu"]), more=OFF)) as stage,
    ):
        answers = await asyncio.gather(*(ask(stage) for _ in range(8)))
        assert {answer.status_code for answer in answers} == {200, 503}
        ceiling = load_of(stage, "gpu").ceiling
        assert 1.0 <= ceiling.learned <= 0.8 * 8
        assert ceiling.lately < 256


async def test_load_beside_an_answer_is_read(tmp_path: Path) -> None:
    """Between two scrapes the header ``endpoint-load-metrics`` says what is new."""
    line = "endpoint-load-metrics: TEXT named_metrics.kv_cache_usage_perc=0.75\r\n"
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}]}

    async def script(visit: Visit) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        await visit.answer(body | {"usage": usage}, more=line)

    async with hand_backend(script) as backend:
        config = configuration([Backend("gpu", backend.url, "vllm", "Qwen/Qwen3-32B")], more=OFF)
        async with staged(tmp_path, config) as stage:
            load = load_of(stage, "gpu")
            load.reported(0, 0, 0.1, 0.0)
            load.scraped_at = stage.gateway.desk.loop.time() + 60.0  # the hand-written backend has no metrics page
            assert (await ask(stage)).status_code == 200
            assert load.kv_usage == 0.75
