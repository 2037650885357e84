"""Parallel tool calls of engines that give all of them one number, or none: callers can tell them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.backend import DONE, SSE_HEAD, Visit, chunk, event, hand_backend, usage_chunk
from tests.fakes.raw_client import events
from tests.harness import Backend, configuration, staged

Call = dict[str, Any]


def call(identity: str | None = None, name: str | None = None, arguments: str = "", index: int | None = 0) -> Call:
    """Return what a delta says of a call."""
    said: Call = {"function": {"arguments": arguments} | ({} if name is None else {"name": name})}
    if index is not None:
        said["index"] = index
    return said if identity is None else said | {"id": identity, "type": "function"}


DELTAS: dict[str, list[list[Call]]] = {
    "one number for all": [[call("a", "look", '{"x":1}')], [call("b", "look", '{"x":2}')]],
    "no number, one by one": [
        [call("a", "look", '{"x":1}', index=None)],
        [call("b", "look", '{"x":2}', index=None)],
    ],
    "no number, together": [
        [call("a", "look", '{"x":1}', index=None), call("b", "look", '{"x":2}', index=None)],
    ],
    "one number, in pieces": [
        [call("a", "look", '{"x"')],
        [call(None, None, ":1}")],
        [call("b", "look", "")],
        [call(None, None, '{"x"')],
        [call("b", None, ":2}")],
    ],
    "one number, then the next": [[call("a", "look", '{"x":1}')], [call("b", "look", '{"x":2}', index=1)]],
    "who repeats itself": [
        [call("a", "look", '{"x"')],
        [call("a", None, ":1}")],
        [call("b", "look", '{"x":2}', index=1)],
    ],
}


@pytest.mark.parametrize("name", DELTAS)
async def test_every_call_is_one(name: str, tmp_path: Path) -> None:
    """In a stream by its number, and put together in every dialect."""

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        for calls in DELTAS[name]:
            said = chunk()
            said["choices"][0]["delta"] = {"tool_calls": calls}
            await visit.events(event(said))
        await visit.events(event(chunk(finish="tool_calls")), DONE, last=True)

    backend_more = "on_disconnect: count"  # whole answers are streamed inside
    async with hand_backend(script) as engine:
        text = configuration([Backend("a", engine.url, "openai", more=backend_more)])
        async with staged(tmp_path, text) as stage:
            streamed = events((await stage.chat(stream=True)).content)
            folded = (await stage.chat()).json()
            asked = {"model": "qwen/qwen3-32b", "max_tokens": 9, "messages": [{"role": "user", "content": "Look."}]}
            messages = await stage.http.post(f"{stage.url}/v1/messages", json=asked, headers=stage.headers)
    merged: dict[int, list[str]] = {}
    for each in streamed[:-1]:
        for part in each["choices"][0]["delta"].get("tool_calls", []):
            one = merged.setdefault(part["index"], ["", ""])
            one[0] = part.get("id", one[0])
            one[1] += part["function"].get("arguments", "")
    expected = [["a", '{"x":1}'], ["b", '{"x":2}']]
    assert [merged[index] for index in sorted(merged)] == expected
    whole = folded["choices"][0]["message"]["tool_calls"]
    assert [[each["id"], each["function"]["arguments"]] for each in whole] == expected
    assert [each["function"]["name"] for each in whole] == ["look", "look"]
    blocks = messages.json()["content"]
    assert [(each["id"], each["name"], each["input"]) for each in blocks] == [
        ("a", "look", {"x": 1}),
        ("b", "look", {"x": 2}),
    ]


NAMELESS: dict[str, list[Call]] = {
    "no id": [call(None, "look", '{"x"'), call(None, None, ":1}")],
    "an empty one": [call("", "look", '{"x"'), call("", None, ":1}")],
    "an id that comes late": [call(None, "look", '{"x"'), call("late", None, ":1}")],
    "a name that comes late": [call("a", None), call(None, "look", '{"x":1}')],
    "a name that is repeated": [call(None, "look", '{"x"'), call(None, "look", ":1}")],
}


@pytest.mark.parametrize("name", NAMELESS)
async def test_a_call_has_one_id(name: str, tmp_path: Path) -> None:
    """Clients need it to say whose result they send; some versions of vLLM and others leave it out of streams."""

    async def script(visit: Visit) -> None:
        if not visit.document["stream"]:
            made = {"function": {"name": "look", "arguments": None}} | ({"id": ""} if "empty" in name else {})
            said = {"role": "assistant", "content": None, "tool_calls": [made]}
            choices = [{"index": 0, "message": said, "finish_reason": "tool_calls"}]
            await visit.answer(usage_chunk(1) | {"choices": choices})
            return
        await visit.send(SSE_HEAD)
        for each in NAMELESS[name]:
            begun = chunk()
            begun["choices"][0]["delta"] = {"tool_calls": [each]}
            await visit.events(event(begun))
        await visit.events(event(chunk(finish="tool_calls")), DONE, last=True)

    async with (
        hand_backend(script) as engine,
        staged(tmp_path, configuration([Backend("a", engine.url)])) as stage,
    ):
        streamed = events((await stage.chat(stream=True)).content)
        whole = (await stage.chat()).json()["choices"][0]["message"]["tool_calls"]
    parts = [part for each in streamed[:-1] for part in each["choices"][0]["delta"].get("tool_calls", [])]
    ids = [part["id"] for part in parts if part.get("id")]
    assert len(ids) == 1
    assert parts[0]["index"] == 0
    assert "".join(part["function"]["arguments"] for part in parts) == '{"x":1}'
    assert (whole[0]["type"], whole[0]["function"]["arguments"]) == ("function", "{}")
    assert whole[0]["id"].startswith("call_")


async def test_usage_may_come_with_null_for_choices(tmp_path: Path) -> None:
    """Some APIs send it so behind the answer."""

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk("hello")), event(chunk(finish="stop")))
        await visit.events(event(usage_chunk(1) | {"choices": None}), DONE, last=True)

    async with (
        hand_backend(script) as engine,
        staged(tmp_path, configuration([Backend("a", engine.url, "openai")])) as stage,
    ):
        answer = await stage.chat(stream=True)
        assert events(answer.content)[-1] == "[DONE]"
        found = await stage.generation(answer.headers["x-generation-id"])
    assert (found["tokens_prompt"], found["tokens_completion"], found["status"]) == (7, 1, "ok")
