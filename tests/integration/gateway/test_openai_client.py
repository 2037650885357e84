"""The unmodified official ``openai`` client gets through the gateway what it gets from the engine itself.

Most tests ask the same thing twice, once through the gateway and once of the simulated engine, and compare. The
synchronous client runs in a thread, as the gateway runs in the test's own event loop.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from gateway.sim import KINDS, BookEntry, Kind, SimConfig, SimServer
from gateway.sim.text import Prompt
from gateway.sim.vectors import unit_vector
from tests.harness import Backend, Stage, configuration, staged

MODEL, UPSTREAM = "qwen/qwen3-32b", "Qwen/Qwen3-32B"
EMBEDDER, UPSTREAM_EMBEDDER = "qwen/qwen3-embedding", "Qwen/Qwen3-Embedding-0.6B"
QUESTION: list[Any] = [{"role": "user", "content": "Tell me about weirs."}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Basel"]}, "days": {"type": "integer", "minimum": 3}},
            "required": ["city", "days"],
        },
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}


@dataclass(frozen=True, slots=True)
class Scene:
    """A gateway over one simulated engine, and clients of both."""

    stage: Stage
    sim: SimServer
    client: AsyncOpenAI
    direct: AsyncOpenAI

    def received(self) -> dict[str, Any]:
        """Return the body of the last request the engine saw."""
        body = self.entry().body
        assert isinstance(body, dict)
        return body

    def entry(self) -> BookEntry:
        """Return the last request the engine saw."""
        return self.sim.books[-1]


def models(kind: Kind) -> str:
    """Return the models of the scene: one for chat and, where the engine can, one for embeddings."""
    price = 'price: {prompt: "0.10", completion: "0.30", cache_read: "0.02"}'
    chat = (
        f"  - id: {MODEL}\n    name: Qwen3 32B\n    created: 1745798400\n    context_length: 40960\n    {price}\n"
        f"    capabilities: {{vision: true}}\n    endpoints: [{{backend: gpu-a, model: {UPSTREAM}}}]\n"
    )
    if kind == "tgi":
        return chat
    return chat + (
        f'  - id: {EMBEDDER}\n    context_length: 8192\n    price: {{prompt: "0.01", completion: "0"}}\n'
        f"    capabilities: {{embeddings: true}}\n    endpoints: [{{backend: gpu-a, model: {UPSTREAM_EMBEDDER}}}]\n"
    )


@pytest.fixture
def kind() -> Kind:
    """Return the engine of the scene; a test may ask for others."""
    return "vllm"


@pytest.fixture
async def scene(tmp_path: Path, kind: Kind) -> AsyncIterator[Scene]:
    """A gateway over one engine, which has no prompt cache so that equal requests get equal usage."""
    config = SimConfig(kind, (UPSTREAM, UPSTREAM_EMBEDDER), "gpu-a", prompt_cache=False)
    async with SimServer(config) as sim:
        backend = Backend("gpu-a", sim.url, kind)
        async with staged(tmp_path, configuration([backend], models=models(kind))) as stage:
            client = stage.openai()
            yield Scene(stage, sim, client, client.with_options(base_url=sim.url + "/v1"))


def folded(chunks: Iterable[ChatCompletionChunk]) -> dict[int, dict[str, Any]]:
    """Return what a stream says, by choice: text, tool calls, log probabilities, finish reason."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for part in chunk.choices:
            choice = choices.setdefault(part.index, {"content": "", "calls": {}, "logprobs": [], "finish": None})
            assert choice["finish"] is None, "nothing comes after the finish of a choice"
            choice["content"] += part.delta.content or ""
            choice["finish"] = part.finish_reason
            choice["logprobs"] += (part.logprobs and part.logprobs.content) or []
            for piece in part.delta.tool_calls or []:
                call = choice["calls"].setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
                call["id"] += piece.id or ""
                assert piece.function is not None
                call["name"] += piece.function.name or ""
                call["arguments"] += piece.function.arguments or ""
    return choices


def whole(answer: ChatCompletion) -> dict[int, dict[str, Any]]:
    """Return what a whole answer says, in the form of ``folded``."""
    return {
        choice.index: {
            "content": choice.message.content or "",
            "calls": {
                place: {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
                for place, call in enumerate(choice.message.tool_calls or [])
                if call.type == "function"
            },
            "logprobs": (choice.logprobs and choice.logprobs.content) or [],
            "finish": choice.finish_reason,
        }
        for choice in answer.choices
    }


ASKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "limit": {"max_tokens": 5},
    "new limit": {"max_completion_tokens": 6},
    "seed": {"seed": 7, "temperature": 0.0},
    "stop": {"stop": [" the", " ,"], "max_tokens": 200},
    "logprobs": {"logprobs": True, "top_logprobs": 3, "max_tokens": 8},
    "two choices": {"n": 2},
    "json object": {"response_format": {"type": "json_object"}},
    "json schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "w", "schema": WEATHER["function"]["parameters"]},
        }
    },
    "tool": {"tools": [CLOCK, WEATHER], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
    "any tool": {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False},
}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_ask_gets_the_answer_of_the_engine(scene: Scene, kind: Kind) -> None:
    """Whole or streamed, the choices through the gateway are those of the engine, and pass the client's own types."""
    for name, ask in ASKS.items():
        if kind == "tgi" and "n" in ask:
            continue
        expected = await scene.direct.chat.completions.create(model=UPSTREAM, messages=QUESTION, **ask)
        raw = await scene.client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, **ask)
        answer = raw.parse()
        assert whole(answer) == whole(expected), name
        assert answer.usage is not None
        assert expected.usage is not None
        assert answer.usage.completion_tokens == expected.usage.completion_tokens, name
        assert answer.usage.prompt_tokens == expected.usage.prompt_tokens, name
        ChatCompletion.model_validate_json(raw.text)

        stream = await scene.client.chat.completions.create(
            model=MODEL, messages=QUESTION, stream=True, stream_options={"include_usage": True}, **ask
        )
        *chunks, last = [chunk async for chunk in stream]
        assert folded(chunks) == whole(expected), name
        assert last.usage is not None
        assert last.usage.completion_tokens == expected.usage.completion_tokens, name
        for chunk in [*chunks, last]:
            ChatCompletionChunk.model_validate(chunk.model_dump(exclude_unset=True))


async def test_what_was_asked_for_is_what_comes(scene: Scene) -> None:
    """Limits, seeds, stops, choices and log probabilities show in the answer, not only in the request."""

    async def ask(**more: Any) -> ChatCompletion:
        answer: ChatCompletion = await scene.client.chat.completions.create(model=MODEL, messages=QUESTION, **more)
        return answer

    cut = await ask(max_tokens=5)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 5

    plain, seeded, again = await ask(), await ask(seed=7), await ask(seed=7)
    assert seeded.choices[0].message.content == again.choices[0].message.content != plain.choices[0].message.content

    text = plain.choices[0].message.content or ""
    word = " " + text.split()[10]
    stopped = await ask(stop=word)
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].message.content == text[: text.index(word)] != text

    two = await ask(n=2)
    assert [choice.index for choice in two.choices] == [0, 1]
    assert two.choices[0].message.content == text != two.choices[1].message.content
    assert two.usage is not None
    assert two.usage.completion_tokens == 48

    probable = (await ask(logprobs=True, top_logprobs=2, max_tokens=4)).choices[0]
    assert probable.logprobs is not None
    tokens = probable.logprobs.content or []
    assert "".join(token.token for token in tokens) == probable.message.content
    assert [len(token.top_logprobs) for token in tokens] == [2] * 4
    assert all(token.logprob < 0 and bytes(token.bytes or []).decode() == token.token for token in tokens)


async def test_tool_calls_come_whole_and_in_pieces(scene: Scene) -> None:
    """A call has its id, name and valid arguments; the client's own stream helper puts the pieces together."""
    tool: Any = {"tools": [CLOCK, WEATHER], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
    answer = await scene.client.chat.completions.create(model=MODEL, messages=QUESTION, **tool)
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Basel", "days": 3}
    assert scene.received()["tools"] == [CLOCK, WEATHER]

    pieces = 0
    async with scene.client.chat.completions.stream(model=MODEL, messages=QUESTION, **tool) as stream:
        async for event in stream:
            pieces += event.type == "tool_calls.function.arguments.delta"
        final = await stream.get_final_completion()
    assert pieces > 3
    (streamed,) = final.choices[0].message.tool_calls or []
    assert (streamed.id, streamed.function.name) == (call.id, "get_weather")
    assert streamed.function.arguments == call.function.arguments

    told: list[Any] = [
        *QUESTION,
        answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    closing = await scene.client.chat.completions.create(
        model=MODEL, messages=told, tools=[WEATHER], tool_choice="none"
    )
    assert closing.choices[0].finish_reason == "stop"
    assert scene.received()["messages"][1]["tool_calls"][0]["function"]["arguments"] == call.function.arguments
    assert scene.received()["messages"][2] == told[2]


class Measurement(BaseModel):
    """What the structured answer is."""

    place: str
    litres: int
    tags: list[str]


async def test_a_schema_is_obeyed_and_parsed(scene: Scene) -> None:
    """The client's ``parse`` sends the schema, the engine gets it unchanged, and the answer is an object of it."""
    answer = await scene.client.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=Measurement)
    assert isinstance(answer.choices[0].message.parsed, Measurement)
    sent = scene.received()["response_format"]
    assert sent["json_schema"]["name"] == "Measurement"
    assert sent["json_schema"]["strict"] is True
    assert set(sent["json_schema"]["schema"]["properties"]) == {"place", "litres", "tags"}
    async with scene.client.chat.completions.stream(
        model=MODEL, messages=QUESTION, response_format=Measurement
    ) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == answer.choices[0].message.parsed


async def test_parts_of_a_message_reach_the_engine_unchanged(scene: Scene) -> None:
    """Text and image parts, details and all, are what the caller wrote, whatever is in them."""
    picture = "data:image/png;base64," + "iVBORw0KGgo=" * 40
    messages: list[Any] = [
        {"role": "system", "content": [{"type": "text", "text": "Answer in “Deutsch”, \\ and 🙂"}], "name": "boss"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?\r\n\t\u2028"},
                {"type": "image_url", "image_url": {"url": picture, "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/ä?a=b&c=d"}},
            ],
        },
    ]
    answer = await scene.client.chat.completions.create(model=MODEL, messages=messages)
    assert scene.received()["messages"] == messages
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == scene.entry().prompt_tokens > 2 * 256


async def test_the_synchronous_client(scene: Scene) -> None:
    """The client as a newcomer makes it, with nothing but key and URL: whole, streamed, embeddings, models."""

    def talk() -> tuple[ChatCompletion, list[ChatCompletionChunk], list[float], list[str]]:
        with OpenAI(api_key=scene.stage.key, base_url=scene.stage.url + "/v1") as client:
            answer = client.chat.completions.create(model=MODEL, messages=QUESTION)
            with client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True) as stream:
                chunks = list(stream)
            vector = client.embeddings.create(model=EMBEDDER, input="a quiet brook").data[0].embedding
            return answer, chunks, vector, [model.id for model in client.models.list()]

    answer, chunks, vector, names = await asyncio.to_thread(talk)
    assert whole(answer) == folded(chunks)
    assert len(answer.choices[0].message.content or "") > 24
    assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-5)
    assert names == [MODEL, EMBEDDER]


@pytest.mark.parametrize("kind", KINDS)
async def test_completions(scene: Scene, kind: Kind) -> None:
    """One text, several texts and token ids are completed as the engine completes them, whole and streamed."""
    prompts: list[Any] = ["Once upon a time", ["one", "two two"], [1, 2, 3, 4], [[1, 2], [3, 4, 5]]]
    for prompt in prompts:
        ask: dict[str, Any] = {"prompt": prompt, "max_tokens": 6}
        expected = await scene.direct.completions.create(model=UPSTREAM, **ask)
        answer = await scene.client.completions.create(model=MODEL, **ask)
        assert scene.received()["prompt"] == prompt
        assert [c.text for c in answer.choices] == [c.text for c in expected.choices]
        assert [c.finish_reason for c in answer.choices] == ["length"] * len(expected.choices)
        assert answer.object == "text_completion"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 6 * len(expected.choices)
        found = await scene.stage.generation(answer.id)
        assert found["tokens_completion"] == answer.usage.completion_tokens
        assert found["tokens_prompt"] == scene.entry().prompt_tokens

        texts: dict[int, str] = {}
        usage = None
        async for chunk in await scene.client.completions.create(
            model=MODEL, stream=True, stream_options={"include_usage": True}, **ask
        ):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + choice.text
        assert texts == {choice.index: choice.text for choice in expected.choices}
        assert usage is not None
        assert usage.completion_tokens == 6 * len(expected.choices)


@pytest.mark.parametrize("kind", ["vllm", "sglang", "openai"])
async def test_embeddings(scene: Scene, kind: Kind) -> None:
    """Vectors are the engine's, as numbers and as base64, in the dimensions asked for; prompt tokens alone are paid."""
    texts = ["a quiet brook", "a loud engine"]
    for encoding in ("float", "base64", None):
        ask: dict[str, Any] = {} if encoding is None else {"encoding_format": encoding}
        answer = await scene.client.embeddings.create(model=EMBEDDER, input=texts, dimensions=16, **ask)
        # Without a format the client asks for base64 and decodes it itself; asked for, it is handed on as it is.
        assert scene.received()["encoding_format"] == (encoding or "base64")
        assert scene.received()["dimensions"] == 16
        assert [item.index for item in answer.data] == [0, 1]
        for text, item in zip(texts, answer.data, strict=True):
            vector: Any = item.embedding
            if encoding == "base64":
                assert len(base64.b64decode(vector)) == 16 * 4
            else:
                assert vector == pytest.approx(unit_vector(Prompt(text, 3), 16), abs=1e-6)
        assert (answer.object, answer.model) == ("list", EMBEDDER)
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == scene.entry().prompt_tokens == 6
    tokens = await scene.client.embeddings.create(model=EMBEDDER, input=[[1, 2, 3], [4, 5]])
    assert scene.received()["input"] == [[1, 2, 3], [4, 5]]
    assert tokens.usage.prompt_tokens == 5
    (record,) = await scene.stage.settled()
    assert (record.attempts[0].operation, record.attempts[0].model) == ("embeddings", EMBEDDER)
