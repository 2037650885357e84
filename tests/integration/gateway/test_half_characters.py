"""Engines that count in UTF-16 cut an emoji in two: its halves are joined again, and one alone is no broken answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.backend import DONE, SSE_HEAD, Visit, chunk, event, hand_backend, whole
from tests.fakes.raw_client import events
from tests.harness import Backend, configuration, staged

HIGH, LOW, LOST = "\ud83d", "\ude00", "\ufffd"
STREAMS: dict[str, tuple[list[str | None], str]] = {
    "joined": (["weirs ", HIGH, LOW + "!", " done"], "weirs \U0001f600! done"),
    "joined behind text": (["a" + HIGH, LOW + "b" + HIGH, LOW], "a\U0001f600b\U0001f600"),
    "joined over a chunk that says nothing": (["a" + HIGH, "", None, LOW], "a\U0001f600"),
    "the first alone": (["a" + HIGH, "b", "c"], "a" + LOST + "bc"),
    "the second alone": (["a", LOW + "b"], "a" + LOST + "b"),
    "the first at the end": (["a" + HIGH], "a" + LOST),
    "in the middle": (["a" + HIGH + "b", HIGH + LOW], "a" + LOST + "b\U0001f600"),
    "not cut": (["a\\ud83d", "\\\\ud83d"], "a\\ud83d\\\\ud83d"),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
async def test_a_stream_joins_what_was_cut(name: str, path: str, tmp_path: Path) -> None:
    """The caller reads the character; where a half is missing, the mark of one that is not known."""
    pieces, text = STREAMS[name]
    chat = path.startswith("chat")

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        for piece in pieces:
            await visit.events(event(chunk(piece, chat=chat)))
        await visit.events(event(chunk(finish="stop", chat=chat)), DONE, last=True)

    asked: dict[str, Any] = {"prompt": "A weir is", "model": "qwen/qwen3-32b", "stream": True}
    if chat:
        asked["messages"] = [{"role": "user", "content": asked.pop("prompt")}]
    async with hand_backend(script) as engine, staged(tmp_path, configuration([Backend("a", engine.url)])) as stage:
        answer = await stage.http.post(f"{stage.url}/v1/{path}", json=asked, headers=stage.headers)
        load = stage.gateway.registry.fleet.replicas["a"].load
    assert answer.status_code == 200, answer.text
    found = events(answer.content)
    assert found[-1] == "[DONE]"
    choices = [each["choices"][0] for each in found[:-1] if each["choices"]]
    assert "".join((each["delta"].get("content") if chat else each["text"]) or "" for each in choices) == text
    assert load.failures == 0


async def test_choices_keep_their_own_halves(tmp_path: Path) -> None:
    """What one choice, or its reasoning, waits for does not come from another."""

    def piece(index: int, **delta: str) -> bytes:
        document = chunk()
        document["choices"][0] |= {"index": index, "delta": delta}
        return event(document)

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(piece(0, content="a" + HIGH), piece(1, content="b" + HIGH, reasoning_content="r" + HIGH))
        await visit.events(piece(1, content="\ude01"), piece(0, content="\ude02"), piece(1, reasoning_content="s"))
        for index in (0, 1):
            document = chunk(finish="stop")
            document["choices"][0]["index"] = index
            await visit.events(event(document))
        await visit.events(DONE, last=True)

    async with hand_backend(script) as engine, staged(tmp_path, configuration([Backend("a", engine.url)])) as stage:
        answer = await stage.chat(stream=True, n=2)
    said: dict[tuple[int, str], str] = {}
    for each in events(answer.content)[:-1]:
        for choice in each["choices"]:
            for name, text in choice["delta"].items():
                said[choice["index"], name] = said.get((choice["index"], name), "") + text
    assert (said[0, "content"], said[1, "content"]) == ("a\U0001f602", "b\U0001f601")
    assert said[1, "reasoning_content"] == "r" + LOST + "s"


async def test_calls_keep_their_own_halves(tmp_path: Path) -> None:
    """Their arguments are texts, too, and come in pieces by turns."""

    def piece(index: int, arguments: str) -> bytes:
        document = chunk()
        document["choices"][0]["delta"] = {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}
        return event(document)

    async def script(visit: Visit) -> None:
        document = chunk()
        begun = [{"index": index, "id": f"c{index}", "function": {"name": "f", "arguments": ""}} for index in (0, 1)]
        document["choices"][0]["delta"] = {"tool_calls": begun}
        await visit.send(SSE_HEAD)
        await visit.events(event(document), piece(0, '{"a": "' + HIGH), piece(1, '{"b": "' + HIGH))
        await visit.events(piece(0, LOW + '"}'), piece(1, '\ude01"}'))
        await visit.events(event(chunk(finish="tool_calls")), DONE, last=True)

    async with hand_backend(script) as engine, staged(tmp_path, configuration([Backend("a", engine.url)])) as stage:
        answer = await stage.chat(stream=True)
    said = ["", ""]
    for each in events(answer.content)[:-1]:
        for call in each["choices"][0]["delta"].get("tool_calls", []):
            said[call["index"]] += call["function"]["arguments"]
    assert [json.loads(each) for each in said] == [{"a": "\U0001f600"}, {"b": "\U0001f601"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_half_a_character_anywhere_else_is_said_to_be_unknown(stream: bool, tmp_path: Path) -> None:
    """In a tool call, in a member that nobody knows, in the name of one, and in a whole answer."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "' + HIGH + '"}'}}

    async def script(visit: Visit) -> None:
        if stream:
            document = chunk(None)
            document["choices"][0]["delta"] = {"content": "a" + LOW, "tool_calls": [call]}
            await visit.send(SSE_HEAD)
            await visit.events(event(document | {"x_trace": [{"k" + HIGH: LOW}]}))
            await visit.events(event(chunk(finish="tool_calls")), DONE, last=True)
            return
        document = whole("a" + LOW)
        document["choices"][0]["message"]["tool_calls"] = [call]
        await visit.answer(document | {"x_trace": [{"k" + HIGH: LOW}]})

    async with hand_backend(script) as engine, staged(tmp_path, configuration([Backend("a", engine.url)])) as stage:
        answer = await stage.chat(stream=stream)
    assert answer.status_code == 200, answer.text
    document = events(answer.content)[0] if stream else answer.json()
    said = document["choices"][0]["delta" if stream else "message"]
    assert said["content"] == "a" + LOST
    assert json.loads(said["tool_calls"][0]["function"]["arguments"]) == {"a": LOST}
    assert document["x_trace"] == [{"k" + LOST: LOST}]


async def test_an_error_that_cuts_what_it_quotes_is_read(tmp_path: Path) -> None:
    """APIs written in JavaScript quote the first hundred units of a prompt, whatever the last of them is."""

    async def script(visit: Visit) -> None:
        facts = {"reasons": ["violence"], "flagged_input": "x" * 96 + HIGH}
        await visit.answer({"error": {"message": "flagged", "code": 403, "metadata": facts}}, "403 Forbidden")

    async with (
        hand_backend(script) as api,
        staged(tmp_path, configuration([Backend("a", api.url, "openai")])) as stage,
    ):
        answer = await stage.chat()
        assert stage.gateway.registry.fleet.replicas["a"].load.failures == 0
    assert (answer.status_code, answer.json()["error"]["metadata"]["reasons"]) == (403, ["violence"])


async def test_what_is_no_json_stays_none(tmp_path: Path) -> None:
    """Half a character excuses nothing else."""

    async def script(visit: Visit) -> None:
        await visit.answer(b'{"a": "\\ud83d", "b": NaN, "choices": []}')

    async with hand_backend(script) as engine, staged(tmp_path, configuration([Backend("a", engine.url)])) as stage:
        answer = await stage.chat()
    assert answer.status_code == 502


@pytest.mark.parametrize("stream", [False, True])
async def test_bytes_that_are_no_text_are_unknown_characters(stream: bool, tmp_path: Path) -> None:
    """Some engines send the bytes of a token as they are; whoever asks one of them itself reads U+FFFD."""
    raw = b"weirs \xff!"

    async def script(visit: Visit) -> None:
        if not stream:
            await visit.answer(json.dumps(whole("WORDS")).encode().replace(b"WORDS", raw))
            return
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk("WORDS")).replace(b"WORDS", raw))
        await visit.events(event(chunk(finish="stop")), DONE, last=True)

    async with hand_backend(script) as engine, staged(tmp_path, configuration([Backend("a", engine.url)])) as stage:
        answer = await stage.chat(stream=stream)
        load = stage.gateway.registry.fleet.replicas["a"].load
    assert answer.status_code == 200, answer.text
    text = (
        "".join(each["choices"][0]["delta"].get("content") or "" for each in events(answer.content)[:-1])
        if stream
        else answer.json()["choices"][0]["message"]["content"]
    )
    assert text == "weirs \ufffd!"
    assert load.failures == 0
