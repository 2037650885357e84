"""A real engine dies in the middle of its answer and another one goes on: the text is that of an undisturbed run.

Two llama.cpp servers in processes of their own serve the same weights; one is ended with SIGKILL while it streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.types.generation import AttemptRecord, GenerationRecord
from tests.engine.fixtures import require_engine
from tests.engine.llama_server import LlamaServer
from tests.engine.tiny_qwen import CHAIN_TOKENS, SLOW, TinyQwen, make_tiny_qwen
from tests.fakes.raw_client import events, text_of
from tests.harness import Backend, Stage, configuration, staged

pytestmark = pytest.mark.real_engine

LENGTH = 160
"""Tokens of an answer: a second's work and more for the engine, lest it ends before a busy machine has killed it."""
GREEDY: dict[str, Any] = {"temperature": 0, "cache_prompt": False, "max_tokens": LENGTH}
PROMPTS = ["hello", "Tell me about weirs.", "gate brook lock"]
PRICING = [
    'price: {prompt: "0.01", completion: "0.01"}, cost: {prompt: "0.001", completion: "0.001"}',
    'cost: {prompt: "0.02", completion: "0.02"}',
    'cost: {prompt: "0.10", completion: "0.10"}',
]
"""The first is always tried first, then the second."""
PRICES = {"prompt": 100, "completion": 300}
"""Nano-USD per token."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyQwen:
    """A slow model that never ends and soon repeats itself: what looks like an echo is none."""
    require_engine()
    return make_tiny_qwen(tmp_path_factory.mktemp("continued"), style="biased", shape=SLOW)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> TinyQwen:
    """A slow model that says 24 different words and ends."""
    require_engine()
    return make_tiny_qwen(tmp_path_factory.mktemp("words"), style="chain", shape=SLOW)


@pytest.fixture(scope="module")
def lasting(model: TinyQwen) -> Iterator[LlamaServer]:
    """A server of ``model`` that nobody kills; it forgets each request."""
    with LlamaServer(model) as server:
        yield server


@pytest.fixture(scope="module")
def lasting_words(words: TinyQwen) -> Iterator[LlamaServer]:
    """A server of ``words`` that nobody kills."""
    with LlamaServer(words) as server:
        yield server


@asynccontextmanager
async def gateway(home: Path, servers: Sequence[LlamaServer]) -> AsyncIterator[Stage]:
    """Run a gateway over servers, the first of which is always tried first."""
    backends = [
        Backend(f"server-{place}", server.url, "llamacpp", "tiny-qwen3", f"p{place}", endpoint=price)
        for place, (server, price) in enumerate(zip(servers, PRICING, strict=False))
    ]
    async with staged(home, configuration(backends, more="routing: {default: cheapest}")) as stage:
        yield stage


def body(prompt: str, path: str) -> dict[str, Any]:
    """Return a greedy request for a stream."""
    asked = {"prompt": prompt} if path == "/v1/completions" else {"messages": [{"role": "user", "content": prompt}]}
    return {"model": "qwen/qwen3-32b", "stream": True, **asked, **GREEDY}


@cache
def undisturbed(server: LlamaServer, prompt: str, path: str) -> tuple[str, dict[str, int]]:
    """Return what the engine itself answers, and its usage; it is asked once."""
    answer = httpx.post(f"{server.url}{path}", json=body(prompt, path) | {"stream": False}, timeout=60).json()
    choice = answer["choices"][0]
    return choice.get("text") or choice["message"]["content"], answer["usage"]


@dataclass
class Reading:
    """One stream as its caller reads it; ``server`` is killed when ``after`` events have come."""

    lines: list[str] = field(default_factory=list)

    async def of(self, stage: Stage, request: dict[str, Any], path: str, server: LlamaServer, after: int) -> Reading:
        """Read it to its end."""
        url = stage.url + path
        async with stage.http.stream("POST", url, json=request, headers=stage.headers, timeout=60) as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    self.lines.append(line)
                    if len(self.lines) == after:
                        await asyncio.to_thread(server.kill)
        return self

    @property
    def events(self) -> list[Any]:
        """The events."""
        return events(("\n\n".join(self.lines) + "\n\n").encode())


async def record_of(stage: Stage) -> GenerationRecord:
    """Return the newest request once it is in the ledger."""
    (record,) = await stage.settled()
    return record


async def ended(stage: Stage, count: int) -> list[AttemptRecord]:
    """Return all attempts of the newest ``count`` requests once each of these has one that went well.

    What failed before the first byte may be in the ledger before what took its place.
    """
    async with asyncio.timeout(20):
        while True:
            records = await stage.settled(count)
            if all(any(row.status == "ok" for row in record.attempts) for record in records):
                return [row for record in records for row in record.attempts]
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("after", [2, 17, 40])
async def test_killed_in_the_middle_the_text_is_that_of_an_undisturbed_run(
    path: str, after: int, tmp_path: Path, model: TinyQwen, lasting: LlamaServer
) -> None:
    """SIGKILL after a few words or many: one stream, the same text, every token paid once, the rest the owner's."""
    prompt = PROMPTS[after % len(PROMPTS)]
    with LlamaServer(model) as doomed:
        expected, usage = undisturbed(lasting, prompt, path.removeprefix("/api"))
        async with gateway(tmp_path, [doomed, lasting]) as stage:
            request = body(prompt, path.removeprefix("/api")) | {"stream_options": {"include_usage": True}}
            found = (await Reading().of(stage, request, path, doomed, after)).events
            assert text_of(found) == expected
            assert found[-1] == "[DONE]"
            chunks = found[:-1]
            assert len({chunk["id"] for chunk in chunks}) == len({chunk["model"] for chunk in chunks}) == 1
            choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"] and "usage" not in chunk]
            finishes = [choice["finish_reason"] for choice in choices]
            assert finishes == [None] * (len(finishes) - 1) + ["length"]
            assert sum("role" in choice.get("delta", {}) for choice in choices) == ("chat" in path)
            (told,) = (chunk["usage"] for chunk in chunks if chunk.get("usage"))
            assert (told["prompt_tokens"], told["completion_tokens"]) == (usage["prompt_tokens"], LENGTH)
            assert told["continuation"]["count"] == 1

            first, second = (await record_of(stage)).attempts
            assert (first.status, first.error, second.status) == ("continued", "cut", "ok")
            assert first.usage.completion + second.usage.completion == LENGTH == usage["completion_tokens"]
            assert (first.usage.prompt, second.usage.prompt) == (usage["prompt_tokens"], 0)
            assert second.replayed == told["continuation"]["replayed_tokens"] >= usage["prompt_tokens"]
            assert second.charge_nano == second.usage.completion * PRICES["completion"]
            assert first.charge_nano == (first.usage.prompt + first.usage.completion) * 10
            report = await stage.keeper.audit()
            assert report.ok, report.mismatches


@pytest.mark.parametrize("after", [2, 3, 9, 20, 24])
async def test_the_seam_is_exact_after_any_word(
    after: int, tmp_path: Path, words: TinyQwen, lasting_words: LlamaServer
) -> None:
    """Wherever the chain of words is cut, the rest of it follows, blanks included, and the engine's own end."""
    with LlamaServer(words) as doomed:
        async with gateway(tmp_path, [doomed, lasting_words]) as stage:
            request = body("hello", "/v1/chat/completions")
            found = (await Reading().of(stage, request, "/v1/chat/completions", doomed, after)).events
            assert text_of(found) == words.expected_text
            assert [each["choices"][0]["finish_reason"] for each in found[:-1]].count("stop") == 1
            rows = (await record_of(stage)).attempts
            assert sum(row.usage.completion for row in rows) == CHAIN_TOKENS
            assert [row.status for row in rows] in (["continued", "ok"], ["ok"])
            assert (await stage.keeper.audit()).ok


async def test_two_engines_in_a_row_may_die(tmp_path: Path, model: TinyQwen, lasting: LlamaServer) -> None:
    """The third server ends what two others began."""
    with LlamaServer(model) as one, LlamaServer(model) as two:
        expected, usage = undisturbed(lasting, "hello", "/v1/chat/completions")
        async with gateway(tmp_path, [one, two, lasting]) as stage:

            async def kill_the_second() -> None:
                async with asyncio.timeout(30):
                    while (await asyncio.to_thread(two.metrics))["llamacpp:n_decode_total"] < 20:
                        await asyncio.sleep(0.02)
                await asyncio.to_thread(two.kill)

            killing = asyncio.create_task(kill_the_second())
            request = body("hello", "/v1/chat/completions")
            found = (await Reading().of(stage, request, "/v1/chat/completions", one, 20)).events
            await killing
            assert text_of(found) == expected
            rows = (await record_of(stage)).attempts
            assert [row.status for row in rows] == ["continued", "continued", "ok"]
            assert sum(row.usage.completion for row in rows) == LENGTH
            assert sum(row.usage.prompt for row in rows) == usage["prompt_tokens"]
            assert (await stage.keeper.audit()).ok


async def test_every_stream_of_a_killed_engine_goes_on(tmp_path: Path, model: TinyQwen, lasting: LlamaServer) -> None:
    """Four streams at once on the engine that dies: four whole texts, as if nothing had been."""
    with LlamaServer(model) as doomed:
        expected, _ = undisturbed(lasting, "hello", "/v1/chat/completions")
        async with gateway(tmp_path, [doomed, lasting]) as stage:
            request = body("hello", "/v1/chat/completions")
            path = "/v1/chat/completions"
            readings = [Reading().of(stage, request, path, doomed, 30 if place == 0 else -1) for place in range(4)]
            ends = await asyncio.gather(*readings)
            assert [text_of(each.events) for each in ends] == [expected] * 4
            rows = await ended(stage, 4)
            assert sum(row.usage.completion for row in rows) == 4 * LENGTH
            assert {row.status for row in rows} == {"continued", "ok"}
            assert (await stage.keeper.audit()).ok
