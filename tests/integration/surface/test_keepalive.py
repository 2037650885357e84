"""Words to callers who wait: not to OpenAI's chat, only before the first event, and never in its place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import APIError

from gateway.edge.reply import COMFORT
from gateway.sim import Fault, SimConfig, SimServer, Timing
from tests.harness import Stage, chat_body, configuration, over, staged

EVERY_S = 0.1


@asynccontextmanager
async def slow(home: Path, more: str = "", *faults: Fault) -> AsyncIterator[Stage]:
    """Run a gateway over one engine that thinks before its first token."""
    config = SimConfig("vllm", name="slow", timing=Timing(base_ttft=1.0), faults=faults)
    async with SimServer(config) as sim, staged(home, configuration(over(sim, more=more))) as stage:
        task = asyncio.create_task(stage.gateway.inference.comfort(EVERY_S))
        try:
            yield stage
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def text_of(stage: Stage, path: str, **more: Any) -> tuple[int, str]:
    """Return status and body of a chat request."""
    answer = await stage.http.post(stage.url + path, json=chat_body() | more, headers=stage.headers)
    return answer.status_code, answer.text


def events(text: str) -> list[str]:
    """Return the data of events; there is nothing else but comments."""
    lines = [line for line in text.split("\n") if line]
    assert all(line.startswith(("data: ", ":")) for line in lines), text
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


async def test_a_caller_who_waits_is_told_so_and_the_answer_is_whole(tmp_path: Path) -> None:
    """Comments come first, again and again; then the same events as ever, metered as ever, ended by [DONE]."""
    async with slow(tmp_path) as stage:
        status, text = await text_of(stage, "/api/v1/chat/completions", stream=True, max_tokens=5)
        assert status == 200
        assert text.startswith(COMFORT.decode() * 2)
        found = events(text)
        assert found[-1] == "[DONE]"
        chunks = [json.loads(each) for each in found[:-1]]
        assert chunks[-1]["usage"]["completion_tokens"] == 5
        # Whoever reads comments reads none between events: they stop with the first one.
        assert COMFORT.decode() not in text[text.index("data:") :]
        generation = await stage.generation(chunks[0]["id"])
        assert (generation["tokens_completion"], generation["status"]) == (5, "ok")
        assert generation["latency"] >= 1_000, "a comment is no token"
        answer = await stage.openai(base="/api/v1").chat.completions.create(
            model="qwen/qwen3-32b", messages=[{"role": "user", "content": "Hi"}], stream=True, max_tokens=5
        )
        said = [chunk.choices[0].delta.content async for chunk in answer if chunk.choices]
        assert len([word for word in said if word]) == 5
        assert not stage.gateway.inference.waiting


async def test_openais_path_and_whole_answers_get_no_comments(tmp_path: Path) -> None:
    """Their clients are told nothing before there is something to tell."""
    async with slow(tmp_path) as stage:
        _, streamed = await text_of(stage, "/v1/chat/completions", stream=True, max_tokens=2)
        _, whole = await text_of(stage, "/api/v1/chat/completions", max_tokens=2)
        assert streamed.startswith("data: ")
        assert json.loads(whole)["usage"]["completion_tokens"] == 2


async def test_an_error_after_a_comment_is_an_event_with_an_integer_code(tmp_path: Path) -> None:
    """The status has been said, so the stream says what became of it; the official client raises it."""
    limits = "timeouts: {first_byte: 1, idle: 1}"
    async with slow(tmp_path, limits, Fault(kind="stall", mode="headers")) as stage:
        status, body = await text_of(stage, "/api/v1/chat/completions", stream=True)
        assert status == 200
        assert body.startswith(COMFORT.decode())
        chunk = json.loads(events(body)[-1])
        assert (chunk["error"]["code"], chunk["choices"][0]["finish_reason"]) == (504, "error")
        assert chunk["error"]["metadata"]["error_type"] == "timeout"
        client = stage.openai(base="/api/v1")
        with pytest.raises(APIError):
            async for _ in await client.chat.completions.create(
                model="qwen/qwen3-32b", messages=[{"role": "user", "content": "Hi"}], stream=True
            ):
                pass


async def test_callers_of_other_dialects_are_told_in_their_own_words(tmp_path: Path) -> None:
    """Messages get ``ping``, responses a comment; the official clients read on as if nothing had been said."""
    async with slow(tmp_path) as stage:
        asked: dict[str, Any] = {"model": "qwen/qwen3-32b", "stream": True}
        turns: Any = [{"role": "user", "content": "Hi"}]
        messages = asked | {"messages": turns, "max_tokens": 5}
        for path, body, word in (
            ("/v1/messages", messages, 'event: ping\ndata: {"type": "ping"}\n\n'),
            ("/v1/responses", asked | {"input": "Hi", "max_output_tokens": 5}, ": waiting\n\n"),
        ):
            answer = await stage.http.post(stage.url + path, json=body, headers=stage.headers)
            assert answer.text.startswith(word * 2), path
        async with (
            AsyncAnthropic(api_key=stage.key, base_url=stage.url, max_retries=0) as client,
            client.messages.stream(model="qwen/qwen3-32b", messages=turns, max_tokens=5) as stream,
        ):
            assert (await stream.get_final_message()).usage.output_tokens == 5
        events = await stage.openai().responses.create(model="qwen/qwen3-32b", input="Hi", stream=True)
        kinds = [event.type async for event in events]
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
