"""The streaming load: many server-sent event streams on raw sockets, each chunk timed from its sending.

The mock stamps each chunk with `time.monotonic_ns` of the same host, so the delay of every chunk is exact,
without a clock of the client's own in between. One connection serves one stream after the other, as a
pooled client does. A stream that is refused, cut or incomplete raises StreamError. All times are seconds
unless a name says otherwise.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from bench.load import Target
from bench.payload import CHUNKS, STAMP, chat_body, http_request

_STAMP_BYTES: Final = 22
_DONE: Final = b"data: [DONE]"
_END: Final = b"0\r\n\r\n"
_SUCCESS: Final = (b"HTTP/1.1 200", b"HTTP/1.0 200")


class StreamError(Exception):
    """A stream that cannot count: refused, cut, or without all its chunks."""


@dataclass(slots=True)
class Timings:
    """What streams measured: delay of each chunk, and time from request to first chunk, both in seconds."""

    chunk_delays: list[float] = field(default_factory=list)
    first_chunks: list[float] = field(default_factory=list)
    streams: int = 0


class StreamClient(asyncio.Protocol):
    """One connection that plays one stream after the other."""

    def __init__(self, timings: Timings) -> None:
        self._timings = timings
        self._tail = b""
        self._chunks = 0
        self._sent_ns = 0
        self._begun = False
        self._finished = False
        self._done: asyncio.Future[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        # A cast, not an assertion: uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def begin(self, request: bytes) -> tuple[asyncio.Future[None], asyncio.Future[None]]:
        """Sends a request; returns what resolves at its first chunk and at its end."""
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        self._first, self._done = loop.create_future(), loop.create_future()
        self._tail, self._chunks, self._begun, self._finished = b"", 0, False, False
        self._sent_ns = time.monotonic_ns()
        self.transport.write(request)
        return self._first, self._done

    def data_received(self, data: bytes) -> None:
        """Times each chunk; a stamp that is split between two reads counts at the read that completes it."""
        now = time.monotonic_ns()
        if self._done is None or self._done.done():
            return
        if not self._begun and not data.startswith(_SUCCESS):
            self._fail(f"not a success: {data[:300]!r}")
            return
        self._begun = True
        whole = self._tail + data
        last = 0
        for match in STAMP.finditer(whole):
            self._timings.chunk_delays.append((now - int(match[1])) / 1e9)
            if not self._chunks:
                self._timings.first_chunks.append((now - self._sent_ns) / 1e9)
                if self._first is not None and not self._first.done():
                    self._first.set_result(None)
            self._chunks += 1
            last = match.end()
        self._finished = self._finished or _DONE in whole
        if self._finished and whole.endswith(_END):
            self._complete()
            return
        self._tail = whole[max(last, len(whole) - _STAMP_BYTES - len(_DONE)) :]

    def _complete(self) -> None:
        """Ends a stream that said it was finished."""
        if self._chunks != CHUNKS:
            self._fail(f"{self._chunks} of {CHUNKS} chunks arrived")
            return
        self._timings.streams += 1
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, reason: str) -> None:
        """Fails the stream in progress."""
        for future in (self._first, self._done):
            if future is not None and not future.done():
                future.set_exception(StreamError(reason))
                future.exception()

    def connection_lost(self, exc: Exception | None) -> None:
        """An end of the connection ends a finished stream and fails an unfinished one."""
        self.transport = None
        if self._finished and self._done is not None and not self._done.done():
            self._complete()
        self._fail(f"connection ended: {exc}")


async def _client(target: Target, timings: Timings) -> StreamClient:
    """Opens one connection."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: StreamClient(timings), target.host, target.port)
    return client


def request_for(target: Target, mode: str, serial: int = 0) -> bytes:
    """Returns the bytes of one request of `mode` to `target`."""
    return http_request(
        f"{target.host}:{target.port}", target.path, target.headers, chat_body(mode, target.model, serial)
    )


async def play(target: Target, mode: str, *, at_once: int, each: int, spread: float, limit: float) -> Timings:
    """Plays `each` streams one after the other on each of `at_once` connections; returns their timings.

    The connections begin evenly over `spread` seconds, so that chunks of different streams do not fall
    together. Raises StreamError when a stream fails, TimeoutError when all is not done after `limit`
    seconds.
    """
    timings = Timings()

    async def player(number: int) -> None:
        await asyncio.sleep(spread * number / at_once)
        client = await _client(target, timings)
        for turn in range(each):
            if client.transport is None or client.transport.is_closing():
                client = await _client(target, timings)
            _, done = client.begin(request_for(target, mode, number * each + turn))
            await done
        if client.transport is not None:
            client.transport.close()

    gc.collect()
    gc.disable()  # a collection in this process would be counted as a delay of the gateway
    try:
        async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
            for number in range(at_once):
                group.create_task(player(number))
    except ExceptionGroup as failures:
        raise StreamError(repr(failures.exceptions[0])) from failures
    finally:
        gc.enable()
    return timings


async def hold(target: Target, *, count: int, seconds: float, limit: float, sample: Callable[[], float]) -> float:
    """Opens `count` streams, holds them for `seconds` after all have begun; returns the largest `sample`.

    Each stream carries two chunks a second meanwhile. Raises StreamError when one fails to open or is lost,
    TimeoutError when not all are open after `limit` seconds.
    """
    clients: list[StreamClient] = []
    ends: list[asyncio.Future[None]] = []

    async def opener(first: int) -> None:
        for serial in range(first, count, 50):
            client = await _client(target, Timings())
            clients.append(client)
            begun, done = client.begin(request_for(target, "hold", serial))
            ends.append(done)
            await begun

    try:
        async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
            for first in range(min(50, count)):
                group.create_task(opener(first))
        largest = sample()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(0.25)
            largest = max(largest, sample())
        lost = sum(done.done() for done in ends)
        if lost:
            raise StreamError(f"{lost} of {count} streams were lost while they were held")
    except ExceptionGroup as failures:
        raise StreamError(repr(failures.exceptions[0])) from failures
    finally:
        for client in clients:
            if client.transport is not None:
                client.transport.abort()
    return largest


async def stall(target: Target, *, seconds: float, sample: Callable[[], float]) -> float:
    """Asks for the 64 MB stream and reads nothing for `seconds`; returns how much `sample` grew meanwhile.

    The receive buffer is small, so what the client does not take stays in the gateway or behind it. Raises
    StreamError when what waited in the socket is not the beginning of a success.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with sock:
        await loop.sock_connect(sock, (target.host, target.port))
        before = largest = sample()
        await loop.sock_sendall(sock, request_for(target, "flood"))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(0.1)
            largest = max(largest, sample())
        async with asyncio.timeout(10):
            head = await loop.sock_recv(sock, 1024)
        if not head.startswith(_SUCCESS):
            raise StreamError(f"not a success: {head[:300]!r}")
    return largest - before
