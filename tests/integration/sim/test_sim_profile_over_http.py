"""The step model behind the HTTP faces: the answers of the simple timing, at the times of a real engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.sim import Fault, SimConfig, Timing

PATH = "/v1/chat/completions"


@pytest.mark.parametrize("kind", ["vllm", "sglang", "tgi", "openai"])
@pytest.mark.parametrize("stream", [False, True])
async def test_answers_are_those_of_the_simple_timing(
    kind: str, stream: bool, start: Any, client: Any, chat: Any
) -> None:
    """Only when tokens come differs: bodies, usage and books are the same."""
    plain, stepped = await start(kind=kind), await start(kind=kind, profile="fast")
    options = {"stream_options": {"include_usage": True}} if stream else {}
    bodies = []
    for sim in (plain, stepped):
        answer = await client.post(sim.url + PATH, json=chat(stream=stream, max_tokens=12, **options))
        assert answer.status_code == 200
        books = sim.books[0]
        bodies.append((books.outcome, books.prompt_tokens, books.completion_tokens, "[DONE]" in answer.text))
    assert bodies[0] == bodies[1]
    assert stepped.books[0].first_token_at - stepped.books[0].received_at > 0.015
    assert stepped.books[0].ended_at > stepped.books[0].first_token_at + 0.1


async def test_tokens_of_a_batch_come_together_and_gauges_show_it(
    start: Any, client: Any, chat: Any, until: Any
) -> None:
    """Requests share steps; what does not fit the batch waits; both are on the metrics page."""
    sim = await start(profile="fast", timing=Timing(slots=2))
    tasks = [asyncio.create_task(client.post(sim.url + PATH, json=chat(max_tokens=40))) for _ in range(3)]
    await until(lambda: len(sim.engine.waiting) == 1 and len(sim.engine.running) == 2)
    page = (await client.get(sim.url + "/metrics")).text
    assert 'vllm:num_requests_running{model_name="Qwen/Qwen3-32B",engine="0"} 2' in page
    assert 'vllm:num_requests_waiting{model_name="Qwen/Qwen3-32B",engine="0"} 1' in page
    answers = await asyncio.gather(*tasks)
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert (len(sim.engine.running), len(sim.engine.waiting), sim.engine.kv_usage) == (0, 0, 0.0)


async def test_a_known_prefix_is_reported_as_cached(start: Any, client: Any, chat: Any) -> None:
    """The second of two equal long prompts finds whole blocks of the first."""
    sim = await start(profile="fast")
    body = chat("The river rose by a hand's breadth at the old mill. " * 40, max_tokens=2)
    for _ in range(2):
        answer = await client.post(sim.url + PATH, json=body)
    cached = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0
    assert cached % 16 == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("phase", ["queued", "decode"])
async def test_a_client_that_goes_frees_its_place(
    phase: str, stream: bool, start: Any, connect: Any, chat: Any, until: Any
) -> None:
    """Queued or decoding: the batch and the cache lose it at once, and the books say where it was."""
    sim = await start(profile="fast", timing=Timing(slots=1))
    long = chat(stream=stream, max_tokens=2_000, ignore_eos=True)
    ahead = await connect(sim.url)
    ahead.send(PATH, long)
    await until(lambda: len(sim.engine.running) == 1 and bool(sim.books[0].first_token_at))
    leaver = ahead
    if phase == "queued":
        leaver = await connect(sim.url)
        leaver.send(PATH, long)
        await until(lambda: len(sim.engine.waiting) == 1)
    leaver.writer.close()
    entry = sim.books[1 if phase == "queued" else 0]
    await until(lambda: entry.outcome == "cancelled")
    assert entry.phase == phase
    await until(lambda: len(sim.engine.waiting) == 0)
    assert len(sim.engine.running) == (1 if phase == "queued" else 0)


async def test_faults_strike_as_ever(start: Any, connect: Any, client: Any, chat: Any) -> None:
    """A stream is cut after the chunks it was to have, and the engine is free again."""
    sim = await start(profile="fast", faults=(Fault(kind="cut_mid_stream", after_chunks=3, count=1),))
    raw = await connect(sim.url)
    raw.send(PATH, chat(stream=True, max_tokens=20))
    stream = await raw.rest()
    assert b"[DONE]" not in stream
    assert sim.books[0].outcome == "broken"
    assert sim.books[0].completion_tokens == 3
    answer = await client.post(sim.url + PATH, json=chat(max_tokens=2))
    assert answer.status_code == 200
    assert sim.engine.kv_usage == 0.0


def test_a_profile_that_does_not_exist_or_has_no_room_is_refused() -> None:
    """Settings that make no sense are told when they are made."""
    with pytest.raises(ValueError, match="fast, slow"):
        SimConfig(profile="instant")
    with pytest.raises(ValueError, match="kv_tokens"):
        SimConfig(profile="fast", kv_tokens=1_000)
