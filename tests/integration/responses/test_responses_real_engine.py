"""The Responses API over a real engine, llama.cpp with a tiny random Qwen whose answers are known beforehand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.engine.llama_server import LlamaServer
from tests.engine.tiny_qwen import CHAIN_TEXT, CHAIN_TOKENS
from tests.harness import Backend, Stage, configuration, staged

pytestmark = [pytest.mark.real_engine, pytest.mark.asyncio(loop_scope="module")]

MODEL = "qwen/qwen3-tiny"
MODELS = (
    f"  - {{id: {MODEL}, context_length: 4096, capabilities: {{tools: true}}, "
    'endpoints: [{backend: a, model: tiny-qwen3}], price: {prompt: "0.10", completion: "0.30"}}'
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory, chain_server: LlamaServer) -> AsyncIterator[Stage]:
    """A gateway over one engine."""
    backend = Backend("a", chain_server.url, "llamacpp", "tiny-qwen3")
    async with staged(tmp_path_factory.mktemp("real"), configuration([backend], models=MODELS)) as stage:
        yield stage


async def test_whole_and_streamed_answers_are_the_engines(stage: Stage) -> None:
    """Text and counts are those that are known; a conversation that goes on has more to read."""
    client = stage.openai()
    first = await client.responses.create(model=MODEL, input="Say it.")
    assert first.output_text == CHAIN_TEXT
    assert first.usage is not None
    assert first.usage.output_tokens == CHAIN_TOKENS
    stream = await client.responses.create(model=MODEL, input="Say it.", stream=True)
    events: list[Any] = [event async for event in stream]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == CHAIN_TEXT
    assert events[-1].response.usage.output_tokens == CHAIN_TOKENS
    again = await client.responses.create(model=MODEL, input="Again.", previous_response_id=first.id)
    assert again.usage is not None
    assert again.usage.input_tokens > first.usage.input_tokens + CHAIN_TOKENS


async def test_an_answer_is_cut_at_its_limit(stage: Stage) -> None:
    """The engine stops after the tokens it was allowed."""
    short = await stage.openai().responses.create(model=MODEL, input="Say it.", max_output_tokens=3)
    assert (short.status, short.usage.output_tokens if short.usage else 0) == ("incomplete", 3)


async def test_a_schema_binds_the_engine(stage: Stage) -> None:
    """Structured output is made by the engine's own grammar."""
    form: Any = {
        "type": "json_schema",
        "name": "flag",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"flag": {"type": "boolean"}},
            "required": ["flag"],
            "additionalProperties": False,
        },
    }
    answer = await stage.openai().responses.create(model=MODEL, input="Flag?", text={"format": form})
    assert list(json.loads(answer.output_text)) == ["flag"]
