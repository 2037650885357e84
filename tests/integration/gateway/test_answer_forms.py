"""The two forms of an answer: OpenAI's under ``/v1`` and OpenRouter's under ``/api/v1``, and what heads them both."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, AsyncOpenAI
from openai.types import Model
from openai.types.chat import ChatCompletionChunk

from gateway.sim import Fault, Kind, SimConfig, SimServer, Timing
from tests.harness import Backend, Stage, configuration, staged

MODEL = "qwen/qwen3-32b"
QUESTION: list[Any] = [{"role": "user", "content": "Tell me about weirs."}]
CALCULATOR: Any = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


@dataclass(frozen=True, slots=True)
class Scene:
    """A gateway over one simulated engine; ``v1`` and ``api`` are the official client on either form."""

    stage: Stage
    sim: SimServer
    v1: AsyncOpenAI
    api: AsyncOpenAI


@pytest.fixture
def kind() -> Kind:
    """Return the engine of the scene; a test may ask for others."""
    return "vllm"


@pytest.fixture
async def scene(tmp_path: Path, kind: Kind) -> AsyncIterator[Scene]:
    """One engine of a provider called ``house``."""
    async with SimServer(SimConfig(kind, name="gpu-a", prompt_cache=False, timing=Timing(itl=0.002))) as sim:
        backend = Backend("gpu-a", sim.url, kind, provider="house", endpoint="quantization: fp8")
        async with staged(tmp_path, configuration([backend])) as stage:
            yield Scene(stage, sim, stage.openai(), stage.openai(base="/api/v1"))


async def collect(stream: AsyncIterator[ChatCompletionChunk], chunks: list[ChatCompletionChunk]) -> None:
    """Add the chunks of ``stream`` to ``chunks``, also those before an error."""
    async for chunk in stream:
        chunks.append(chunk)  # noqa: PERF401 - an error must not lose them


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
async def test_the_generation_id_heads_every_answer(scene: Scene, base: str) -> None:
    """Header and body have the same id, whole and streamed; the route names the replica."""
    client = scene.stage.openai(base=base)
    chat, completions = client.chat.completions.with_raw_response, client.completions.with_raw_response
    answers: list[Any] = [
        await chat.create(model=MODEL, messages=QUESTION),
        await completions.create(model=MODEL, prompt="Once", max_tokens=3),
    ]
    for raw in answers:
        identity = raw.parse().id
        assert re.fullmatch("gen-[0-9a-f]{32}", identity)
        assert raw.headers["x-generation-id"] == raw.headers["x-request-id"] == identity
        assert raw.headers["x-weir-route"] == "balanced; pick=house/fp8/gpu-a; of=1; dropped=0"
        assert raw.parse().model == MODEL
    streamed = await chat.create(model=MODEL, messages=QUESTION, stream=True)
    identity = streamed.headers["x-generation-id"]
    assert "pick=house/fp8/gpu-a" in streamed.headers["x-weir-route"]
    assert {chunk.id async for chunk in streamed.parse()} == {identity}
    assert (await scene.stage.generation(identity))["id"] == identity


async def test_ids_are_never_given_twice(scene: Scene) -> None:
    """Ids differ, also those of requests that come together, and sort in the order of the requests."""
    first = (await scene.v1.chat.completions.create(model=MODEL, messages=QUESTION)).id
    asked = [scene.v1.chat.completions.create(model=MODEL, messages=QUESTION) for _ in range(20)]
    together = {answer.id for answer in await asyncio.gather(*asked)}
    last = (await scene.v1.chat.completions.create(model=MODEL, messages=QUESTION)).id
    assert len(together) == 20
    assert first < min(together)
    assert max(together) < last


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_an_openrouter_answer_names_provider_and_native_reason(scene: Scene, kind: Kind) -> None:
    """``/api/v1`` adds the provider and the engine's own finish reason; ``/v1`` has neither."""
    ask: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "max_tokens": 4}
    answer = (await scene.api.chat.completions.create(**ask)).model_dump()
    assert answer["provider"] == "house"
    assert answer["choices"][0]["finish_reason"] == answer["choices"][0]["native_finish_reason"] == "length"
    assert answer["usage"]["cost"] > 0
    assert answer["usage"]["is_byok"] is False
    assert set(answer["usage"]["cost_details"]) == {
        "upstream_inference_prompt_cost",
        "upstream_inference_completions_cost",
    }
    plain = (await scene.v1.chat.completions.create(**ask)).model_dump()
    assert "provider" not in plain
    assert "native_finish_reason" not in plain["choices"][0]
    assert plain["usage"]["cost"] == answer["usage"]["cost"]


async def test_an_openrouter_stream_always_ends_with_usage_and_one_choice(scene: Scene) -> None:
    """Unasked, once, last, with one choice that repeats the finish; asked for in OpenAI's way it is still one."""
    for options in ({}, {"stream_options": {"include_usage": True}}, {"stream_options": {"include_usage": False}}):
        ask: dict[str, Any] = {"model": MODEL, "messages": QUESTION, **options}
        *chunks, last = [chunk async for chunk in await scene.api.chat.completions.create(stream=True, **ask)]
        assert all(chunk.usage is None for chunk in chunks)
        assert last.usage is not None
        assert last.usage.completion_tokens == scene.sim.books[-1].completion_tokens == 24
        (choice,) = last.choices
        assert (choice.finish_reason, choice.delta.content, choice.delta.role) == ("stop", "", "assistant")
        finish = chunks[-1].model_dump()
        assert finish["choices"][0]["finish_reason"] == finish["choices"][0]["native_finish_reason"] == "stop"
        assert {chunk.model_dump()["provider"] for chunk in [*chunks, last]} == {"house"}
        found = await scene.stage.generation(last.id)
        assert found["total_cost"] == last.usage.model_dump()["cost"] > 0


async def test_an_openrouter_completion_stream_has_its_usage_chunk_too(scene: Scene) -> None:
    """Of text completions the last chunk has an empty text."""
    stream = await scene.api.completions.create(model=MODEL, prompt="Once", max_tokens=5, stream=True)
    *chunks, last = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks)
    assert (last.choices[0].text, last.choices[0].finish_reason) == ("", "length")
    assert last.usage is not None
    assert last.usage.completion_tokens == 5
    assert {chunk.object for chunk in [*chunks, last]} == {"text_completion"}


async def test_an_openrouter_stream_that_breaks_says_so_in_a_chunk(scene: Scene) -> None:
    """The error event is also a chunk with the finish reason ``error``, in the shape that OpenRouter's clients read."""
    scene.sim.faults.arm(Fault(kind="cut_mid_stream", after_chunks=5))
    stream = await scene.api.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
    chunks: list[ChatCompletionChunk] = []
    with pytest.raises(APIError, match="in the middle of its answer"):
        await collect(stream, chunks)
    assert chunks
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
    response = await scene.stage.http.post(
        f"{scene.stage.url}/api/v1/chat/completions",
        json={"model": MODEL, "messages": QUESTION, "stream": True},
        headers=scene.stage.headers,
    )
    assert "[DONE]" not in response.text
    assert '"finish_reason":"error"' in response.text
    assert response.text.count('"error":{') == 1


async def test_a_tool_call_reads_the_same_in_both_forms(scene: Scene) -> None:
    """Calls, their ids and their finish reason do not depend on the form."""
    ask: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "tools": [CALCULATOR], "tool_choice": "required"}
    first, second = [await client.chat.completions.create(**ask) for client in (scene.v1, scene.api)]
    assert first.choices[0].message.tool_calls == second.choices[0].message.tool_calls
    assert first.choices[0].finish_reason == second.choices[0].finish_reason == "tool_calls"


async def test_the_catalogue_in_both_forms(scene: Scene) -> None:
    """The list has each model with what clients of either kind need; one model can be had by its id, slash and all."""
    (model,) = [model async for model in scene.v1.models.list()]
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "qwen")
    assert await scene.v1.models.retrieve(MODEL) == model
    Model.model_validate(model.model_dump())
    (described,) = [model.model_dump() async for model in scene.api.models.list()]
    assert described == model.model_dump()
    assert described["context_length"] == 40960
    assert described["pricing"]["prompt"] == "0.0000001"
    assert described["pricing"]["completion"] == "0.0000003"
    assert described["pricing"]["input_cache_read"] == "0.00000002"
    assert described["architecture"]["input_modalities"] == ["text", "image", "audio"]
    assert {"tools", "response_format", "logprobs", "seed"} <= set(described["supported_parameters"])


async def test_a_generation_can_be_looked_up_in_full(scene: Scene) -> None:
    """What ``/api/v1/generation`` says of an answer is what the answer said of itself."""
    answer = await scene.api.chat.completions.create(model=MODEL, messages=QUESTION, user="bob")
    usage = answer.usage
    assert usage is not None
    found = await scene.stage.generation(answer.id)
    assert found["model"] == MODEL
    assert (found["tokens_prompt"], found["tokens_completion"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert (found["native_tokens_prompt"], found["native_tokens_completion"]) == (9, 24)
    assert (found["provider_name"], found["finish_reason"], found["native_finish_reason"]) == ("house", "stop", "stop")
    assert found["generation_time"] is None  # nobody saw its first token
    assert found["latency"] > 0
    assert found["external_user"] == "bob"
    (attempt,) = found["provider_responses"]
    assert (attempt["endpoint_id"], attempt["status"], attempt["outcome"]) == ("house/fp8", 200, "ok")
