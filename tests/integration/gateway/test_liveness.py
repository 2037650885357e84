"""A chunk leaves when it arrives, a caller that does not read costs next to nothing, one that leaves costs no more."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.api import build_api
from gateway.edge.asgi import Message, Scope
from gateway.edge.native import Road
from gateway.metering.tap import BYTES_PER_TOKEN
from tests.fakes.backend import DONE, LAST, SSE_HEAD, HandBackend, Script, Visit, chunk, event, hand_backend, whole
from tests.fakes.raw_client import RawClient, events, post, raw_client, text_of
from tests.harness import Backend, Stage, configuration, staged

PATHS = ["/v1/chat/completions", "/api/v1/chat/completions", "/v1/completions", "/api/v1/completions"]
SOON = 20.0
"""Seconds in which an upstream socket must be closed: a tenth of one is promised, the rest is for busy machines.

Left to itself it would stay for a minute at least, or for good."""


def request(path: str, *, stream: bool) -> dict[str, Any]:
    """Return a body for ``path``."""
    asked = {"prompt": "hi"} if path.endswith("/v1/completions") else {"messages": [{"role": "user", "content": "hi"}]}
    return {"model": "qwen/qwen3-32b", "stream": stream, **asked}


@asynccontextmanager
async def stage_over(
    home: Path, script: Script, more: str = "", **environment: str
) -> AsyncIterator[tuple[Stage, HandBackend]]:
    """Run a gateway over one backend written by hand."""
    async with (
        hand_backend(script) as backend,
        staged(
            home, configuration([Backend("only", backend.url, "openai", more=more)]), following=False, **environment
        ) as stage,
    ):
        yield stage, backend


class NativeCaller:
    """A caller on a socket."""

    def __init__(self, client: RawClient) -> None:
        self._client = client

    async def until(self, text: str) -> None:
        """Wait until the answer holds ``text``."""
        await self._client.until(text.encode())

    async def body(self) -> bytes:
        """Return the whole answer."""
        return (await self._client.response()).body

    def leave(self) -> None:
        """Close at once."""
        self._client.leave()


class AsgiCaller:
    """A caller of the ASGI adapter: what a server would do, message by message.

    Attributes:
        reads: cleared while the caller takes nothing.
    """

    def __init__(self, stage: Stage, path: str, body: object) -> None:
        road = Road()
        road.inference = stage.gateway.inference
        self._app = build_api(stage.gateway, road, lifespan=False)
        headers = [(b"authorization", f"Bearer {stage.key}".encode()), (b"content-type", b"application/json")]
        self._scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        self._request: Message | None = {"type": "http.request", "body": json.dumps(body).encode()}
        self._gone = asyncio.Event()
        self._parts: list[bytes] = []
        self._changed = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self._task = asyncio.ensure_future(self._app(self._scope, self._receive, self._send))

    async def until(self, text: str) -> None:
        """Wait until the answer holds ``text``."""
        async with asyncio.timeout(15):
            while text.encode() not in b"".join(self._parts):
                self._changed.clear()
                await self._changed.wait()

    async def body(self) -> bytes:
        """Return the whole answer."""
        await asyncio.wait_for(self._task, 15)
        return b"".join(self._parts)

    def leave(self) -> None:
        """Disconnect."""
        self._gone.set()

    async def ended(self) -> None:
        """Wait until the application has returned."""
        await asyncio.wait_for(self._task, 100)

    async def _receive(self) -> Message:
        message, self._request = self._request, None
        if message is not None:
            return message
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._parts.append(message.get("body", b""))
        self._changed.set()
        await self.reads.wait()


@asynccontextmanager
async def caller(road: str, stage: Stage, path: str, *, stream: bool) -> AsyncIterator[NativeCaller | AsgiCaller]:
    """Send a request on one of the two roads."""
    body = request(path, stream=stream)
    if road == "asgi":
        found = AsgiCaller(stage, path, body)
        yield found
        found.leave()
        await found.ended()
        return
    async with raw_client(stage.port) as client:
        await client.send(post(path, body, stage.key))
        yield NativeCaller(client)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("road", ["native", "asgi"])
async def test_a_chunk_reaches_the_caller_before_the_backend_sends_the_next(
    road: str, path: str, tmp_path: Path
) -> None:
    """The backend sends a chunk only 200 ms after the caller has seen the one before, so none may be held back."""
    chat = "chat" in path
    seen = [asyncio.Event() for _ in range(3)]

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        for number, each in enumerate(seen):
            await visit.events(event(chunk(f"part-{number} ", chat=chat)))
            async with asyncio.timeout(10):
                await each.wait()
            await asyncio.sleep(0.2)
        await visit.events(event(chunk(finish="stop", chat=chat)), DONE, last=True)

    async with stage_over(tmp_path, script) as (stage, _), caller(road, stage, path, stream=True) as client:
        for number, each in enumerate(seen):
            await client.until(f"part-{number} ")
            each.set()
        found = events(await client.body())
        assert text_of(found) == "part-0 part-1 part-2 "
        assert found[-1] == "[DONE]"


@pytest.mark.parametrize("path", PATHS)
async def test_a_piece_without_text_in_a_read_of_its_own_harms_nobody(path: str, tmp_path: Path) -> None:
    """Engines send them where a token makes no character yet: before the first text, in the middle, at the end."""
    chat = "chat" in path

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        for text in ("", "", "part-0 ", "", "part-1 ", ""):
            await visit.events(event(chunk(text, chat=chat)))
            await asyncio.sleep(0.05)
        await visit.events(event(chunk(finish="stop", chat=chat)), DONE, last=True)

    async with stage_over(tmp_path, script) as (stage, _), caller("native", stage, path, stream=True) as client:
        found = events(await client.body())
        assert text_of(found) == "part-0 part-1 "
        assert found[-1] == "[DONE]"
        (record,) = await stage.settled()
        size = len("part-0 part-1 ")
        assert [(each.status, each.usage.completion) for each in record.attempts] == [
            ("ok", -(-size // BYTES_PER_TOKEN))
        ]


def transport_of(client: RawClient) -> asyncio.Transport:
    """Return the transport of a socket, which reads as well as writes."""
    # A cast, because the transports of uvloop do not derive from those of asyncio.
    return cast("asyncio.Transport", client.writer.transport)


def resident() -> int:
    """Return the bytes of memory this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Flood:
    """Answers with 64 MiB of text in events of 16 KiB; ``sent`` counts the events the backend could write."""

    EVENTS = 4096

    def __init__(self) -> None:
        self.sent = 0
        self.digest = hashlib.sha256()

    async def script(self, visit: Visit) -> None:
        """Write as fast as the gateway reads."""
        await visit.send(SSE_HEAD)
        for number in range(self.EVENTS):
            text = f"{number:08d}" * 2048
            self.digest.update(text.encode())
            await visit.events(event(chunk(text)))
            self.sent += 1
        await visit.events(event(chunk(finish="stop")), DONE, last=True)

    async def stalled(self) -> None:
        """Wait until the backend has not been able to write for half a second."""
        async with asyncio.timeout(60):
            before = -1
            while before != self.sent or not self.sent:
                before = self.sent
                await asyncio.sleep(0.5)


async def test_a_reader_that_does_not_read_costs_little_and_pauses_the_backend(tmp_path: Path) -> None:
    """Of 64 MiB only what fits the sockets leaves the backend; when the caller reads at last, nothing is missing."""
    flood = Flood()
    more = "timeouts: {connect: 5, first_byte: 5, idle: 0.3}"  # shorter than the pause: a paused backend is not idle
    async with stage_over(tmp_path, flood.script, more) as (stage, _):
        assert (await stage.http.get(f"{stage.url}/health")).status_code == 200
        async with raw_client(stage.port, receive_buffer=65536) as client:
            transport_of(client).pause_reading()
            before = resident()
            await client.send(post(PATHS[0], request(PATHS[0], stream=True), stage.key))
            await flood.stalled()
            assert resident() - before <= 10 * 1024 * 1024
            assert flood.sent < Flood.EVENTS // 2
            transport_of(client).resume_reading()
            answer = await client.response(seconds=100)
        found = events(answer.body)
        assert found[-1] == "[DONE]"
        assert hashlib.sha256(text_of(found).encode()).digest() == flood.digest.digest()
        assert stage.gateway.registry.fleet.replicas["only"].load.failures == 0


async def test_the_asgi_adapter_pauses_the_backend_as_well(tmp_path: Path) -> None:
    """A server that does not take what it is sent stops the backend, too."""
    flood = Flood()
    async with stage_over(tmp_path, flood.script) as (stage, _):
        client = AsgiCaller(stage, PATHS[0], request(PATHS[0], stream=True))
        client.reads.clear()
        before = resident()
        await flood.stalled()
        assert resident() - before <= 10 * 1024 * 1024
        assert flood.sent < Flood.EVENTS // 2
        client.reads.set()
        await client.ended()
        assert hashlib.sha256(text_of(events(await client.body())).encode()).digest() == flood.digest.digest()


async def test_a_reader_that_never_reads_is_cut_off(tmp_path: Path) -> None:
    """A caller that takes no byte for the write limit is treated as one that left; its backend is not to blame."""
    flood = Flood()
    async with stage_over(tmp_path, flood.script, WEIR_WRITE_TIMEOUT="0.5") as (stage, backend):
        async with raw_client(stage.port, receive_buffer=65536) as client:
            transport_of(client).pause_reading()
            await client.send(post(PATHS[0], request(PATHS[0], stream=True), stage.key))
            visit = await backend.visit()
            await asyncio.wait_for(visit.gone.wait(), 20)
        (record,) = await stage.settled()
        assert record.attempts[-1].status == "client_cancel"
        assert stage.gateway.registry.fleet.replicas["only"].load.failures == 0


async def test_a_stream_behind_an_unread_answer_is_paused_as_well(tmp_path: Path) -> None:
    """A caller cannot make the gateway buffer a stream by not reading what came before it."""
    flood = Flood()

    async def script(visit: Visit) -> None:
        if visit.document["stream"]:
            await flood.script(visit)
        else:
            text = "y" * (12 * 1024 * 1024)
            await visit.answer({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})

    async with stage_over(tmp_path, script) as (stage, _), raw_client(stage.port, receive_buffer=65536) as client:
        transport_of(client).pause_reading()
        first = post(PATHS[0], request(PATHS[0], stream=False), stage.key)
        await client.send(first + post(PATHS[0], request(PATHS[0], stream=True), stage.key))
        await flood.stalled()
        assert flood.sent < Flood.EVENTS // 2


PHASES = ["head", "first event", "mid-stream", "JSON", "half the JSON"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("road", ["native", "asgi"])
async def test_a_caller_that_leaves_closes_the_upstream_socket(road: str, phase: str, tmp_path: Path) -> None:
    """Whatever the backend is doing, it sees the connection close at once, and the books are closed."""
    ready = asyncio.Event()

    async def script(visit: Visit) -> None:
        if phase in {"first event", "mid-stream"}:
            await visit.send(SSE_HEAD)
        if phase == "mid-stream":
            await visit.events(event(chunk("hello")))
        if phase == "half the JSON":
            await visit.send(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{"id":')
        await asyncio.sleep(0.05)
        ready.set()
        await visit.gone.wait()

    stream = "JSON" not in phase
    async with stage_over(tmp_path, script) as (stage, backend):
        async with caller(road, stage, PATHS[0], stream=stream) as client:
            if phase == "mid-stream":
                await client.until("hello")
            await asyncio.wait_for(ready.wait(), 10)
            load = stage.gateway.registry.fleet.replicas["only"].load
            assert load.in_flight == 1
            client.leave()
            await asyncio.wait_for(backend.visits[0].gone.wait(), SOON)
        (record,) = await stage.settled()
        assert record.attempts[-1].status == "client_cancel"
        assert (load.in_flight, load.failures) == (0, 0)
        assert (await stage.keeper.audit()).ok


async def test_a_caller_that_leaves_ends_a_connection_attempt(tmp_path: Path) -> None:
    """While the backend does not even accept, leaving takes the half-open connection away."""

    def half_open(port: int) -> set[str]:
        """Return the local ends of connections to ``port`` that were not accepted."""
        table = Path("/proc/net/tcp").read_text()
        return {found[1] for found in re.finditer(rf"\d+: \S+:(\w+) \S+:{port:04X} 02 ", table)}

    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):  # fill the backlog: the kernel drops what comes after
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        backends = [Backend("only", f"http://127.0.0.1:{port}", "openai", more="timeouts: {connect: 60}")]
        async with staged(tmp_path, configuration(backends)) as stage:
            fleet = stage.gateway.registry.fleet.replicas["only"]
            for probe, _ in stage.gateway.registry._probes.values():
                await probe.close()
            fillers = half_open(port)
            async with raw_client(stage.port) as client:
                await client.send(post(PATHS[0], request(PATHS[0], stream=True), stage.key))
                async with asyncio.timeout(10):
                    while not (tried := half_open(port) - fillers):
                        await asyncio.sleep(0.01)
                assert fleet.load.in_flight == 1
                client.leave()
                async with asyncio.timeout(SOON):
                    while fleet.load.in_flight:
                        await asyncio.sleep(0.005)
                async with asyncio.timeout(SOON):
                    while half_open(port) & tried:
                        await asyncio.sleep(0.01)
            (record,) = await stage.settled()
            assert record.attempts[-1].status == "client_cancel"
            assert record.attempts[-1].usage.total == 0


async def test_a_caller_that_leaves_before_it_is_admitted_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is gone by the time its key's limits have been asked never reaches a backend, and holds nothing."""

    async def script(visit: Visit) -> None:
        await visit.answer(whole())

    async with stage_over(tmp_path, script) as (stage, backend):
        key = await stage.new_key(concurrent=1)
        assert (await stage.chat()).status_code == 200  # from now on a connection stands ready
        asked, go_on = asyncio.Event(), asyncio.Event()
        admit = stage.keeper.admit

        async def slowly(*given: Any) -> Any:
            asked.set()
            await go_on.wait()
            return await admit(*given)

        monkeypatch.setattr(stage.keeper, "admit", slowly)
        async with raw_client(stage.port) as client:
            await client.send(post(PATHS[0], request(PATHS[0], stream=True), key.key))
            await asyncio.wait_for(asked.wait(), 10)
            client.leave()
            await asyncio.sleep(0.1)
        go_on.set()
        async with asyncio.timeout(10):
            while stage.gateway.inference.active:
                await asyncio.sleep(0.01)
        assert len(backend.visits) == 1
        assert (await admit(key.record.key_id, key.record.limits, 1)).refused is None


async def test_a_caller_that_leaves_early_starts_nothing(tmp_path: Path) -> None:
    """A request whose caller is gone before it is whole never reaches a backend."""

    async def script(visit: Visit) -> None:
        await visit.send(LAST)

    async with stage_over(tmp_path, script) as (stage, backend):
        for size in (20, 150, -1):
            async with raw_client(stage.port) as client:
                await client.send(post(PATHS[0], request(PATHS[0], stream=True), stage.key)[:size])
        assert (await stage.http.get(f"{stage.url}/health")).status_code == 200
        await asyncio.sleep(0.1)
        assert not backend.visits
        assert not stage.gateway.inference.active
