"""A small HTTP server that remembers what it was sent and answers as it is told: webhooks, or Stripe's meter events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Receiver:
    """The server.

    Attributes:
        url: its root.
        answers: statuses and bodies to answer next, in order; afterwards 200.
        received: what it was sent.
    """

    url: str = ""
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)


async def _serve(told: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        told.received.append(Received(first.split(" ")[1], headers, body))
        status, said = told.answers.pop(0) if told.answers else (200, b"{}")
        head = f"HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len(said)}\r\n\r\n".encode()
        writer.write(head + said)
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """Run a server inside the block."""
    told = Receiver()
    server = await asyncio.start_server(lambda reader, writer: _serve(told, reader, writer), "127.0.0.1", 0)
    told.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield told
    finally:
        server.close()
