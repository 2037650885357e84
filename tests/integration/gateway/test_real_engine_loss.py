"""A real engine loses its callers, and callers lose an engine: slots are freed, answers go on elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from gateway.types.generation import AttemptRecord
from tests.engine.llama_server import LlamaServer
from tests.harness import Backend, Stage, configuration, staged

pytestmark = pytest.mark.real_engine

MODEL = "qwen/qwen3-32b"
LONG = 1500
"""Tokens of an answer that takes the slow engine some ten seconds."""


@pytest.fixture
async def stage(tmp_path: Path, slow_server: LlamaServer) -> AsyncIterator[Stage]:
    """A gateway over one slow engine with two slots."""
    backend = Backend("slow", slow_server.url, "llamacpp", "tiny-qwen3")
    async with staged(tmp_path, configuration([backend])) as stage:
        yield stage


async def metrics(server: LlamaServer) -> dict[str, float]:
    """Return the engine's metrics."""
    return await asyncio.to_thread(server.metrics)


async def until(server: LlamaServer, true: Callable[[dict[str, float]], bool]) -> None:
    """Wait until the engine's metrics are so."""
    async with asyncio.timeout(20):
        while not true(await metrics(server)):
            await asyncio.sleep(0.05)


def processing(count: int) -> Callable[[dict[str, float]], bool]:
    """Return whether an engine works on ``count`` requests."""
    return lambda values: values["llamacpp:requests_processing"] == count


def request(content: str = "hello", **more: Any) -> dict[str, Any]:
    """Return a chat request for a long answer."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": LONG}
    return body | more


@asynccontextmanager
async def begun(stage: Stage, content: str = "hello", chunks: int = 1) -> AsyncIterator[str]:
    """Start a stream, give its id to the block once ``chunks`` chunks have come, and leave it in the middle."""
    url = f"{stage.url}/v1/chat/completions"
    body = request(content, stream=True)
    async with stage.http.stream("POST", url, json=body, headers=stage.headers) as response:
        async for line in response.aiter_lines():
            chunks -= line.startswith("data: ")
            if chunks == 0:
                yield response.headers["x-generation-id"]
                return


async def row_of(stage: Stage, identity: str = "") -> AttemptRecord:
    """Return the only try of the newest request, or of ``identity``, from the ledger."""
    async with asyncio.timeout(10):
        while True:
            (record,) = await stage.settled()
            if identity in {"", "gen-" + record.request_id.hex()}:
                (row,) = record.attempts
                return row
            await asyncio.sleep(0.05)


async def test_leaving_in_the_middle_frees_the_slot(stage: Stage, slow_server: LlamaServer) -> None:
    """The engine stops within a few tokens of the last one that came, and these are what the caller pays."""
    before = await metrics(slow_server)
    async with begun(stage, chunks=8) as identity:
        pass
    await asyncio.to_thread(slow_server.wait_idle)
    after = await metrics(slow_server)
    decodes = after["llamacpp:n_decode_total"] - before["llamacpp:n_decode_total"]
    row = await row_of(stage, identity)
    assert (row.status, row.source) == ("client_cancel", "counted")
    assert 7 <= row.usage.completion <= decodes < LONG / 2
    assert row.charge_nano == row.usage.prompt * 100 + row.usage.completion * 300


async def test_leaving_a_json_answer_frees_the_slot(stage: Stage, slow_server: LlamaServer) -> None:
    """A whole answer is streamed from the engine, so that it too stops at once; what was made by then is paid."""
    before = await metrics(slow_server)
    asking = asyncio.create_task(stage.chat(request()))
    await until(slow_server, lambda now: now["llamacpp:n_decode_total"] > before["llamacpp:n_decode_total"] + 10)
    asking.cancel()
    await asyncio.to_thread(slow_server.wait_idle)
    decodes = (await metrics(slow_server))["llamacpp:n_decode_total"] - before["llamacpp:n_decode_total"]
    row = await row_of(stage)
    assert (row.status, row.source, row.streamed) == ("client_cancel", "counted", False)
    assert 5 <= row.usage.completion <= decodes < LONG / 2
    assert row.charge_nano > 0


async def test_leaving_while_the_prompt_is_read_frees_the_slot(stage: Stage, slow_server: LlamaServer) -> None:
    """The engine stops between two batches of the prompt, at the latest at its first token; nothing is paid.

    It looks for its caller only after a second without any other question, and the gateway's probes ask about once a
    second: the test must not ask much on top of that.
    """
    content = "gate brook " * 400
    before = await metrics(slow_server)
    asking = asyncio.create_task(stage.chat(request(content), stream=True))
    await until(slow_server, processing(1))
    asking.cancel()
    await asyncio.sleep(1.0)
    await asyncio.to_thread(slow_server.wait_idle)
    after = await metrics(slow_server)
    assert after["llamacpp:tokens_predicted_total"] - before["llamacpp:tokens_predicted_total"] < 10
    row = await row_of(stage)
    assert (row.status, row.usage.total, row.charge_nano) == ("client_cancel", 0, 0)


async def test_leaving_the_engines_queue_leaves_nothing_behind(stage: Stage, slow_server: LlamaServer) -> None:
    """While both slots are busy a third request waits inside the engine; left there, it is never worked on."""
    content = "gate brook " * 100
    length = slow_server.model.count_chat([{"role": "user", "content": content}])
    async with begun(stage, "one"), begun(stage, "two"):
        before = await metrics(slow_server)
        asking = asyncio.create_task(stage.chat(request(content), stream=True))
        await until(slow_server, lambda now: now["llamacpp:requests_deferred"] == 1)
        asking.cancel()
        row = await row_of(stage)
        assert (row.status, row.usage.total, row.charge_nano) == ("client_cancel", 0, 0)
    await asyncio.to_thread(slow_server.wait_idle)
    after = await metrics(slow_server)
    assert (after["llamacpp:requests_deferred"], after["llamacpp:requests_processing"]) == (0, 0)
    assert after["llamacpp:prompt_tokens_total"] - before["llamacpp:prompt_tokens_total"] < length / 2
    rows = [record.attempts[0].status for record in await stage.settled(3)]
    assert rows == ["client_cancel"] * 3


async def test_an_engine_dies_under_its_answers(tmp_path: Path, slow_server: LlamaServer) -> None:
    """Killed in the middle: JSON callers get a whole answer elsewhere, and streams that had begun go on there."""
    with LlamaServer(slow_server.model, n_parallel=4) as doomed:
        backends = [
            Backend(name, server.url, "llamacpp", "tiny-qwen3")
            for name, server in (("lasting", slow_server), ("doomed", doomed))
        ]
        async with staged(tmp_path, configuration(backends)) as stage:
            client = stage.openai()

            async def ask(number: int) -> ChatCompletion:
                answer: ChatCompletion = await client.chat.completions.create(**request(f"{number}", max_tokens=160))
                return answer

            async def stream(number: int) -> str:
                text = ""
                answer: Any = await client.chat.completions.create(**request(f"{number}", max_tokens=160), stream=True)
                async for chunk in answer:
                    text += chunk.choices[0].delta.content or ""
                    finish = chunk.choices[0].finish_reason
                assert finish == "length"
                return text

            asked = [asyncio.create_task(ask(number)) for number in range(4)]
            streamed = [asyncio.create_task(stream(number)) for number in range(4)]
            await until(doomed, lambda now: now["llamacpp:requests_processing"] > 0)
            await until(doomed, lambda now: now["llamacpp:n_decode_total"] > 24)
            await asyncio.to_thread(doomed.kill)
            answers = await asyncio.gather(*asked)
            ends = await asyncio.gather(*streamed)
            for answer in answers:
                assert answer.usage is not None
                assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (160, "length")
            assert all(ends)
            later = await ask(9)
            assert later.choices[0].finish_reason == "length"
            await stage.generation(later.id)  # once the last is in the ledger, so are those before it

            found = await stage.settled(9)
            rows = [row for record in found for row in record.attempts]
            lost = [row for row in rows if row.status in {"failed", "continued"}]
            assert {row.backend for row in lost} == {"doomed"}
            assert sum(row.usage.completion for row in lost) > 0
            assert all(row.charge_nano == 0 for row in lost if row.status == "failed")
            assert [row.status for row in rows if row not in lost] == ["ok"] * 9
            for record in found:
                paid = [row for row in record.attempts if row.status != "failed"]
                assert sum(row.usage.completion for row in paid) == 160
            report = await stage.keeper.audit()
            assert report.ok, report.mismatches
