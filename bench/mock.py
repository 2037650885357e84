"""The instant backend: several replicas with vLLM's HTTP face in one process.

Run as `python -m bench.mock --ports 8`; prints one line `READY port port …` and ends when its standard
input closes, so it never outlives the benchmark. The HTTP parser knows only what gateways send to an
engine: requests with a Content-Length; anything else is answered 400, 404 or 411, and the benchmark then
fails loudly. One replica is one port; all share the event loop, because on two cores a process per replica
would only add context switches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final, cast

import uvloop

from bench.payload import CHUNK_GAP_S, CHUNKS, FLOOD_BYTES, MARKER, UPSTREAM_MODEL, stamped

_CREATED: Final = 1_763_700_000
_ID: Final = "chatcmpl-0c9f4a1e7b5d4e2f8a6b3c1d9e7f5a3b"
_PROMPT_TOKENS: Final = 176
_HOLD_GAP_S: Final = 0.5
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_LAST_FRAME: Final = b"0\r\n\r\n"


def _plain(status: str, content_type: str, body: bytes) -> bytes:
    """Returns a whole HTTP answer."""
    head = f"HTTP/1.1 {status}\r\nserver: uvicorn\r\ncontent-type: {content_type}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _json(payload: object, status: str = "200 OK") -> bytes:
    """Returns a whole HTTP answer with a JSON body."""
    return _plain(status, "application/json", json.dumps(payload, separators=(",", ":")).encode())


def _usage(completion: int) -> dict[str, object]:
    """Returns the usage object of an answer of `completion` tokens."""
    return {
        "prompt_tokens": _PROMPT_TOKENS,
        "total_tokens": _PROMPT_TOKENS + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": None,
    }


def _event(payload: object) -> bytes:
    """Returns one server-sent event."""
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


def _frame(data: bytes) -> bytes:
    """Returns `data` as one frame of the chunked transfer encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
    """Returns the event of one streamed delta in vLLM's form."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _event(
        {
            "id": _ID,
            "object": "chat.completion.chunk",
            "created": _CREATED,
            "model": UPSTREAM_MODEL,
            "choices": [choice],
        }
    )


def _answer() -> bytes:
    """Returns the JSON answer of a chat completion, about 700 bytes, in vLLM's form."""
    text = "Pump two was stopped twice because of a hot bearing; the seal was replaced, the cause is still open."
    message: dict[str, object] = {
        "role": "assistant",
        "content": text,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [],
        "reasoning_content": None,
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    return _json(
        {
            "id": _ID,
            "object": "chat.completion",
            "created": _CREATED,
            "model": UPSTREAM_MODEL,
            "choices": [choice],
            "service_tier": None,
            "system_fingerprint": None,
            "usage": _usage(24),
            "prompt_logprobs": None,
            "kv_transfer_params": None,
        }
    )


_ANSWER: Final = _answer()
_DONE: Final = b"data: [DONE]\n\n"
_CHUNK_BEFORE, _CHUNK_AFTER = _chunk({"content": "?"}).split(b"?")
_FIRST_BEFORE, _FIRST_AFTER = _chunk({"role": "assistant", "content": "?"}).split(b"?")
_COUNTED: Final = b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}}\n\n'


def _tail(*, usage: bool, completion: int) -> bytes:
    """Returns the frames that end a stream: finish, usage when asked for, the end mark, the last frame."""
    head = {"id": _ID, "object": "chat.completion.chunk", "created": _CREATED, "model": UPSTREAM_MODEL}
    frames = [_frame(_chunk({}, "stop"))]
    if usage:
        frames.append(_frame(_event({**head, "choices": [], "usage": _usage(completion)})))
    frames.append(_frame(_DONE))
    return b"".join(frames) + _LAST_FRAME


_TAILS: Final = {usage: _tail(usage=usage, completion=CHUNKS) for usage in (False, True)}


def _content(number: int, *, counted: bool) -> bytes:
    """Returns content chunk `number` from 1, stamped now, as a frame; `counted` with the usage so far."""
    before, after = (_FIRST_BEFORE, _FIRST_AFTER) if number == 1 else (_CHUNK_BEFORE, _CHUNK_AFTER)
    if counted:
        after = after[:-3] + _COUNTED % (_PROMPT_TOKENS, _PROMPT_TOKENS + number, number)
    return _frame(b"%b%b%b" % (before, stamped(time.monotonic_ns()), after))


_BURSTS: Final = {
    (usage, counted): _STREAM_HEAD
    + b"".join(_content(number, counted=counted) for number in range(1, CHUNKS + 1))
    + tail
    for usage, tail in _TAILS.items()
    for counted in (False, True)
}
_FLOOD_FRAME: Final = _frame(_chunk({"content": "x" * 3_900})) * 16


class Replica:
    """One engine as a router sees it: a model, a number of running requests, the pages a router asks for."""

    __slots__ = ("pages", "running", "served")

    def __init__(self) -> None:
        self.running = 0
        self.served = 0
        models = {
            "object": "list",
            "data": [
                {
                    "id": UPSTREAM_MODEL,
                    "object": "model",
                    "created": _CREATED,
                    "owned_by": "vllm",
                    "root": UPSTREAM_MODEL,
                    "parent": None,
                    "max_model_len": 40_960,
                }
            ],
        }
        info = {"model_path": UPSTREAM_MODEL, "served_model_name": UPSTREAM_MODEL, "is_generation": True}
        self.pages: dict[bytes, bytes] = {
            b"/health": _plain("200 OK", "text/plain", b""),
            b"/v1/models": _json(models),
            b"/models": _json(models),
            b"/version": _json({"version": "0.32.0"}),
            b"/model_info": _json(info),
            b"/get_model_info": _json(info),
            b"/server_info": _json(info),
            b"/get_server_info": _json(info),
        }

    def metrics(self) -> bytes:
        """Returns the gauges and counters a router reads, in the Prometheus text form."""
        labels = f'{{engine="0",model_name="{UPSTREAM_MODEL}"}}'
        cache = f'{{engine="0",block_size="16",num_gpu_blocks="20000",model_name="{UPSTREAM_MODEL}"}}'
        lines = [
            "# TYPE vllm:num_requests_running gauge",
            f"vllm:num_requests_running{labels} {self.running}.0",
            "# TYPE vllm:num_requests_waiting gauge",
            f"vllm:num_requests_waiting{labels} 0.0",
            "# TYPE vllm:kv_cache_usage_perc gauge",
            f"vllm:kv_cache_usage_perc{labels} {min(self.running / 1000, 0.9):.3f}",
            "# TYPE vllm:cache_config_info gauge",
            f"vllm:cache_config_info{cache} 1.0",
            "# TYPE vllm:prompt_tokens counter",
            f"vllm:prompt_tokens_total{labels} {self.served * _PROMPT_TOKENS}.0",
            "# TYPE vllm:generation_tokens counter",
            f"vllm:generation_tokens_total{labels} {self.served * CHUNKS}.0",
        ]
        return _plain("200 OK", "text/plain; version=0.0.4; charset=utf-8", "\n".join(lines).encode() + b"\n")


class Connection(asyncio.Protocol):
    """One connection to a replica: reads requests, answers each in the mode its text asks for."""

    def __init__(self, replica: Replica, loop: asyncio.AbstractEventLoop) -> None:
        self._replica = replica
        self._loop = loop
        self._buffer = b""
        self._streaming = False
        self._timer: asyncio.TimerHandle | None = None
        self._begun = 0.0
        self._sent = 0
        self._usage = False
        self._counted = False
        self._flooding = False
        self._paused = False
        self._write: Callable[[bytes], None] = lambda _data: None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport; its write method is looked up once."""
        # A cast, not an assertion: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._write = self._transport.write

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops an answer in progress, as an engine does when its client leaves."""
        del exc
        if self._timer is not None:
            self._timer.cancel()
        if self._streaming:
            self._end()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answers every whole request in the buffer; a stream in progress holds back the next one."""
        self._buffer = self._buffer + data if self._buffer else data
        while self._buffer and not self._streaming:
            split = self._buffer.find(b"\r\n\r\n")
            if split < 0:
                return
            head = self._buffer[:split]
            length = _LENGTH.search(head)
            if length is None and not head.startswith(b"GET "):
                self._write(_json({"error": "length required"}, "411 Length Required"))
                self._buffer = b""
                return
            end = split + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < end:
                return
            body, self._buffer = self._buffer[split + 4 : end], self._buffer[end:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        """Answers one request."""
        if not head.startswith(b"POST "):
            path = head.split(b" ", 2)[1].split(b"?")[0]
            page = self._replica.metrics() if path == b"/metrics" else self._replica.pages.get(path)
            self._write(page or _json({"error": "no such page"}, "404 Not Found"))
            return
        start = body.find(MARKER)
        mode = body[start + len(MARKER) : body.find(b".", start)] if start >= 0 else b""
        if mode == b"json":
            self._replica.served += 1
            self._write(_ANSWER)
            return
        self._usage = b'"include_usage":true' in body or b'"include_usage": true' in body
        self._counted = b'"continuous_usage_stats":true' in body
        if mode == b"burst":
            self._replica.served += 1
            self._write(_BURSTS[self._usage, self._counted])
            return
        self._stream(mode)

    def _stream(self, mode: bytes) -> None:
        """Begins a streamed answer that takes time."""
        self._begun, self._sent = self._loop.time(), 0
        steps: dict[bytes, Callable[[], None]] = {
            b"drip": self._drip,
            b"hold": self._hold,
            b"flood": self._flood,
        }
        if mode not in steps and mode != b"ttft20":
            self._write(_json({"error": "the text names no known mode"}, "400 Bad Request"))
            return
        self._streaming = True
        self._replica.running += 1
        if mode == b"ttft20":
            self._timer = self._loop.call_later(CHUNK_GAP_S, self._late)
            return
        self._write(_STREAM_HEAD)
        steps[mode]()

    def _late(self) -> None:
        """Sends head and first chunk of `ttft20` after its delay, and the rest at once."""
        frames = [_content(number, counted=self._counted) for number in range(1, CHUNKS + 1)]
        self._write(_STREAM_HEAD + b"".join(frames) + _TAILS[self._usage])
        self._end()

    def _drip(self) -> None:
        """Sends the next chunk; times are multiples of the gap from the beginning, so they do not drift."""
        self._sent += 1
        if self._sent == CHUNKS:
            self._write(_content(CHUNKS, counted=self._counted) + _TAILS[self._usage])
            self._end()
            return
        self._write(_content(self._sent, counted=self._counted))
        self._timer = self._loop.call_at(self._begun + self._sent * CHUNK_GAP_S, self._drip)

    def _hold(self) -> None:
        """Sends a chunk now and then for as long as the client stays."""
        self._sent += 1
        self._write(_content(self._sent, counted=self._counted))
        self._timer = self._loop.call_at(self._begun + self._sent * _HOLD_GAP_S, self._hold)

    def _flood(self) -> None:
        """Writes until the transport's buffer is full; `resume_writing` goes on."""
        self._flooding = True
        while not self._paused and self._sent < FLOOD_BYTES:
            self._write(_FLOOD_FRAME)
            self._sent += len(_FLOOD_FRAME)
        if self._sent >= FLOOD_BYTES:
            self._flooding = False
            self._write(_TAILS[self._usage])
            self._end()

    def pause_writing(self) -> None:
        """The gateway does not read: a flood waits."""
        self._paused = True

    def resume_writing(self) -> None:
        """The gateway reads again: a flood goes on."""
        self._paused = False
        if self._flooding:
            self._flood()

    def _end(self) -> None:
        """Ends a stream's account and takes up a request that waited behind it."""
        self._streaming = False
        self._flooding = False
        self._timer = None
        self._replica.running -= 1
        self._replica.served += 1
        if self._buffer and self._transport is not None and not self._transport.is_closing():
            self._loop.call_soon(self.data_received, b"")


async def serve(ports: int) -> None:
    """Serves `ports` replicas on free ports of 127.0.0.1 until standard input closes."""
    loop = asyncio.get_running_loop()
    numbers = []
    for _ in range(ports):
        server = await loop.create_server(
            partial(Connection, Replica(), loop),
            "127.0.0.1",
            0,
            backlog=2048,
        )
        numbers.append(server.sockets[0].getsockname()[1])
    print("READY", *numbers, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog="bench.mock", description=__doc__)
    parser.add_argument("--ports", type=int, default=8, help="number of replicas, one port each")
    uvloop.run(serve(parser.parse_args().ports))


if __name__ == "__main__":
    main()
