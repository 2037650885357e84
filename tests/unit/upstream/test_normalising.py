"""However an engine writes an answer and however TCP cuts it, the caller gets the same text, tool calls and usage.

An answer is made first, as plain values. Then it is written as engines write it: with nulls and without keys, with any
line ends, without blank lines, with comments, over several lines, with and without ``[DONE]``; cut anywhere, also
inside a character. It goes through the real reader of a backend's bytes and the real reply, in both forms, and what a
strict client would read is compared with the plain values.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.openai_reply import OpenAIReply
from gateway.engines.catalogue import ENGINES
from gateway.metering.tap import Basis, Tap
from gateway.types import ids
from gateway.types.call import Call, Need, Operation
from gateway.types.chunk import Chunk, ListSink
from gateway.types.reply import Bill
from gateway.types.tokens import Usage
from gateway.upstream.attempt import Attempt
from gateway.upstream.deadlines import Deadlines
from gateway.upstream.fold import Folder, unfold
from gateway.upstream.wire import Connection, Pool
from tests.fakes.fuzz import Nothing, cut, strict_loop
from tests.fakes.transport import FakeTransport

ARGUMENTS = st.lists(st.text(max_size=5) | st.sampled_from(['{"a": ', "1.0}", "\\u00e9", " \n\t", '"ü🌊"']), max_size=4)
VENDOR = st.dictionaries(st.sampled_from(["x_trace", "citations", "x_timings"]), st.integers() | st.text(max_size=4))


@dataclass
class Spoken:
    """What one choice says.

    Attributes:
        calls: id, name and arguments of each tool call.
    """

    text: str = ""
    thought: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    finish: str | None = None


@dataclass
class Answer:
    """What is said, before anybody has written it.

    Attributes:
        steps: ``(choice, delta)`` in the order of the stream; the deltas are as OpenAI documents them.
        usage: the engine's count, or None when it says nothing.
        vendor: unknown members of each step's chunk, by step.
    """

    choices: list[Spoken]
    steps: list[tuple[int, dict[str, Any]]]
    usage: tuple[int, int, int] | None
    vendor: list[dict[str, Any]]


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Make an answer of up to two choices whose pieces take turns."""
    choices, queues = [], []
    for _ in range(draw(st.integers(1, 2))):
        thoughts = draw(st.lists(st.text(min_size=1, max_size=6), max_size=2))
        texts = draw(st.lists(st.text(max_size=6) | st.just("🌊é"), max_size=4))
        calls = [
            (f"call_{n}", draw(st.sampled_from(["get", "f"])), draw(ARGUMENTS)) for n in range(draw(st.integers(0, 2)))
        ]
        finish = draw(st.sampled_from(["stop", "length"])) if not calls else "tool_calls"
        spoken = [(i, n, "".join(pieces)) for i, n, pieces in calls]
        choices.append(Spoken("".join(texts), "".join(thoughts), spoken, finish))
        steps: list[dict[str, Any]] = [{"reasoning_content": piece} for piece in thoughts]
        steps += [{"content": piece} for piece in texts]
        for index, (identity, name, pieces) in enumerate(calls):
            head = {"index": index, "id": identity, "type": "function", "function": {"name": name, "arguments": ""}}
            steps.append({"tool_calls": [head]})
            steps += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces]
        queues.append([*steps, {"finish": finish}])
    order = draw(st.permutations([number for number, queue in enumerate(queues) for _ in queue]))
    steps_in_order = [(number, queues[number].pop(0)) for number in order]
    usage = draw(st.none() | st.tuples(st.integers(1, 99), st.integers(1, 99), st.integers(0, 9)))
    return Answer(choices, steps_in_order, usage, [draw(st.just({}) | VENDOR) for _ in steps_in_order])


def nulls(draw: st.DrawFn, *names: str) -> dict[str, None]:
    """Return some of ``names`` as null members."""
    return dict.fromkeys(draw(st.lists(st.sampled_from(names), unique=True, max_size=len(names))))


def some(draw: st.DrawFn, document: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return ``document`` without some of the members ``names``."""
    gone = draw(st.lists(st.sampled_from(names), unique=True))
    return {name: value for name, value in document.items() if name not in gone}


def usage_of(said: tuple[int, int, int]) -> dict[str, Any]:
    """Return a count as engines write it."""
    prompt, completion, reasoning = said
    details = {"reasoning_tokens": min(reasoning, completion)}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": None,
        "completion_tokens_details": details,
    }


def written(draw: st.DrawFn, number: int, delta: dict[str, Any], vendor: dict[str, Any]) -> dict[str, Any]:
    """Return a chunk as some engine writes it."""
    said = deepcopy(delta)
    finish = said.pop("finish", None)
    for call in said.get("tool_calls", ()):
        call.update(nulls(draw, "id", "type") if "id" not in call else {})
    said |= nulls(draw, *({"content", "refusal", "tool_calls", "function_call", "reasoning", "audio"} - set(said)))
    said |= draw(st.sampled_from([{}, {"role": "assistant"}, {"role": None}]))
    choice: dict[str, Any] = {"index": number, "delta": said, "finish_reason": finish}
    choice |= nulls(draw, "logprobs", "stop_reason", "token_ids")
    if number == 0:
        choice = some(draw, choice, "index")
    if finish is None:
        choice = some(draw, choice, "finish_reason")
    elif not said:
        choice["delta"] = draw(st.sampled_from([{}, None]))
    chunk = {"id": "backend-1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [choice]}
    chunk |= nulls(draw, "usage", "system_fingerprint", "service_tier", "error", "prompt_token_ids")
    return some(draw, chunk, "id", "object", "created", "model") | vendor


@st.composite
def streams(draw: st.DrawFn) -> tuple[Answer, bytes]:
    """Make an answer and the body of an event stream that says it."""
    answer = draw(answers())
    documents = [
        written(draw, number, delta, vendor)
        for (number, delta), vendor in zip(answer.steps, answer.vendor, strict=True)
    ]
    if answer.usage is not None:
        last = {"id": "backend-1", "choices": [], "usage": usage_of(answer.usage)}
        documents += [last] * draw(st.integers(1, 2))
    end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    mixed = draw(st.booleans())
    blanks = draw(st.booleans())
    body = b""
    for document in documents:
        end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"])) if mixed else end
        body += draw(
            st.sampled_from([b"", b"", b": OPENROUTER PROCESSING" + end, b"event: message" + end, b"id: 7" + end])
        )
        mark = draw(st.sampled_from([b"data: ", b"data:"]))
        text = json.dumps(document, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, None, 1])))
        lines = text.split("\n") if blanks else [text.replace("\n", " ")]
        body += b"".join(mark + line.encode() + end for line in lines)
        body += end if blanks else b""
    body += draw(st.sampled_from([b"", b"data: [DONE]\n\n", b"data: [DONE]", b"data:[DONE]\r\n\r\n", b": bye\n\n"]))
    return answer, body


FRAMES = st.sampled_from(["length", "close", "chunked"])


def framed(body: bytes, framing: str, kind: str) -> bytes:
    """Return a response that carries ``body``."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n".encode()
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    if framing == "close":
        return head + b"\r\n" + body
    parts = [body[start : start + 7] for start in range(0, len(body), 7)]
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n"


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return one loop for all examples."""
    with strict_loop() as made:
        yield made


async def received(pieces: list[bytes]) -> tuple[list[Chunk], Attempt]:
    """Let an attempt read ``pieces`` and then the end of the connection."""
    loop = asyncio.get_running_loop()
    pool = Pool("http://x", loop=loop, deadlines=Deadlines(loop), resolve=None)  # type: ignore[arg-type] # not asked
    connection = Connection(pool)
    transport = FakeTransport(loop, connection)
    connection.connection_made(transport)
    attempt = Attempt(loop, ENGINES["vllm"], Operation.CHAT, first_byte=60, idle=60)
    chunks: list[Chunk] = []
    attempt.attach(ListSink(chunks.extend))
    attempt.start(connection, b"request")
    for piece in pieces:
        if not transport.is_closing():
            connection.data_received(piece)
    transport.lose(None)
    await asyncio.sleep(0)
    return chunks, attempt


def counted(answer: Answer, chunks: list[Chunk], whole: dict[str, Any] | None) -> None:
    """The meter counts what the engine said it made, once, and knows that every choice has finished."""
    tap = Tap(Basis(Operation.CHAT, len(answer.choices), 2, delta_is_token=True, counts_all_choices=True))
    for chunk in chunks:
        tap.chunk(chunk)
    if whole is not None:
        tap.answer(whole)
    assert tap.finished
    assert not tap.failed
    if answer.usage is not None:
        prompt, completion, reasoning = answer.usage
        usage, source = tap.count()
        assert source == "upstream"
        assert usage == Usage(prompt=prompt, completion=completion, reasoning=min(reasoning, completion))


def reply_to(openrouter: bool, out: list[bytes]) -> OpenAIReply:
    """Return a reply that writes to ``out``."""
    exchange: Any = Nothing()
    exchange.request_id, exchange.arrived = ids.RequestId(bytes(16)), 0.0
    exchange.write = exchange.close = out.append
    exchange.respond = lambda _status, _headers, body: out.append(body)
    return OpenAIReply(exchange, Call(Operation.CHAT, {}, "m", True, True, 2, None, 2, 2, Need.NONE, openrouter))


def heard(data: bytes) -> tuple[list[Spoken], list[dict[str, Any]]]:
    """Read events as a strict client does: every member that it requires is there and of its type."""
    choices: dict[int, Spoken] = {}
    documents = []
    *events, done, end = data.split(b"\n\n")
    assert (done, end) == (b"data: [DONE]", b"")
    for event in events:
        document = json.loads(event.removeprefix(b"data: "))
        documents.append(document)
        assert isinstance(document["id"], str)
        assert isinstance(document["created"], int)
        assert (document["object"], document["model"]) == ("chat.completion.chunk", "m")
        assert None not in [document.get(name, "") for name in ("usage", "system_fingerprint", "error", "service_tier")]
        for part in document["choices"]:
            choice = choices.setdefault(part["index"], Spoken())
            delta = part["delta"]
            assert delta.get("role", "assistant") == "assistant"
            assert delta.get("tool_calls", ()) is not None
            choice.text += delta.get("content") or ""
            choice.thought += delta.get("reasoning_content") or delta.get("reasoning") or ""
            for call in delta.get("tool_calls", ()):
                add(choice.calls, call)
            choice.finish = part["finish_reason"] or choice.finish
    return [choices[index] for index in sorted(choices)], documents


def add(calls: list[tuple[str, str, str]], piece: dict[str, Any]) -> None:
    """Add a piece of a tool call to those before it."""
    assert None not in piece.values()
    function = piece.get("function", {})
    if piece["index"] == len(calls):
        calls.append(("", "", ""))
    identity, name, arguments = calls[piece["index"]]
    calls[piece["index"]] = (
        identity + piece.get("id", ""),
        name + function.get("name", ""),
        arguments + function.get("arguments", ""),
    )


STEPS = st.lists(st.integers(1, 60), max_size=14)


@given(streams(), FRAMES, STEPS, st.booleans())
@settings(deadline=None, max_examples=50)
def test_a_stream_says_the_same_however_it_is_written_and_cut(
    loop: asyncio.AbstractEventLoop, made: tuple[Answer, bytes], framing: str, steps: list[int], openrouter: bool
) -> None:
    """Text, reasoning, tool calls byte by byte, finish reasons and usage; and members nobody knows go through."""
    answer, body = made
    data = framed(body, framing, "text/event-stream; charset=utf-8")
    for pieces in (cut(data, steps), [bytes([byte]) for byte in data] if len(steps) > 12 else [data]):
        chunks, attempt = loop.run_until_complete(received(pieces))
        assert attempt.failure is None
        counted(answer, chunks, None)
        folder = Folder(Operation.CHAT)
        folder.feed(deepcopy(chunks))
        out: list[bytes] = []
        reply = reply_to(openrouter, out)
        reply.begin("m", "own")
        for chunk in chunks:
            reply.send([chunk])
        reply.finish([], Bill(Usage(1, 2), 1, 1, 0))
        said, documents = heard(b"".join(out))
        assert said == answer.choices
        passed = [{name: value for name, value in each.items() if name in VENDORS} for each in documents]
        assert [each for each in passed if each] == [each for each in answer.vendor if each]
        check_whole(answer, folder.answer(), openrouter)


VENDORS = {"x_trace", "citations", "x_timings"}


def check_whole(answer: Answer, whole: dict[str, Any], openrouter: bool) -> None:
    """Say a whole answer to a caller and compare what it says."""
    out: list[bytes] = []
    reply_to(openrouter, out).answer(whole, "m", "own", Bill(Usage(1, 2), 1, 1, 0))
    document = json.loads(out[0])
    assert (document["object"], document["model"], document["usage"]["completion_tokens"]) == (
        "chat.completion",
        "m",
        2,
    )
    assert "system_fingerprint" in document
    found = []
    for index, choice in enumerate(document["choices"]):
        assert choice["index"] == index
        message = choice["message"]
        assert message["role"] == "assistant"
        assert "content" in message
        assert None not in [message.get(name, "") for name in ("tool_calls", "audio", "reasoning_details")]
        calls = [
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls", ())
            if call["type"] == "function"
        ]
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
        found.append(Spoken(message["content"] or "", thought, calls, choice["finish_reason"]))
    assert found == answer.choices


@st.composite
def documents(draw: st.DrawFn) -> tuple[Answer, dict[str, Any], bytes]:
    """Make an answer, the members nobody knows, and the whole JSON body that says both."""
    answer, vendor = draw(answers()), draw(VENDOR)
    choices = []
    for number, said in enumerate(answer.choices):
        message: dict[str, Any] = {"role": "assistant", "content": said.text or None, "reasoning_content": said.thought}
        if said.calls:
            message["tool_calls"] = [
                some(draw, {"id": i, "type": "function", "function": {"name": n, "arguments": a}}, "type")
                | nulls(draw, "extra_content")
                for i, n, a in said.calls
            ]
        else:
            message |= draw(st.sampled_from([{}, {"tool_calls": None}, {"tool_calls": []}]))
        message |= nulls(draw, "refusal", "function_call", "audio", "annotations")
        choice = {"index": number, "message": some(draw, message, "role"), "finish_reason": said.finish}
        choices.append(some(draw, choice | nulls(draw, "logprobs", "stop_reason", "token_ids"), "index"))
    document: dict[str, Any] = {"id": "backend-1", "object": "chat.completion", "created": 7, "model": "m"}
    document = some(draw, document, "id", "object", "created", "model") | vendor | {"choices": choices}
    document |= {"usage": usage_of(answer.usage)} if answer.usage is not None else nulls(draw, "usage")
    document |= nulls(draw, "system_fingerprint", "service_tier", "prompt_logprobs", "error")
    text = json.dumps(document, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 2])))
    return answer, vendor, text.encode()


@given(documents(), FRAMES, STEPS, st.booleans())
@settings(deadline=None, max_examples=50)
def test_a_whole_answer_says_the_same_however_it_is_written_and_cut(
    loop: asyncio.AbstractEventLoop,
    made: tuple[Answer, dict[str, Any], bytes],
    framing: str,
    steps: list[int],
    openrouter: bool,
) -> None:
    """The same for JSON, and for JSON that is told as a stream."""
    answer, vendor, body = made
    _, attempt = loop.run_until_complete(received(cut(framed(body, framing, "application/json"), steps)))
    assert attempt.failure is None
    assert attempt.answer is not None
    assert {name: attempt.answer.get(name) for name in vendor} == vendor
    counted(answer, [], deepcopy(attempt.answer))
    out: list[bytes] = []
    reply = reply_to(openrouter, out)
    reply.begin("m", "own")
    reply.send(unfold(deepcopy(attempt.answer), Operation.CHAT))
    reply.finish([], Bill(Usage(1, 2), 1, 1, 0))
    assert heard(b"".join(out))[0] == answer.choices
    check_whole(answer, attempt.answer, openrouter)
