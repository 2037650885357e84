"""Callers and an API that both speak messages: what one says reaches the other as it was said.

The API is a backend written by hand, for what no simulator says: citations, tools of the provider, members and blocks
that nobody knows yet, and exact moments.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic, beta_async_tool

from gateway.metering.journal import Journal
from tests.fakes.backend import SSE_HEAD, HandBackend, Visit, hand_backend
from tests.fakes.backend import whole as chatted
from tests.harness import Backend, Stage, configuration, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-ant-of-the-tests"
MODEL = "qwen/qwen3-32b"
HI: Any = [{"role": "user", "content": "Tell me about weirs."}]
USAGE = {
    "input_tokens": 5,
    "cache_creation_input_tokens": 7,
    "cache_read_input_tokens": 11,
    "output_tokens": 13,
    "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
    "server_tool_use": {"web_search_requests": 1},
}
PRICE = 'price: {prompt: "1", completion: "3", cache_read: "0.1", cache_write: "1.25", cache_write_1h: "2"}'
BLOCKS: list[dict[str, Any]] = [
    {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "weirs"}},
    {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"url": "https://a", "page_age": None}]},
    {"type": "text", "text": "Weirs.", "citations": [{"type": "char_location", "cited_text": "w", "new": 1}]},
    {"type": "of_tomorrow", "payload": [1, None]},
]
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "up",
    "content": BLOCKS,
    "stop_reason": "pause_turn",
    "stop_sequence": None,
    "container": {"id": "c"},
    "usage": USAGE,
    "extra": {"a": 1},
}
START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        **MESSAGE,
        "content": [],
        "usage": {"input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": 4},
    },
}
MIDDLE: list[dict[str, Any]] = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sealed"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "", "citations": []}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": {"n": 1}}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Weirs."}},
    {"type": "of_tomorrow", "index": 9, "more": [None]},
    {"type": "ping"},
    {"type": "content_block_stop", "index": 1},
]
ENDING: dict[str, Any] = {
    "type": "message_delta",
    "delta": {"stop_reason": "refusal", "stop_sequence": None, "stop_details": {"category": "x"}},
    "usage": {"output_tokens": 9},
    "context_management": {"applied_edits": []},
}


def framed(*documents: dict[str, Any]) -> bytes:
    """Return events as Anthropic sends them."""
    return b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in documents)


def events(text: str) -> list[dict[str, Any]]:
    """Return the events of a stream, each named as it should be."""
    parts = [part.split("\n") for part in text.split("\n\n") if part]
    found: list[dict[str, Any]] = [json.loads(data.removeprefix("data: ")) for _, data in parts]
    assert [name for name, _ in parts] == [f"event: {document['type']}" for document in found]
    return found


async def whole(visit: Visit) -> None:
    """Answer with ``MESSAGE``."""
    await visit.answer(MESSAGE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Stage, HandBackend]]:
    """A gateway over two replicas of one hand-written Anthropic."""
    os.environ["NATIVE_KEY"] = KEY
    async with hand_backend(whole) as hand:
        key, limit = 'api_key: "${NATIVE_KEY}"', f"max_output: 4000, {PRICE}"
        backends = [Backend(name, hand.url, "anthropic", "up", more=key, endpoint=limit) for name in ("one", "two")]
        async with staged(tmp_path_factory.mktemp("native"), configuration(backends)) as stage:
            yield stage, hand
    del os.environ["NATIVE_KEY"]


@pytest.fixture
def scene(both: tuple[Stage, HandBackend]) -> tuple[Stage, HandBackend]:
    """The gateway and its backend, which answers with ``MESSAGE`` and was never asked."""
    stage, hand = both
    hand.script = whole
    hand.visits.clear()
    for replica in stage.gateway.registry.fleet.replicas.values():
        replica.load.ejected_until = replica.load.cooling_until = 0.0
    return both


async def post(stage: Stage, headers: dict[str, str] | None = None, **body: Any) -> Any:
    """Post a Messages request."""
    asked = {"model": MODEL, "max_tokens": 50, "messages": HI} | body
    lines = {"x-api-key": stage.key, **(headers or {})}
    return await stage.http.post(stage.url + "/v1/messages?beta=true", json=asked, headers=lines)


async def test_a_request_and_its_answer_arrive_as_they_are(scene: tuple[Stage, HandBackend]) -> None:
    """Unknown members, blocks and tools pass both ways, but for fields that nobody may send; usage gets its cost."""
    stage, hand = scene
    marked = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    asked = {
        "model": MODEL,
        "max_tokens": 50,
        "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}],
        "messages": [{"role": "user", "content": [{"type": "of_tomorrow", "x": 1}, marked]}],
        "context_management": {"edits": []},
        "made_up": {"deep": [1]},
    }
    headers = {"anthropic-beta": "web-search-2025-03-05, new-thing", "anthropic-version": "2024-02-03"}
    answer = await post(stage, headers, **asked, api_base="x", priority=9)
    assert answer.status_code == 200, answer.text
    head = hand.visits[-1].head
    assert b"\r\nanthropic-beta: web-search-2025-03-05,new-thing\r\n" in head
    assert f"\r\nx-api-key: {KEY}\r\n".encode() in head
    assert head.count(b"\r\nanthropic-version: 2024-02-03\r\n") == head.count(b"anthropic-version") == 1
    assert b"authorization" not in head.lower()
    assert hand.visits[-1].path == "/v1/messages"
    assert hand.visits[-1].document == asked | {"model": "up", "stream": False}
    body = answer.json()
    assert (
        body.items() >= {name: value for name, value in MESSAGE.items() if name not in {"id", "model", "usage"}}.items()
    )
    assert USAGE.items() <= body["usage"].items()
    assert (body["model"], body["id"]) == (MODEL, answer.headers["x-generation-id"])
    record = await stage.generation(body["id"])
    assert (record["native_tokens_prompt"], record["native_tokens_completion"]) == (23, 13)
    assert record["native_tokens_cached"] == 11
    # 5 tokens at 1, 13 at 3, 11 at 0.1, 3 kept for minutes at 1.25 and 4 for an hour at 2 USD per million.
    assert record["total_cost"] == body["usage"]["cost"] == 0.00005685
    # The 18 of the cache would have cost 18 at 1, and cost 12.85.
    assert record["cache_discount"] == 0.00000515


async def test_conversations_are_not_left_with_the_provider(scene: tuple[Stage, HandBackend]) -> None:
    """A tool runner sends only what is new of a thread, unless it is told that there are none: then it sends all."""
    stage, hand = scene
    used = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Basel"}}

    async def script(visit: Visit) -> None:
        asked = len(visit.document["messages"]) == 1
        content = [used] if asked else [{"type": "text", "text": "It rains."}]
        await visit.answer({**MESSAGE, "content": content, "stop_reason": "tool_use" if asked else "end_turn"})

    @beta_async_tool
    async def weather(city: str) -> str:
        """Tell the weather."""
        return f"rain in {city}"

    hand.script = script
    async with AsyncAnthropic(api_key=stage.key, base_url=stage.url, max_retries=0) as client:
        runner = client.beta.messages.tool_runner(model=MODEL, max_tokens=50, messages=HI, tools=[weather])
        last = await runner.until_done()
    assert last.content[0].type == "text"
    first, second = (visit.document for visit in hand.visits)
    assert "thread" not in first
    assert [each["role"] for each in second["messages"]] == ["user", "assistant", "user"]
    refused = await post(stage, thread={"type": "continue", "previous_message_id": last.id})
    assert refused.status_code == 400
    assert refused.json()["error"]["details"] == {"error_code": "thread_unsupported_request"}
    assert len(hand.visits) == 2


async def test_a_beta_that_is_no_name_is_not_sent(scene: tuple[Stage, HandBackend]) -> None:
    """What could be a header of its own, or is no name, never leaves."""
    stage, hand = scene
    await post(stage, {"anthropic-version": "2024-02-03 x"})
    assert b"\r\nanthropic-version: 2023-06-01\r\n" in hand.visits[-1].head
    for value in ("a b; c", "x" * 100, "a,,b", "a:b", ""):
        assert (await post(stage, {"anthropic-beta": value})).status_code == 200
        assert b"anthropic-beta" not in hand.visits[-1].head


async def test_a_stream_arrives_as_it_is(scene: tuple[Stage, HandBackend]) -> None:
    """Events pass as they were sent and in their order; id, model and usage are the gateway's."""
    stage, hand = scene

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        for document in (START, *MIDDLE, ENDING, {"type": "message_stop"}):
            await visit.events(framed(document))
        await visit.events(last=True)

    hand.script = script
    answer = await post(stage, stream=True)
    found = events(answer.text)
    assert found[1:-2] == MIDDLE
    start = found[0]["message"]
    assert (start["usage"], start["model"]) == (START["message"]["usage"], MODEL)
    said = found[-2]
    assert (said["delta"], said["context_management"]) == (ENDING["delta"], ENDING["context_management"])
    assert {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 9}.items() <= said["usage"].items()
    assert found[-1] == {"type": "message_stop"}


async def test_a_chunk_leaves_before_the_next_arrives(scene: tuple[Stage, HandBackend]) -> None:
    """Every piece is with the caller while the backend still waits, passed on or translated."""
    stage, hand = scene
    reached = asyncio.Event()

    def piece(text: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}

    async def script(visit: Visit) -> None:
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        await visit.send(SSE_HEAD)
        await visit.events(framed(START, block, piece("a")))
        await asyncio.wait_for(reached.wait(), 60)
        stop = {"type": "content_block_stop", "index": 0}
        await visit.events(framed(piece("b"), stop, ENDING, {"type": "message_stop"}), last=True)

    hand.script = script
    async with (
        AsyncAnthropic(api_key=stage.key, base_url=stage.url, max_retries=0) as client,
        client.messages.stream(model=MODEL, max_tokens=9, messages=HI) as stream,
    ):
        async for text in stream.text_stream:
            assert text == ("b" if reached.is_set() else "a")
            reached.set()
    reached.clear()
    async for part in await stage.openai().chat.completions.create(model=MODEL, messages=HI, stream=True):
        if part.choices and part.choices[0].delta.content:
            assert part.choices[0].delta.content == ("b" if reached.is_set() else "a")
            reached.set()
    assert reached.is_set()


async def test_an_answer_that_breaks_before_it_says_anything_begins_anew(scene: tuple[Stage, HandBackend]) -> None:
    """Of a stream that broke behind its opening the caller sees one message, not two beginnings."""
    stage, hand = scene

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(framed(START, {"type": "ping"}, MIDDLE[0]))
        if len(hand.visits) == 1:
            visit.writer.transport.abort()
            return
        await visit.events(framed(*MIDDLE[1:], ENDING, {"type": "message_stop"}), last=True)

    hand.script = script
    found = events((await post(stage, stream=True)).text)
    assert len(hand.visits) == 2
    assert [event["type"] for event in found].count("message_start") == 1
    assert [event for event in found if event["type"] == "content_block_start"] == [MIDDLE[0], MIDDLE[3]]
    assert found[-1] == {"type": "message_stop"}


async def test_a_caller_that_waits_is_told_so(scene: tuple[Stage, HandBackend]) -> None:
    """Pings come while nothing else does, and the message behind them is whole."""
    stage, hand = scene
    told = asyncio.Event()

    async def script(visit: Visit) -> None:
        await asyncio.wait_for(told.wait(), 60)
        await visit.send(SSE_HEAD)
        await visit.events(framed(START, *MIDDLE, ENDING, {"type": "message_stop"}), last=True)

    hand.script = script
    comforting = asyncio.create_task(stage.gateway.inference.comfort(0.1))
    body = {"model": MODEL, "max_tokens": 50, "messages": HI, "stream": True}
    found = ""
    async with stage.http.stream("POST", stage.url + "/api/v1/messages", json=body, headers=stage.headers) as answer:
        async for text in answer.aiter_text():
            found += text
            assert found.startswith("event: ping\n")
            told.set()
    comforting.cancel()
    said = "".join(part for part in found.splitlines(keepends=True) if not part.startswith(":"))
    said = said.replace('event: ping\ndata: {"type": "ping"}\n\n', "")
    assert events(said.lstrip("\n"))[1:-2] == MIDDLE


async def test_a_budget_follows_the_length(scene: tuple[Stage, HandBackend]) -> None:
    """A thinking budget that no longer fits an answer that may not be so long here is shortened, too."""
    stage, hand = scene
    for budget, sent in ((1024, 1024), (30_000, 3999)):
        thinking = {"type": "enabled", "budget_tokens": budget}
        assert (await post(stage, thinking=thinking, max_tokens=30_001)).status_code == 200
        assert hand.visits[-1].document["thinking"] == {"type": "enabled", "budget_tokens": sent}
        assert hand.visits[-1].document["max_tokens"] == 4000


async def test_what_others_cannot_say_is_left_to_the_tables(scene: tuple[Stage, HandBackend]) -> None:
    """A chat caller gets the text of such an answer and why it ended; blocks of the provider's tools are not said."""
    stage, _ = scene
    choice = (await stage.chat()).json()["choices"][0]
    assert choice["message"]["content"] == "Weirs."
    assert choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]


async def test_an_engine_may_speak_messages_besides(tmp_path: Path) -> None:
    """A backend whose ``dialects`` say so gets messages as they are, in its own way of presenting keys."""
    async with hand_backend(whole) as hand:
        backend = Backend("gpu", hand.url, "vllm", "up", more="dialects: [messages]")
        async with staged(tmp_path, configuration([backend])) as stage:
            answer = await post(stage, top_k=3)
            assert answer.json()["content"] == BLOCKS
            assert hand.visits[-1].path == "/v1/messages"
            assert b"x-api-key" not in hand.visits[-1].head.lower()
            assert hand.visits[-1].document["top_k"] == 3


async def test_an_external_api_is_not_asked_for_what_it_does_not_know(tmp_path: Path) -> None:
    """An answer that was begun reaches kind openai without the fields by which own engines are told to go on."""

    async def script(visit: Visit) -> None:
        await visit.answer(chatted("on."))

    async with hand_backend(script) as hand:
        backend = Backend("api", hand.url, "openai", "up")
        async with staged(tmp_path, configuration([backend])) as stage:
            answer = await post(stage, messages=[*HI, {"role": "assistant", "content": "Go"}])
            assert answer.json()["content"] == [{"type": "text", "text": "on."}]
            sent = hand.visits[-1].document
            assert sent["messages"][-1] == {"role": "assistant", "content": "Go"}
            assert not {"continue_final_message", "add_generation_prompt"} & sent.keys()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
async def test_the_end_waits_for_the_disk(
    scene: tuple[Stage, HandBackend], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """From the event that says why a message ended on, nothing leaves before its CLOSE record is durable."""
    stage, hand = scene
    durable = asyncio.Event()
    commit = Journal.commit

    async def late(journal: Journal) -> None:
        await durable.wait()
        await commit(journal)

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(framed(START, *MIDDLE, ENDING, {"type": "message_stop"}), last=True)

    hand.script = script
    monkeypatch.setattr(Journal, "commit", late)
    body = {"model": MODEL, "max_tokens": 50, "messages": HI, "stream": True}
    found = ""
    async with stage.http.stream("POST", stage.url + path, json=body, headers=stage.headers) as answer:
        async for text in answer.aiter_text():
            found += text
            if "Weirs." in found and not durable.is_set():
                await asyncio.sleep(0.05)
                assert "message_delta" not in found
                assert "content_filter" not in found
                durable.set()
    assert ("message_stop" if path.endswith("messages") else "[DONE]") in found


async def test_nobody_goes_on_in_the_middle_of_native_events(tmp_path: Path) -> None:
    """A native stream that breaks behind its first words ends in an error event, not in another engine's words."""
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    words = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "One two"}}

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(framed(START, block, words))
        visit.writer.transport.abort()

    async with hand_backend(script) as hand:
        backends = [Backend(name, hand.url, "vllm", "up", more="dialects: [messages]") for name in ("one", "two")]
        async with staged(tmp_path, configuration(backends)) as stage:
            found = events((await post(stage, stream=True)).text)
    kinds = [each["type"] for each in found]
    assert kinds == ["message_start", "content_block_start", "content_block_delta", "error"]
    assert len(hand.visits) == 1
