"""A piece of an answer leaves before the backend sends the next, whatever dialects caller and backend speak."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.backend import DONE, SSE_HEAD, Script, Visit, chunk, event, hand_backend
from tests.fakes.raw_client import post, raw_client
from tests.harness import Backend, configuration, staged

MESSAGES = [{"role": "user", "content": "hi"}]
CALLERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES}, "data: [DONE]"),
    "messages": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 64}, '"type":"message_stop"'),
    "responses": ("/v1/responses", {"input": "hi"}, '"type":"response.completed"'),
}
"""Path, body, and what the last event holds, by the dialect of the caller."""
PIECES = [f"part-{number} " for number in range(3)]


def named(kind: str, **members: Any) -> bytes:
    """Return an event of Messages or Responses."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def chat() -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return what a chat stream begins with, its pieces, and its end."""
    return [], [event(chunk(piece)) for piece in PIECES], [event(chunk(finish="stop")), DONE]


def messages() -> tuple[list[bytes], list[bytes], list[bytes]]:
    """As ``chat`` for Anthropic's messages."""
    message: dict[str, object] = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 2, "output_tokens": 1},
    }  # fmt: skip
    first = [
        named("message_start", message=message),
        named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    ]
    pieces = [named("content_block_delta", index=0, delta={"type": "text_delta", "text": piece}) for piece in PIECES]
    last = [
        named("content_block_stop", index=0),
        named("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 3}),
        named("message_stop"),
    ]
    return first, pieces, last


def responses() -> tuple[list[bytes], list[bytes], list[bytes]]:
    """As ``chat`` for OpenAI's responses."""
    text = "".join(PIECES)
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    response = {
        "id": "resp_1", "object": "response", "created_at": 1763700000, "model": "m", "status": "in_progress",
        "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {},
    }  # fmt: skip
    usage = {
        "input_tokens": 2, "output_tokens": 3, "total_tokens": 5, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    empty = {**item, "status": "in_progress", "content": []}
    steps: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": response}),
        ("response.output_item.added", {"output_index": 0, "item": empty}),
        ("response.content_part.added", {**place, "part": {**part, "text": ""}}),
        *(("response.output_text.delta", {**place, "delta": piece, "logprobs": []}) for piece in PIECES),
        ("response.output_text.done", {**place, "text": text, "logprobs": []}),
        ("response.content_part.done", {**place, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": item}),
        ("response.completed", {"response": {**response, "status": "completed", "output": [item], "usage": usage}}),
    ]
    told = [named(kind, sequence_number=number, **members) for number, (kind, members) in enumerate(steps)]
    return told[:3], told[3:6], told[6:]


BACKENDS = {
    "chat": (chat, "openai", ""),
    "messages": (messages, "anthropic", ""),
    "responses": (responses, "openai", "dialects: [responses]"),
}
"""Events, kind and configuration, by the dialect of the backend."""


def slowly(spoken: tuple[list[bytes], list[bytes], list[bytes]], seen: list[asyncio.Event]) -> Script:
    """Return a backend that sends a piece only 200 ms after the caller has ``seen`` the one before."""
    first, pieces, last = spoken

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        if first:
            await visit.events(*first)
        for piece, each in zip(pieces, seen, strict=True):
            await visit.events(piece)
            async with asyncio.timeout(10):
                await each.wait()
            await asyncio.sleep(0.2)
        await visit.events(*last, last=True)

    return script


@pytest.mark.parametrize(
    ("caller", "backend"),
    [(caller, backend) for caller in CALLERS for backend in ("chat", "messages")] + [("responses", "responses")],
)
async def test_a_piece_arrives_before_the_next_is_sent(caller: str, backend: str, tmp_path: Path) -> None:
    """Chat, messages and responses, over a backend of each dialect: none is held back by a translation."""
    spoken, kind, more = BACKENDS[backend]
    path, body, end = CALLERS[caller]
    seen = [asyncio.Event() for _ in PIECES]
    async with (
        hand_backend(slowly(spoken(), seen)) as server,
        staged(tmp_path, configuration([Backend("only", server.url, kind, more=more)])) as stage,
        raw_client(stage.port) as client,
    ):
        await client.send(post(path, {"model": "qwen/qwen3-32b", "stream": True, **body}, stage.key))
        for piece, each in zip(PIECES, seen, strict=True):
            await client.until(piece.encode())
            each.set()
        answer = (await client.response()).body.decode()
        assert end in answer.replace(": ", ":").replace("data:[", "data: [")
        assert (await server.visit()).path == CALLERS[backend][0], "asked in its own dialect"
