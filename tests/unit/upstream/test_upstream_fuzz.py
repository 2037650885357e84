"""Bytes of backends end in an answer or a failure, never in an exception, and no split changes what they say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.edge.openai_reply import OpenAIReply
from gateway.edge.rerank import RerankReply
from gateway.engines.catalogue import ENGINES
from gateway.metering.tap import Basis, Tap
from gateway.types import ids
from gateway.types.call import WHOLE, Call, Need, Operation
from gateway.types.chunk import Chunk, ListSink
from gateway.types.failure import Failure
from gateway.types.reply import Bill
from gateway.upstream import call_numbers
from gateway.upstream.attempt import Attempt
from gateway.upstream.deadlines import Deadlines
from gateway.upstream.fold import Folder, unfold
from gateway.upstream.wire import Connection, Pool
from tests.fakes.fuzz import Nothing, cut, strict_loop
from tests.fakes.transport import FakeTransport

Step = st.lists(st.integers(1, 60), max_size=12)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return one loop for all examples."""
    with strict_loop() as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def same_ids() -> Iterator[None]:
    """Give calls that come without an id one that is no other the next time: answers are compared here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(call_numbers, "token_hex", "0".__mul__)
        yield


CHAT_CALL = Call(
    operation=Operation.CHAT,
    body={"documents": ["a", "b"]},
    model="m",
    stream=True,
    wants_usage=True,
    choices=1,
    max_tokens=None,
    input_bytes=2,
    prompt_estimate=2,
    needs=Need.NONE,
    openrouter=True,
)


class Outcome:
    """What came of one answer: chunks as they were delivered, and how it ended."""

    def __init__(self, attempt: Attempt, chunks: list[Chunk], operation: Operation) -> None:
        self.failure: Failure | None = attempt.failure
        self.answer = attempt.answer
        folder = Folder(operation)
        folder.feed(deepcopy(chunks))
        self.folded = folder.answer()
        engine = ENGINES["llamacpp"]
        tap = Tap(
            Basis(operation, 1, 2, delta_is_token=engine.delta_is_token, counts_all_choices=engine.counts_all_choices)
        )
        if self.answer is not None:
            tap.answer(self.answer)
        for each in chunks:
            tap.chunk(each)
        self.counted = (tap.count(), tap.finished, tap.failed, tap.finish_reason)
        self.chunks = chunks

    @property
    def same(self) -> tuple[Any, ...]:
        """What no split may change."""
        cause = self.failure.cause if self.failure is not None else None
        return self.folded, self.answer, self.counted, cause


async def answered(
    pieces: list[bytes], operation: Operation = Operation.CHAT, *, error: Exception | None = None
) -> Outcome:
    """Let an attempt receive ``pieces`` and the end of the connection."""
    loop = asyncio.get_running_loop()
    pool = Pool("http://x", loop=loop, deadlines=Deadlines(loop), resolve=None)  # type: ignore[arg-type] # not asked
    connection = Connection(pool)
    transport = FakeTransport(loop, connection)
    connection.connection_made(transport)
    attempt = Attempt(loop, ENGINES["vllm"], operation, first_byte=60, idle=60)
    chunks: list[Chunk] = []
    attempt.attach(ListSink(chunks.extend))
    attempt.start(connection, b"request")
    for piece in pieces:
        if not transport.is_closing():
            connection.data_received(piece)
    transport.lose(error)
    await asyncio.sleep(0)
    assert attempt.over
    assert attempt.failure is not None or attempt.answer is not None or attempt.began_at
    await asyncio.wait_for(attempt.done(), 5)
    return Outcome(attempt, chunks, operation)


def render(outcome: Outcome, operation: Operation) -> None:
    """Say an outcome to callers of both forms, streamed and whole; all of it must be JSON."""
    bill = Bill(outcome.counted[0][0], 1, 1, 0)
    for openrouter in (True, False):
        for stream in (False, True)[: 1 + (operation not in WHOLE)]:
            written: list[bytes] = []
            exchange: Any = Nothing()
            exchange.request_id = ids.RequestIds().new()
            exchange.arrived = 0.0
            exchange.write = exchange.close = written.append
            exchange.respond = lambda status, headers, body, kept=written: kept.append(body)
            call = Call(**{name: getattr(CHAT_CALL, name) for name in CHAT_CALL.__struct_fields__})
            call.openrouter, call.operation = openrouter, operation
            ranking = operation is Operation.RERANK and outcome.answer is not None
            reply = RerankReply(exchange, call) if ranking else OpenAIReply(exchange, call)
            chunks = deepcopy(outcome.chunks)
            if outcome.answer is not None and operation not in WHOLE:
                chunks = unfold(json.loads(json.dumps(outcome.answer)), operation)
            if stream:
                reply.begin("m", "p")
                reply.send(chunks)
                reply.finish([], bill)
            else:
                reply.answer(json.loads(json.dumps(outcome.answer or outcome.folded)), "m", "p", bill)
            for line in b"".join(written).split(b"\n\n" if stream else b"\0"):
                if line and not line.endswith(b"[DONE]"):
                    json.loads(line.removeprefix(b"data: "))


TEXT = st.text(max_size=6)
CALLS = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(0, 2), "function": st.fixed_dictionaries({}, optional={"name": TEXT, "arguments": TEXT})},
        optional={"id": TEXT, "type": st.just("function")},
    ),
    max_size=2,
)
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "content": TEXT | st.none(),
        "reasoning_content": TEXT,
        "tool_calls": CALLS,
        "role": st.just("assistant"),
    },
)
USAGE = st.fixed_dictionaries({"prompt_tokens": st.integers(0, 99), "completion_tokens": st.integers(0, 99)})
CHUNKS = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries(
                {"index": st.integers(0, 1), "delta": DELTAS},
                optional={"finish_reason": st.sampled_from([None, "stop", "error"]), "logprobs": st.none()},
            ),
            max_size=2,
        )
    },
    optional={"usage": USAGE | st.none(), "id": TEXT},
)
ENDS = st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n", b"\r\r", b"\r\n"])
LINES = st.one_of(
    CHUNKS.map(lambda each: b"data: " + json.dumps(each, ensure_ascii=False).encode()),
    CHUNKS.map(lambda each: b"data:" + json.dumps(each, indent=1).encode().replace(b"\n", b"\ndata:")),
    st.sampled_from(
        [b": ping", b"event: x", b"data:", b"data: [DONE]", b"data: null", b'data: {"choices": [', b"data: ]}"]
    ),
    st.just(b'data: {"error": {"message": "full", "code": 503}}'),
    st.binary(max_size=8),
)
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=8).map(lambda parts: b"".join(line + end for line, end in parts))


def framed(body: bytes, framing: str) -> bytes:
    """Return a response that carries ``body`` as an event stream."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    if framing == "close":
        return head + b"\r\n" + body
    parts = [body[start : start + 50] for start in range(0, len(body), 50)]
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked + (b"zz\r\n" if framing == "broken" else b"0\r\n\r\n")


@given(STREAMS, st.sampled_from(["length", "close", "chunked", "broken"]), Step)
@settings(deadline=None)
@example(b'data: {"choices": [\n\ndata: ]}\n\n', "chunked", [100])
@example(b'data: {"choices": [\n\ndata: {"choices": []}\n\ndata: ]}\n\n', "length", [])
def test_no_split_of_a_stream_changes_what_it_says(
    loop: asyncio.AbstractEventLoop, body: bytes, framing: str, steps: list[int]
) -> None:
    """The same text, tool calls, usage and failure, in one read, in any reads, and byte by byte."""
    data = framed(body, framing)
    whole = loop.run_until_complete(answered([data]))
    parts = loop.run_until_complete(answered(cut(data, steps)))
    bytewise = loop.run_until_complete(answered([bytes([byte]) for byte in data]))
    assert whole.same == parts.same == bytewise.same
    render(whole, Operation.CHAT)


WORDS = st.sampled_from(
    [
        "choices",
        "delta",
        "message",
        "text",
        "index",
        "finish_reason",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "content",
        "role",
        "usage",
        "error",
        "code",
        "http_status_code",
        "type",
        "param",
        "object",
        "data",
        "id",
        "model",
        "created",
        "logprobs",
        "prompt_tokens",
        "completion_tokens",
        "detail",
        "prompt_tokens_details",
        "cached_tokens",
        "reasoning_content",
        "refusal",
        "native_finish_reason",
        "system_fingerprint",
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 600)
    | st.sampled_from([10**25, -(2**63), 1e300, 0.5, "stop", "error", "²", "503", "9" * 5000, "\U0001f600"])
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=14,
)
CHOICES = st.fixed_dictionaries({"choices": st.lists(st.dictionaries(WORDS, JSON, max_size=5), max_size=3)})
DOCUMENTS = st.one_of(
    st.dictionaries(WORDS, JSON, max_size=6),
    st.tuples(CHOICES, st.dictionaries(WORDS, JSON, max_size=2)).map(lambda each: {**each[1], **each[0]}),
    st.fixed_dictionaries({"error": JSON}),
    st.fixed_dictionaries(
        {"results": st.lists(st.fixed_dictionaries({"index": st.integers(-1, 3)}, optional={"relevance_score": JSON}))}
    ),
)


@given(
    st.lists(DOCUMENTS, min_size=1, max_size=3),
    st.sampled_from(list(Operation)),
    st.sampled_from([200, 200, 200, 400, 429, 500]),
    st.booleans(),
)
@settings(deadline=None)
def test_any_json_of_a_backend_is_an_answer_or_a_failure(
    loop: asyncio.AbstractEventLoop, documents: list[Any], operation: Operation, status: int, stream: bool
) -> None:
    """Objects of any shape: what gets through can be counted, folded, unfolded and said to every kind of caller."""
    kind = b"text/event-stream" if stream else b"application/json"
    raw = [json.dumps(each).encode() for each in documents]
    body = b"".join(b"data: %b\n\n" % each for each in raw) if stream else raw[0]
    head = b"HTTP/1.1 %d X\r\nContent-Type: %b\r\nRetry-After: %b\r\n" % (status, kind, b"9" * 5000)
    data = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    outcome = loop.run_until_complete(answered([data], operation))
    assert outcome.failure is not None or status == 200
    if outcome.failure is None or outcome.chunks:
        render(outcome, operation)


HTTP = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 500 X\r\n",
        b"Content-Type: text/event-stream\r\n",
        b"Content-Length: 9\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Retry-After: 99999999999999999999\r\n",
        b"\r\n",
        b"5\r\ndata:\r\n",
        b"0\r\n\r\n",
        b'data: {"choices":[]}\n\n',
        b"data: [DONE]\n\n",
        b'{"choices":[]}',
        b"[" * 3000,
    ]
)


@given(st.lists(HTTP | st.binary(max_size=10), max_size=12).map(b"".join), Step, st.booleans())
@settings(deadline=None)
@example(b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 50_000, [], False)
@example(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: " + b'{"a":' * 20_000 + b"\n\n", [], False)
def test_any_bytes_of_a_backend_are_an_answer_or_a_failure(
    loop: asyncio.AbstractEventLoop, data: bytes, steps: list[int], reset: bool
) -> None:
    """Rubbish instead of HTTP, instead of events, instead of JSON: one outcome, no exception."""
    for operation in Operation:
        error = ConnectionResetError() if reset else None
        outcome = loop.run_until_complete(answered(cut(data, steps), operation, error=error))
        render(outcome, operation)
