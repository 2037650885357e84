"""One streamed answer over transports that a test plays, from the backend's reads to the caller's bytes, metered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from bench.routing import fleet
from gateway.edge.native_exchange import NativeExchange
from gateway.edge.openai_reply import OpenAIReply
from gateway.metering.journal import Journal
from gateway.metering.meter import Meter
from gateway.types.call import Call, Need, Operation
from gateway.types.ids import RequestId
from gateway.upstream.attempt import ALIKE
from gateway.upstream.fast_path import FastPath
from gateway.upstream.seam import Transcript
from tests.fakes.attempt import asked
from tests.fakes.fuzz import Nothing
from tests.fakes.transport import FakeTransport

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
SLOW = ALIKE + 1
"""Pieces that go the long way: the first one begins the answer, and is of no kind yet."""
LAST = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


class World:
    """One streamed answer from the backend's socket to the caller's, metered."""

    def __init__(self, folder: Path, *, openrouter: bool = False, exclude: bool = False, idle: float = 60.0) -> None:
        loop = asyncio.get_running_loop()
        self.attempt, self.connection, self.backend, self.pool = asked(first_byte=60, idle=idle)
        body: dict[str, Any] = {"reasoning": {"exclude": True}} if exclude else {}
        self.call = Call(Operation.CHAT, body, "m", True, True, 1, None, 4, 2, Need.NONE, openrouter)
        self.journal = Journal.create(folder, durability="process")
        identity = RequestId(bytes(16))
        self.meter = Meter(self.journal, identity, self.call, "t", "k", 0.0)
        self.meter.opened(1, fleet(1)[0])
        line: Any = Nothing()
        nobody: Any = Nothing()
        self.caller = line.transport = FakeTransport(loop, asyncio.Protocol())
        line.write_paused = False
        line.default_lines = lambda: b""
        self.exchange = NativeExchange(line, identity, b"/v1/chat/completions", {}, nobody)
        self.reply = OpenAIReply(self.exchange, self.call)
        self.reply.begin("m", "own")
        self.reply._created = 7
        self.transcript = Transcript(self.reply)
        self.taken = 0
        self._attached = False

    def read(self, data: bytes) -> None:
        """Let the backend's socket give ``data``."""
        protocol = self.backend.get_protocol()
        if not self.backend.is_closing() and not self.attempt.over:
            protocol.data_received(data)
            self.taken += isinstance(protocol, FastPath)
        if self.attempt.begun().done() and not self._attached:
            self._attached = True
            self.attempt.attach(self.meter.to(self.transcript))

    @property
    def fast(self) -> bool:
        """Whether the next read comes by the fast path."""
        return isinstance(self.backend.get_protocol(), FastPath)

    def end(self) -> tuple[Any, ...]:
        """Close the backend's socket and return all that can be told of the answer."""
        self.backend.lose()
        attempt, meter = self.attempt, self.meter
        self.reply.send(meter.held)
        failure = attempt.failure
        kept = self.transcript
        return (
            bytes(self.caller.written),
            failure.cause if failure is not None else None,
            attempt.chunks,
            meter.tap.count(),
            meter.tap.deltas,
            meter.tap.finish_reason,
            (kept.text, kept.reasoning, kept.hindrance),
        )


def frame(data: bytes, form: bytes = b"%x") -> bytes:
    """Return one piece of a chunked body."""
    return (form + b"\r\n%b\r\n") % (len(data), data)


def event(document: dict[str, Any] | str, *, spaced: bool = False) -> bytes:
    """Return one event."""
    if isinstance(document, str):
        return b"data: %b\n\n" % document.encode()
    separators = (", ", ": ") if spaced else (",", ":")
    return b"data: %b\n\n" % json.dumps(document, ensure_ascii=False, separators=separators).encode()


def piece(words: str | None, member: str = "content", **more: Any) -> dict[str, Any]:
    """Return a chunk that says ``words``."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "up",
        "choices": [{"index": 0, "delta": {member: words}, "logprobs": None, "finish_reason": None}],
    } | more


def counted(words: str, tokens: int, *, total_first: bool = True, **more: Any) -> dict[str, Any]:
    """Return a chunk that says ``words``, and what was counted by then."""
    counts = {"total_tokens": 9 + tokens, "completion_tokens": tokens}
    if not total_first:
        counts = dict(reversed(counts.items()))
    return piece(words, usage={"prompt_tokens": 9, **counts, **more})
