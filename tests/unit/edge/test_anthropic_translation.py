"""Nothing is lost that both sides can say: requests there and back, answers through the gateway in any pieces."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge import anthropic_messages
from gateway.edge.anthropic_events import MessageEvents
from gateway.edge.anthropic_form import content_of, stop_of
from gateway.engines.catalogue import ENGINES
from gateway.metering.tap import Basis, Tap
from gateway.types.call import Operation
from gateway.types.chunk import Chunk, ListSink
from gateway.types.failure import Cause
from gateway.types.reply import Bill
from gateway.types.tokens import Usage
from gateway.upstream.anthropic_answer import MessagesTranslator
from gateway.upstream.anthropic_request import messages_body
from gateway.upstream.attempt import Attempt
from gateway.upstream.deadlines import Deadlines
from gateway.upstream.fold import Folder, unfold
from gateway.upstream.openai import mend_answer
from gateway.upstream.wire import Connection, Pool
from tests.fakes.fuzz import cut, strict_loop
from tests.fakes.transport import FakeTransport

SAID = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(lambda text: bool(text.strip()))
NAME = st.from_regex(r"[a-zA-Z0-9_-]{1,8}", fullmatch=True)
VALUE: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(st.text("abc", min_size=1, max_size=3), VALUE, max_size=3)
MARK = st.sampled_from([{}, {"cache_control": {"type": "ephemeral"}}])
TEXT = st.builds(lambda text, mark: {"type": "text", "text": text, **mark}, SAID, MARK)
IMAGE = st.sampled_from(
    [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a?b=c"}},
    ]
)
PDF = st.builds(
    lambda title: {
        "type": "document",
        "title": title,
        "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
    },
    SAID,
)
THOUGHT = st.one_of(
    st.builds(lambda text, seal: {"type": "thinking", "thinking": text, "signature": seal}, SAID, SAID),
    st.builds(lambda data: {"type": "redacted_thinking", "data": data}, SAID),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return turns that both dialects can say, as messages say them."""
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": draw(st.lists(TEXT | IMAGE | PDF, min_size=1, max_size=3))}
    ]
    for number in range(draw(st.integers(0, 2))):
        calls = [
            {"type": "tool_use", "id": f"t{number}_{place}", "name": draw(NAME), "input": draw(OBJECT)}
            for place in range(draw(st.integers(0, 2)))
        ]
        text = draw(st.lists(TEXT, min_size=0 if calls else 1, max_size=1))
        turns.append({"role": "assistant", "content": [*draw(st.lists(THOUGHT, max_size=2)), *text, *calls]})
        results = [
            {"type": "tool_result", "tool_use_id": call["id"], "content": draw(SAID), **draw(MARK)} for call in calls
        ]
        turns.append({"role": "user", "content": [*results, *draw(st.lists(TEXT | IMAGE, min_size=1, max_size=2))]})
    return turns


@given(
    turns=conversations(),
    system=st.none() | SAID,
    more=st.fixed_dictionaries(
        {},
        optional={
            "stop_sequences": st.lists(SAID, min_size=1, max_size=2),
            "temperature": st.floats(0, 1),
            "top_p": st.floats(0, 1),
            "top_k": st.integers(1, 100),
            "metadata": st.builds(lambda user: {"user_id": user}, SAID),
            "tool_choice": st.sampled_from(
                [{"type": "auto"}, {"type": "any"}, {"type": "none"}, {"type": "tool", "name": "f"}]
            ),
            "output_config": st.just({"format": {"type": "json_schema", "schema": {"type": "object"}}}),
            "cache_control": st.just({"type": "ephemeral"}),
        },
    ),
)
def test_a_request_there_and_back_is_the_same(turns: Any, system: Any, more: Any) -> None:
    """From messages to the chat form and back to messages, a request that both can say stays what it was."""
    tools = [{"name": "f", "description": "F.", "input_schema": {"type": "object", "properties": {}}}]
    body = {"model": "m", "max_tokens": 50, "messages": turns, "tools": tools, **more}
    if system is not None:
        body["system"] = system
    call = anthropic_messages.read(copy.deepcopy(body), openrouter=False)
    assert not call.unsaid
    again = messages_body(json.loads(json.dumps(call.body)), model="m", max_tokens=50, stream=False)
    if "temperature" in body:
        body.pop("top_p", None)  # new models refuse the two together
    assert again == body


CALL = st.builds(lambda name, given: {"type": "tool_use", "id": "", "name": name, "input": given}, NAME, OBJECT)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """Return a whole message that both dialects can say: thoughts, text, calls of tools."""
    calls = draw(st.lists(CALL, max_size=3))
    for place, call in enumerate(calls):
        call["id"] = f"toolu_{place}"
    text = [{"type": "text", "text": draw(SAID)}] if draw(st.booleans()) or not calls else []
    reason = "tool_use" if calls else draw(st.sampled_from(["end_turn", "max_tokens", "refusal", "stop_sequence"]))
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "up",
        "content": [*draw(st.lists(THOUGHT, max_size=2)), *text, *calls],
        "stop_reason": reason,
        "stop_sequence": "END" if reason == "stop_sequence" else None,
        "usage": {
            "input_tokens": draw(st.integers(1, 99)),
            "cache_read_input_tokens": draw(st.integers(0, 99)),
            "cache_creation_input_tokens": draw(st.integers(0, 99)),
            "output_tokens": draw(st.integers(1, 99)),
        },
    }


def streamed(message: dict[str, Any], sizes: list[int]) -> list[dict[str, Any]]:
    """Return the events of a message, its texts cut into pieces of ``sizes``."""
    usage = {**message["usage"], "output_tokens": 1}
    opening = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": opening}, {"type": "ping"}]
    for index, block in enumerate(message["content"]):
        kind = block["type"]
        member, delta, text = {
            "text": ("text", "text_delta", block.get("text")),
            "thinking": ("thinking", "thinking_delta", block.get("thinking")),
            "tool_use": ("partial_json", "input_json_delta", json.dumps(block.get("input"), ensure_ascii=False)),
        }.get(kind, ("", "", ""))
        empty: dict[str, Any] = {
            "text": {"text": ""},
            "thinking": {"thinking": "", "signature": ""},
            "tool_use": {"input": {}},
        }
        events.append(
            {"type": "content_block_start", "index": index, "content_block": {**block, **empty.get(kind, {})}}
        )
        events += [
            {"type": "content_block_delta", "index": index, "delta": {"type": delta, member: piece}}
            for piece in _pieces(text or "", sizes)
        ]
        if kind == "thinking":
            seal = {"type": "signature_delta", "signature": block["signature"]}
            events.append({"type": "content_block_delta", "index": index, "delta": seal})
        events.append({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    events.append(
        {"type": "message_delta", "delta": ending, "usage": {"output_tokens": message["usage"]["output_tokens"]}}
    )
    return [*events, {"type": "message_stop"}]


def _pieces(text: str, sizes: list[int]) -> list[str]:
    found, at = [], 0
    for size in sizes:
        if at < len(text):
            found.append(text[at : at + size])
            at += size
    return [*found, text[at:]] if at < len(text) else found


def told(data: bytes) -> dict[str, Any]:
    """Put a message together from the events a caller gets."""
    message: dict[str, Any] = {}
    arguments: dict[int, str] = {}
    for part in data.decode().split("\n\n"):
        if not part:
            continue
        name, line = part.split("\n")
        document = json.loads(line.removeprefix("data: "))
        kind = document["type"]
        assert name == f"event: {kind}"
        if kind == "message_start":
            assert not message
            message = document["message"]
        elif kind == "content_block_start":
            assert document["index"] == len(message["content"])
            message["content"].append(document["content_block"])
        elif kind == "content_block_delta":
            block, delta = message["content"][document["index"]], document["delta"]
            if delta["type"] == "input_json_delta":
                arguments[document["index"]] = arguments.get(document["index"], "") + delta["partial_json"]
            else:
                member = delta["type"].removesuffix("_delta")
                block[member] = block[member] + delta[member]
        elif kind == "message_delta":
            message |= document["delta"]
            message["usage"] |= document["usage"]
    for index, text in arguments.items():
        message["content"][index]["input"] = json.loads(text)
    return message


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return one loop for all examples."""
    with strict_loop() as made:
        yield made


async def received(pieces: list[bytes], *, native: bool) -> tuple[Attempt, list[Chunk]]:
    """Let an attempt that understands messages receive ``pieces`` of a response."""
    loop = asyncio.get_running_loop()
    pool = Pool("http://x", loop=loop, deadlines=Deadlines(loop), resolve=None)  # type: ignore[arg-type] # not asked
    connection = Connection(pool)
    transport = FakeTransport(loop, connection)
    connection.connection_made(transport)
    translator = MessagesTranslator(native=native, hides=False)
    attempt = Attempt(loop, ENGINES["anthropic"], Operation.CHAT, first_byte=60, idle=60, translator=translator)
    chunks: list[Chunk] = []
    attempt.attach(ListSink(chunks.extend))
    attempt.start(connection, b"request")
    for piece in pieces:
        if not transport.is_closing():
            connection.data_received(piece)
    transport.lose(None)
    await asyncio.sleep(0)
    return attempt, chunks


def response(body: bytes, kind: bytes) -> bytes:
    """Return a whole HTTP response."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (kind, len(body), body)


SIZES = st.lists(st.integers(1, 9), max_size=4)
CUTS = st.lists(st.integers(1, 60), max_size=12)


@settings(max_examples=60)
@given(message=answers(), sizes=SIZES, cuts=CUTS, native=st.booleans(), named=st.booleans())
def test_an_answer_arrives_whole_however_it_is_cut(
    loop: asyncio.AbstractEventLoop, message: Any, sizes: Any, cuts: Any, native: bool, named: bool
) -> None:
    """Any cut of the bytes gives the same blocks, reason and usage as the whole, passed on or translated."""
    events = streamed(message, sizes)
    name = "event: {}\n" if named else ""
    body = "".join(f"{name.format(each['type'])}data: {json.dumps(each, ensure_ascii=False)}\n\n" for each in events)
    attempt, chunks = loop.run_until_complete(
        received(cut(response(body.encode(), b"text/event-stream"), cuts), native=native)
    )
    assert attempt.failure is None
    assert attempt.upstream_id == "msg_1"
    tap = Tap(Basis(Operation.CHAT, 1, 2, delta_is_token=False, counts_all_choices=True))
    for chunk in chunks:
        tap.chunk(chunk)
    usage = tap.count()[0]
    assert tap.finished
    counts = message["usage"]
    assert (usage.cache_read, usage.cache_write) == (
        counts["cache_read_input_tokens"],
        counts["cache_creation_input_tokens"],
    )
    assert usage.prompt == counts["input_tokens"] + usage.cache_read + usage.cache_write
    assert usage.completion == counts["output_tokens"]
    teller = MessageEvents("gen-1", "m", ["END"], None)
    said = told(teller.tell(copy.deepcopy(chunks)) + teller.end(Bill(usage, 1, 1, 0), None))
    assert said["content"] == message["content"]
    assert {name: said[name] for name in ("stop_reason", "stop_sequence")} == {
        name: message[name] for name in ("stop_reason", "stop_sequence")
    }
    assert counts.items() <= said["usage"].items()

    whole, _ = loop.run_until_complete(
        received(cut(response(json.dumps(message).encode(), b"application/json"), cuts), native=False)
    )
    assert whole.answer is not None
    choice = whole.answer["choices"][0]
    assert content_of(choice["message"]) == message["content"]
    unfolded = unfold(json.loads(json.dumps(whole.answer)), Operation.CHAT)
    again = MessageEvents("gen-1", "m", ["END"], None)
    assert told(again.tell(unfolded) + again.end(Bill(usage, 1, 1, 0), None))["content"] == message["content"]
    if not native:
        folder = Folder(Operation.CHAT)
        folder.feed(chunks)
        assert _comparable(folder.answer()) == _comparable(whole.answer)


def _comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the choice of an answer without what may be written in several ways."""
    choice: dict[str, Any] = copy.deepcopy(answer["choices"][0])
    message = choice["message"]
    message.pop("reasoning_details", None)
    message["content"] = message["content"] or None
    for call in message.get("tool_calls", ()):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return choice


JUNK: Any = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2) | st.builds(dict)


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside ``value``."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for name, each in inner for path in paths(each, (*here, name)))]


@settings(max_examples=150)
@given(message=answers(), junk=JUNK, data=st.data(), native=st.booleans(), whole=st.booleans())
def test_junk_from_the_api_ends_in_an_answer_or_a_failure(
    message: Any, junk: Any, data: st.DataObject, native: bool, whole: bool
) -> None:
    """Whatever an API says against its own rules, nothing is raised, and what is made of it can be told."""
    documents: Any = [message] if whole else streamed(message, [3])
    path = data.draw(st.sampled_from([each for each in paths(documents) if len(each) > 1]))
    holder = documents
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = junk
    translator = MessagesTranslator(native=native, hides=False)
    teller = MessageEvents("gen-1", "m", [], None)
    tap = Tap(Basis(Operation.CHAT, 1, 2, delta_is_token=False, counts_all_choices=True))
    if whole:
        answer = translator.answer(documents[0])
        if isinstance(answer, dict):
            tap.answer(answer)
            json.dumps(content_of(answer["choices"][0]["message"]))
        return
    for document in documents:
        said = translator.event(document)
        if not isinstance(said, list):
            assert said.cause is Cause.MALFORMED or said.status
            return
        for chunk in said:
            tap.chunk(chunk)
        teller.tell(said)
    teller.end(Bill(tap.count()[0], 0, 0, 0), None)


CHAT: dict[str, Any] = {
    "id": "c",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "a",
                "refusal": "r",
                "reasoning": "t",
                "reasoning_content": "t",
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "t", "signature": "s", "format": "anthropic-claude-v1"},
                    {"type": "reasoning.summary", "summary": "t"},
                    {"type": "reasoning.encrypted", "data": "d", "format": "anthropic-claude-v1"},
                ],
                "tool_calls": [{"id": "i", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            "finish_reason": "stop",
            "stop_reason": "x",
            "matched_stop": 7,
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2},
}


@settings(max_examples=150)
@given(path=st.sampled_from([each for each in paths(CHAT) if each]), junk=JUNK)
def test_junk_from_an_engine_that_chats_can_be_told(path: tuple[Any, ...], junk: Any) -> None:
    """What passes for an answer of an engine, whatever is in it, can be said in messages, whole and streamed."""
    answer = copy.deepcopy(CHAT)
    holder: Any = answer
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = junk
    if not mend_answer(answer, Operation.CHAT):
        return
    choice = answer["choices"][0]
    json.dumps(content_of(choice["message"]))
    stop_of(choice, ["x"], called=False)
    teller = MessageEvents("gen-1", "m", ["x"], None)
    data = teller.tell(unfold(copy.deepcopy(answer), Operation.CHAT)) + teller.end(Bill(Usage(1, 2), 0, 0, 0), None)
    for part in data.decode().split("\n\n")[:-1]:
        json.loads(part.split("\ndata: ")[1])
