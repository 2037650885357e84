"""A real engine behind the gateway: two llama.cpp servers with a tiny random Qwen that the test made.

The answers of the ``chain`` model and the counts of its tokenizer are known beforehand, so what comes through the
gateway is compared with what must come. Cancellation and death are in ``test_real_engine_loss.py``.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.engine.llama_server import LlamaServer
from tests.engine.tiny_qwen import CHAIN_TEXT, CHAIN_TOKENS
from tests.harness import Backend, Stage, configuration, staged

pytestmark = pytest.mark.real_engine

MODEL = "qwen/qwen3-tiny"
PROMPT, COMPLETION, CACHED = 100, 300, 20
"""Nano-USD for a token."""
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def second_server(chain_server: LlamaServer) -> Iterator[LlamaServer]:
    """Another server with the model of ``chain_server``."""
    with LlamaServer(chain_server.model) as server:
        yield server


def models(embeddings: bool = False) -> str:
    """Return the model of these tests, on the backends ``a`` and, but for embeddings, ``b``."""
    backends = "ab" if not embeddings else "a"
    endpoints = ", ".join(f"{{backend: {name}, model: tiny-qwen3}}" for name in backends)
    capabilities = "embeddings: true" if embeddings else "tools: true"
    return (
        f"  - {{id: {MODEL}, context_length: 4096, capabilities: {{{capabilities}}}, endpoints: [{endpoints}], "
        'price: {prompt: "0.10", completion: "0.30", cache_read: "0.02"}}'
    )


def over_engines(*servers: LlamaServer, embeddings: bool = False) -> str:
    """Return the configuration of a gateway over ``servers``; one alone stands for both backends."""
    urls = [server.url for server in servers]
    pairs = zip("ab", urls if embeddings or len(urls) == 2 else urls * 2, strict=False)
    backends = [Backend(name, url, "llamacpp", "tiny-qwen3") for name, url in pairs]
    return configuration(backends, models=models(embeddings))


@pytest.fixture
async def stage(tmp_path: Path, chain_server: LlamaServer, second_server: LlamaServer) -> AsyncIterator[Stage]:
    """A gateway over two engines that always answer the same."""
    async with staged(tmp_path, over_engines(chain_server, second_server)) as stage:
        yield stage


def said(content: str) -> list[Any]:
    """Return a conversation of one message."""
    return [{"role": "user", "content": content}]


def text_of(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    """Return the text of one choice of a stream."""
    return "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices if c.index == index)


async def predicted(*servers: LlamaServer) -> list[float]:
    """Return how many tokens each engine says that it made since it started."""
    return [(await asyncio.to_thread(server.metrics))["llamacpp:tokens_predicted_total"] for server in servers]


async def ask(stage: Stage, content: str = "hello", **more: Any) -> ChatCompletion:
    """Ask with the official client."""
    answer: ChatCompletion = await stage.openai().chat.completions.create(model=MODEL, messages=said(content), **more)
    return answer


async def stream(stage: Stage, content: str = "hello", **more: Any) -> list[ChatCompletionChunk]:
    """Ask for a stream with its usage and return its chunks."""
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}, **more}
    answer: Any = await stage.openai().chat.completions.create(model=MODEL, messages=said(content), **options)
    return [chunk async for chunk in answer]


async def test_the_text_and_the_tokens_are_those_of_the_engine(stage: Stage, chain_server: LlamaServer) -> None:
    """JSON and stream say the known text; usage is what the engine says directly and the tokenizer counts."""
    for content in ("hello", "", "你好\r\n🙂", "<|im_end|> ends", "x " * 300):
        answer = await ask(stage, content)
        (choice,) = answer.choices
        assert (choice.message.content, choice.finish_reason) == (CHAIN_TEXT, "stop")
        chunks = await stream(stage, content)
        assert text_of(chunks) == CHAIN_TEXT
        assert chunks[-2].choices[0].finish_reason == "stop"
        direct = await stage.http.post(f"{chain_server.url}/v1/chat/completions", json={"messages": said(content)})
        expected = direct.json()["usage"]
        for usage, identity in ((answer.usage, answer.id), (chunks[-1].usage, chunks[-1].id)):
            assert usage is not None
            assert usage.prompt_tokens == expected["prompt_tokens"]
            assert usage.prompt_tokens == chain_server.model.count_chat(said(content))
            assert usage.completion_tokens == expected["completion_tokens"] == CHAIN_TOKENS
            assert usage.prompt_tokens_details is not None
            cached = usage.prompt_tokens_details.cached_tokens or 0
            nano = (usage.prompt_tokens - cached) * PROMPT + cached * CACHED + CHAIN_TOKENS * COMPLETION
            found = await stage.generation(identity)
            assert (found["tokens_prompt"], found["native_tokens_cached"]) == (usage.prompt_tokens, cached)
            assert (found["tokens_completion"], found["usage_source"]) == (CHAIN_TOKENS, "upstream")
            assert found["total_cost"] == usage.model_dump()["cost"] == nano / 1e9
            assert found["finish_reason"] == "stop"


async def test_requests_at_once_share_both_engines(
    stage: Stage, chain_server: LlamaServer, second_server: LlamaServer
) -> None:
    """Eight at once all get the whole text; the engines made exactly the tokens that the ledger holds."""
    before = await predicted(chain_server, second_server)
    answers = await asyncio.gather(*(ask(stage, f"number {number}") for number in range(4)))
    streams = await asyncio.gather(*(stream(stage, f"letter {number}") for number in range(4)))
    both = await asyncio.gather(
        asyncio.gather(*(ask(stage, f"both {number}") for number in range(4))),
        asyncio.gather(*(stream(stage, f"both {number}") for number in range(4))),
    )
    whole = [answer.choices[0].message.content for answer in (*answers, *both[0])]
    assert whole + [text_of(chunks) for chunks in (*streams, *both[1])] == [CHAIN_TEXT] * 16
    found = await stage.settled(16)
    made = [now - then for now, then in zip(await predicted(chain_server, second_server), before, strict=True)]
    by_backend = [
        sum(record.attempts[0].usage.completion for record in found if record.attempts[0].backend == name)
        for name in ("a", "b")
    ]
    assert made == by_backend
    assert sum(made) == 16 * CHAIN_TOKENS
    assert min(made) > 0
    assert {record.attempts[0].status for record in found} == {"ok"}


async def test_every_choice_is_counted(stage: Stage, chain_server: LlamaServer, second_server: LlamaServer) -> None:
    """The engine's usage has one choice of several; ledger and caller get the sum, which the engine really made."""
    before = sum(await predicted(chain_server, second_server))
    answer = await ask(stage, n=2)
    assert [choice.message.content for choice in answer.choices] == [CHAIN_TEXT] * 2
    chunks = await stream(stage, n=2)
    assert [text_of(chunks, index) for index in (0, 1)] == [CHAIN_TEXT] * 2
    for usage, identity in ((answer.usage, answer.id), (chunks[-1].usage, chunks[-1].id)):
        assert usage is not None
        assert usage.completion_tokens == 2 * CHAIN_TOKENS
        assert usage.prompt_tokens == chain_server.model.count_chat(said("hello"))
        assert (await stage.generation(identity))["tokens_completion"] == 2 * CHAIN_TOKENS
    assert sum(await predicted(chain_server, second_server)) - before == 4 * CHAIN_TOKENS


async def test_completions_of_text_texts_and_tokens(stage: Stage, chain_server: LlamaServer) -> None:
    """Each prompt is answered and counted, whole and streamed; token ids are taken as they are."""
    count = chain_server.model.count
    prompts: list[tuple[Any, int, int]] = [
        ("hello", count("hello"), 1),
        (["hello", "who are you?"], count("hello") + count("who are you?"), 2),
        ([100, 101, 102], 3, 1),
    ]
    client = stage.openai()
    for prompt, tokens, texts in prompts:
        answer = await client.completions.create(model=MODEL, prompt=prompt, max_tokens=7)
        assert [choice.text.strip() for choice in answer.choices] == [" ".join(CHAIN_TEXT.split()[:7])] * texts
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (tokens, 7 * texts)
        pieces: dict[int, str] = {}
        usage = None
        async for chunk in await client.completions.create(
            model=MODEL, prompt=prompt, max_tokens=7, stream=True, stream_options={"include_usage": True}
        ):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                pieces[choice.index] = pieces.get(choice.index, "") + choice.text
        assert pieces == {choice.index: choice.text for choice in answer.choices}
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens) == (tokens, 7 * texts)


async def test_log_probabilities_seed_and_stop(stage: Stage) -> None:
    """They reach the engine and its answer comes back with them, folded from the stream as from the stream itself."""
    answer = await ask(stage, logprobs=True, top_logprobs=2, max_tokens=4)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    tokens = logprobs.content or []
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content
    assert [len(token.top_logprobs) for token in tokens] == [2] * 4
    assert all(token.logprob == pytest.approx(0, abs=0.01) for token in tokens)
    chunks = await stream(stage, logprobs=True, top_logprobs=2, max_tokens=4)
    streamed = [c.logprobs.content for chunk in chunks for c in chunk.choices if c.logprobs and c.logprobs.content]
    assert [entry.token for entries in streamed for entry in entries] == [token.token for token in tokens]

    stopped = await ask(stage, stop=[" behind"])
    assert stopped.choices[0].message.content == "quiet water gathers"
    assert stopped.choices[0].finish_reason == "stop"


async def test_a_schema_binds_the_engine(stage: Stage) -> None:
    """Random weights give valid JSON when the schema reaches the engine."""
    schema = {"type": "object", "properties": {"flow": {"type": "boolean"}}, "required": ["flow"]}
    form = {"type": "json_schema", "json_schema": {"name": "flow", "schema": schema}}
    answer = await ask(stage, response_format=form, max_tokens=60)
    assert isinstance(json.loads(answer.choices[0].message.content or "")["flow"], bool)


async def test_tool_calls_of_a_real_grammar(tmp_path: Path, tool_server: LlamaServer) -> None:
    """Whole and streamed a call has one id, the name and arguments that keep to the schema, and is counted."""
    async with staged(tmp_path, over_engines(tool_server)) as stage:
        answer = await ask(stage, tools=[WEATHER], seed=3)
        (call,) = answer.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert isinstance(json.loads(call.function.arguments)["city"], str)
        assert answer.choices[0].finish_reason == "tool_calls"
        assert answer.usage is not None
        assert (await stage.generation(answer.id))["tokens_completion"] == answer.usage.completion_tokens > 10

        chunks = await stream(stage, tools=[WEATHER], seed=3)
        pieces = [p for chunk in chunks for c in chunk.choices for p in c.delta.tool_calls or []]
        assert len(pieces) > 3
        assert [piece.id for piece in pieces if piece.id] == [pieces[0].id]
        names = [piece.function.name for piece in pieces if piece.function and piece.function.name]
        assert names == ["get_weather"]
        arguments = "".join(piece.function.arguments or "" for piece in pieces if piece.function)
        assert isinstance(json.loads(arguments)["city"], str)


async def test_embeddings_of_a_real_engine(tmp_path: Path, embedding_server: LlamaServer) -> None:
    """Vectors differ from text to text and have length one; prompt tokens are those of the tokenizer."""
    texts = ["a quiet brook", "a loud engine", "a quiet brook"]
    async with staged(tmp_path, over_engines(embedding_server, embeddings=True)) as stage:
        answer = await stage.openai().embeddings.create(model=MODEL, input=texts)
        first, second, again = (item.embedding for item in answer.data)
        assert len(first) == embedding_server.model.shape.n_embd
        assert math.hypot(*first) == pytest.approx(1.0, abs=1e-4)
        assert first == pytest.approx(again, abs=1e-4)
        assert sum(a * b for a, b in zip(first, second, strict=True)) < 0.9
        tokens = sum(embedding_server.model.count(text) for text in texts)
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens
        (record,) = await stage.settled()
        (row,) = record.attempts
        assert (row.usage.prompt, row.usage.completion, row.charge_nano) == (tokens, 0, tokens * PROMPT)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_prompt_that_does_not_fit_is_refused_with_the_engines_numbers(
    stage: Stage, chain_server: LlamaServer, *, streamed: bool
) -> None:
    """The configuration believes in a longer context than the engine has: it refuses, exactly, once, for nothing."""
    content = "gate " * 1200
    with pytest.raises(openai.BadRequestError) as caught:
        await ask(stage, content, stream=streamed)
    body = caught.value.body
    assert isinstance(body, dict)
    metadata = body["metadata"]
    assert metadata["error_type"] == "context_length_exceeded"
    assert metadata["raw"]["n_ctx"] == chain_server.options.n_ctx_slot
    assert metadata["raw"]["n_prompt_tokens"] == chain_server.model.count_chat(said(content))
    assert len(metadata["attempts"]) == 1
    (record,) = await stage.settled()
    assert [(row.status, row.charge_nano) for row in record.attempts] == [("refused", 0)]
