"""Who reads slowly gets the whole answer, and who does not read at all is cut off, however much waits for it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dashboards.assets import url
from gateway.supervisor import bind
from tests import harness
from tests.fakes.backend import DONE, SSE_HEAD, Script, Visit, chunk, event, hand_backend, whole
from tests.fakes.raw_client import CHAT, post
from tests.harness import Backend, Stage, chat_body, configuration, staged

LIMIT = 0.5
"""Seconds of ``write_timeout`` here."""
SIP = 32 * 1024
PATIENCE = 30.0
"""Seconds for what must come sooner or later."""
UNSENT = 120_000
"""Bytes of an answer of which the kernel, told to hold few, leaves some, and never enough to press a backend."""


class Sipper:
    """A caller that takes a little every so often.

    It reads in a timer of the event loop that is always due before the gateway's own: a loop that is held up for long
    finds it reading all the same.

    Attributes:
        taken: the bytes it has.
        sips: how often it could read something.
        over: set once the gateway has closed or reset the connection.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._every = 0.0
        self._size = 0
        self.taken = bytearray()
        self.sips = 0
        self.over = asyncio.Event()

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        await self._loop.sock_sendall(self._sock, data)

    def read(self, every: float, size: int) -> None:
        """Take up to ``size`` bytes after each ``every`` seconds from now on."""
        self.rest()
        self._every, self._size = every, size
        self._timer = self._loop.call_later(every, self._sip)

    def rest(self) -> None:
        """Take nothing from now on."""
        if self._timer is not None:
            self._timer.cancel()

    def finish_sending(self) -> None:
        """Close the sending half."""
        self._sock.shutdown(socket.SHUT_WR)

    async def sipped(self, times: int) -> None:
        """Wait until it could read so many more times, or the connection is over."""
        async with asyncio.timeout(PATIENCE):
            until = self.sips + times
            while self.sips < until and not self.over.is_set():
                self._changed.clear()
                await self._changed.wait()

    async def ends(self, how: bytes) -> None:
        """Wait until what it has ends with ``how``, or the connection is over."""
        async with asyncio.timeout(2 * PATIENCE):
            while not self.taken.endswith(how) and not self.over.is_set():
                self._changed.clear()
                await self._changed.wait()

    def _sip(self) -> None:
        self._timer = self._loop.call_later(self._every, self._sip)
        try:
            data = self._sock.recv(self._size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.taken += data
            self.sips += 1
        else:
            self.rest()
            self.over.set()
        self._changed.set()


@asynccontextmanager
async def sipper(port: int, receive_buffer: int = 16384) -> AsyncIterator[Sipper]:
    """Open a connection for the block; it reads nothing until told to."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        caller = Sipper(sock)
        try:
            yield caller
        finally:
            caller.rest()


@asynccontextmanager
async def stage_of(home: Path, script: Script, limit: float = LIMIT) -> AsyncIterator[Stage]:
    """Run a gateway over one backend written by hand."""
    async with (
        hand_backend(script) as backend,
        staged(home, configuration([Backend("only", backend.url, "openai")]), WEIR_WRITE_TIMEOUT=str(limit)) as stage,
    ):
        yield stage


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel hold little of what is sent to callers."""

    def shallow_bind(host: str, port: int) -> socket.socket:
        listener = bind(host, port)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # what it accepts has it from here
        return listener

    monkeypatch.setattr(harness, "bind", shallow_bind)


def request(key: str, *headers: str, **more: Any) -> bytes:
    """Return a chat request."""
    return post(CHAT, chat_body() | more, key, *headers)


async def open_connections(stage: Stage) -> int:
    """Return how many connections of callers are open, without the one that asks."""
    page = (await stage.http.get(f"{stage.url}/metrics", headers=stage.admin)).text
    found = re.search(r"^weir_open_connections (\d+)", page, re.MULTILINE)
    assert found is not None, page
    return int(found[1]) - 1


async def left(stage: Stage) -> None:
    """Wait until no caller is connected."""
    async with asyncio.timeout(PATIENCE):
        while await open_connections(stage):
            await asyncio.sleep(0.05)


def flood(events: int) -> Script:
    """Return what answers with so many events of 16 KiB and two more."""

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        for number in range(events):
            await visit.events(event(chunk(f"{number:08d}" * 2048)))
        await visit.events(event(chunk(finish="stop")), DONE, last=True)

    return script


async def test_a_slow_reader_of_a_stream_is_not_cut_off(tmp_path: Path) -> None:
    """The kernel takes nothing more until a third of what it holds is gone: meanwhile only it knows who reads."""
    async with stage_of(tmp_path, flood(800)) as stage, sipper(stage.port) as caller:
        await caller.send(request(stage.key, stream=True))
        caller.read(LIMIT / 5, SIP)
        await caller.sipped(20)
        assert not caller.over.is_set(), f"cut off after {len(caller.taken)} bytes"
        caller.read(0.001, 1 << 20)
        await caller.ends(b"0\r\n\r\n")
        assert caller.taken.count(b"data: ") == 802
        (record,) = await stage.settled()
        assert record.attempts[-1].status == "ok"


@pytest.mark.usefixtures("shallow")
async def test_what_leaves_the_gateway_counts_where_the_system_does_not_tell_who_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is on anything but Linux; also where the buffer was full again each time somebody looked."""
    monkeypatch.setattr("gateway.edge.clocks._LINUX", False)
    async with stage_of(tmp_path, flood(4000)) as stage, sipper(stage.port) as caller:
        await caller.send(request(stage.key, stream=True))
        caller.read(LIMIT / 10, 2 * SIP)
        await caller.sipped(40)
        assert not caller.over.is_set(), f"cut off after {len(caller.taken)} bytes"
        caller.rest()
        await left(stage)
        (record,) = await stage.settled()
        assert record.attempts[-1].status == "client_cancel"


async def test_more_that_comes_while_a_caller_reads_is_not_held_against_it(tmp_path: Path) -> None:
    """The answer to the second of two pipelined requests joins the first, of which more waits than is ever taken."""
    size = 6 * 1024 * 1024

    async def script(visit: Visit) -> None:
        await visit.answer(whole("y" * size))

    async with stage_of(tmp_path, script) as stage, sipper(stage.port) as caller:
        await caller.send(request(stage.key) * 2)
        caller.read(LIMIT / 5, SIP)
        await caller.sipped(20)
        assert not caller.over.is_set(), f"cut off after {len(caller.taken)} bytes"
        caller.read(0.001, 1 << 20)
        async with asyncio.timeout(2 * PATIENCE):
            while caller.taken.count(b"y" * 1024) < 2 * size // 1024:
                await caller.sipped(1)
                assert not caller.over.is_set(), f"cut off after {len(caller.taken)} bytes"


EVENTS = 5000


async def long_stream(visit: Visit) -> None:
    """Answer with a stream of ``EVENTS`` events, 6 MB for its caller: more than all buffers on the way hold."""
    await visit.send(SSE_HEAD)
    for number in range(0, EVENTS, 100):
        await visit.events(*(event(chunk(f"{each:08d}" * 128)) for each in range(number, number + 100)))
    await visit.events(event(chunk(finish="stop")), DONE, last=True)


async def test_a_kept_stream_that_a_shutdown_ends_says_so_as_a_stream(tmp_path: Path) -> None:
    """The caller, which was slow, gets what it had coming and an event that says why no more comes; no second head."""
    async with stage_of(tmp_path, long_stream, limit=60) as stage:
        cached = request(stage.key, "X-OpenRouter-Cache: true", stream=True)
        async with sipper(stage.port) as caller:
            await caller.send(cached)
            caller.read(0.001, 1 << 20)
            await caller.ends(b"0\r\n\r\n")
        await stage.gateway.inference.repetitions.clerk.flush()
        async with sipper(stage.port) as caller:
            await caller.send(cached)
            caller.read(0.001, 1024)
            await caller.sipped(1)
            caller.rest()
            await asyncio.sleep(0.5)
            assert len(stage.gateway.inference.active) == 1
            await stage.gateway.drain(0.05)
            caller.read(0.001, 1 << 20)
            await caller.ends(b"0\r\n\r\n")
            assert caller.taken.count(b"HTTP/1.1") == 1
            assert b"the gateway is shutting down" in caller.taken[-1000:]


async def test_a_kept_stream_given_again_waits_for_its_caller(tmp_path: Path) -> None:
    """Of one that does not read it holds little; when it reads, nothing is missing; when it leaves, nothing is left."""
    asked = 0

    async def script(visit: Visit) -> None:
        nonlocal asked
        asked += 1
        await long_stream(visit)

    async with stage_of(tmp_path, script, limit=60) as stage:
        cached = request(stage.key, "X-OpenRouter-Cache: true", stream=True)
        active = stage.gateway.inference.active
        for reads in ("at once", "late", "never"):
            async with sipper(stage.port) as caller:
                await caller.send(cached)
                caller.read(0.001, 1024 if reads != "at once" else 1 << 20)
                await caller.sipped(1)
                if reads != "at once":
                    caller.rest()
                    await asyncio.sleep(1)
                    assert len(active) == 1, "all of it has been written"
                if reads != "never":
                    caller.read(0.001, 1 << 20)
                    await caller.ends(b"0\r\n\r\n")
                    assert caller.taken.count(b"data: ") == EVENTS + 2
            await stage.gateway.inference.repetitions.clerk.flush()
            async with asyncio.timeout(PATIENCE):
                while active:
                    await asyncio.sleep(0.02)
        assert asked == 1


@pytest.mark.parametrize("how", ["closes", "rests", "has sent all"])
@pytest.mark.usefixtures("shallow")
async def test_a_connection_that_nobody_reads_ends_with_little_unsent(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of an answer presses no backend, and keeps the connection no longer than more would."""
    monkeypatch.setattr("gateway.serving.KEEP_ALIVE", 1 if how == "rests" else 600)

    async def script(visit: Visit) -> None:
        await visit.answer(whole("y" * UNSENT))

    async with stage_of(tmp_path, script) as stage, sipper(stage.port, 4096) as caller:
        await caller.send(request(stage.key, *(["Connection: close"] if how == "closes" else [])))
        await stage.settled()
        if how == "has sent all":
            monkeypatch.setattr("gateway.serving.KEEP_ALIVE", 600)
            caller.finish_sending()
        await left(stage)
        caller.read(0.001, 1 << 20)
        async with asyncio.timeout(PATIENCE):
            await caller.over.wait()
        assert len(caller.taken) < UNSENT


@pytest.mark.usefixtures("shallow")
async def test_a_page_that_nobody_reads_ends_with_little_unsent(tmp_path: Path) -> None:
    """The same is true of what is not inference: here two files of 50 KB, the second being the last of all."""

    async def script(visit: Visit) -> None:
        await visit.answer(whole())

    file = url("vendor/uplot.min.js").encode()
    async with stage_of(tmp_path, script) as stage, sipper(stage.port, 4096) as caller:
        head = b"GET %s HTTP/1.1\r\nHost: x\r\n" % file
        await caller.send(head + b"\r\n" + head + b"Connection: close\r\n\r\n")
        await left(stage)
        caller.read(0.001, 1 << 20)
        async with asyncio.timeout(PATIENCE):
            await caller.over.wait()
        assert b"HTTP/1.1 200 OK" in caller.taken


@pytest.mark.usefixtures("shallow")
async def test_a_slow_reader_of_a_connection_that_closes_gets_everything(tmp_path: Path) -> None:
    """It takes longer than the limit in all, and never longer to take something."""

    async def script(visit: Visit) -> None:
        await visit.answer(whole("y" * UNSENT))

    async with stage_of(tmp_path, script) as stage, sipper(stage.port, 4096) as caller:
        await caller.send(request(stage.key, "Connection: close"))
        caller.read(LIMIT / 5, 4096)
        async with asyncio.timeout(PATIENCE):
            await caller.over.wait()
        assert caller.sips > 20
        assert json.loads(caller.taken.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"] == "y" * UNSENT
        await left(stage)
