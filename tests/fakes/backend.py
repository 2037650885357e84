"""A backend written by hand: each inference request is answered by the coroutine of the test, byte by byte.

For what the simulator cannot be asked: exact moments, exact bytes, and what the socket of the backend sees. Any GET is
answered well, so that probes find the backend healthy.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


class Visit:
    """One inference request as the backend sees it.

    Attributes:
        path: of the request.
        head: everything before the body.
        body: as it came.
        gone: set once the gateway has closed the connection; known only while the script does not read itself.
        gone_at: monotonic seconds of that.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
        self.reader = reader
        self.writer = writer
        self.path = head.split(b" ", 2)[1].decode()
        self.head = head
        self.body = body
        self.gone = asyncio.Event()
        self.gone_at = 0.0

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    async def send(self, data: bytes) -> None:
        """Write bytes and wait until the transport has room."""
        self.writer.write(data)
        await self.writer.drain()

    async def events(self, *payloads: bytes, last: bool = False) -> None:
        """Send event-stream bytes as one HTTP chunk; ``last`` ends the body."""
        data = b"".join(payloads)
        await self.send((b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + (LAST if last else b""))

    async def answer(self, document: object, status: str = "200 OK", more: str = "") -> None:
        """Send a whole JSON answer."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n{more}\r\n"
        await self.send(head.encode() + raw)

    async def watch(self) -> None:
        """Note when the gateway closes the connection."""
        with suppress(OSError):
            while await self.reader.read(65536):
                pass
        self.gone_at = time.monotonic()
        self.gone.set()


Script = Callable[[Visit], Awaitable[None]]


class HandBackend:
    """See the module.

    Attributes:
        visits: inference requests in the order they came.
        connections: connections accepted so far.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.visits: list[Visit] = []
        self.connections = 0
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived = asyncio.Condition()

    async def visit(self, number: int = 1, seconds: float = 20.0) -> Visit:
        """Wait for the ``number``-th inference request."""
        async with asyncio.timeout(seconds), self._arrived:
            await self._arrived.wait_for(lambda: len(self.visits) >= number)
        return self.visits[number - 1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n" + b'{"data":[]}')
                    continue
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                visit = Visit(reader, writer, head, await reader.readexactly(length))
                await self._serve(visit)
                if visit.gone.is_set() or writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        """End all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, visit: Visit) -> None:
        self.visits.append(visit)
        async with self._arrived:
            self._arrived.notify_all()
        watching = asyncio.create_task(visit.watch())
        try:
            await self.script(visit)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


@asynccontextmanager
async def hand_backend(script: Script) -> AsyncIterator[HandBackend]:
    """Run a backend inside the block."""
    backend = HandBackend(script)
    server = await asyncio.start_server(backend.serve, "127.0.0.1", 0, limit=1 << 20)
    backend.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield backend
    finally:
        server.close()
        await backend.stop()
        await server.wait_closed()


def event(document: object) -> bytes:
    """Return ``document`` as an event."""
    return b"data: %b\n\n" % json.dumps(document).encode()


def chunk(text: str | None = None, *, finish: str | None = None, chat: bool = True, **more: Any) -> dict[str, Any]:
    """Return one chunk of a stream with one choice."""
    part: dict[str, Any] = {"delta": {} if text is None else {"content": text}} if chat else {"text": text or ""}
    return {
        "id": "backend-1",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, **part, "finish_reason": finish}],
        **more,
    }


def usage_chunk(completion: int, prompt: int = 7) -> dict[str, Any]:
    """Return the chunk that reports usage."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**chunk(), "choices": [], "usage": usage}


def whole(text: str = "hello", completion: int = 1) -> dict[str, Any]:
    """Return a whole chat answer."""
    return {
        **usage_chunk(completion),
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
    }
