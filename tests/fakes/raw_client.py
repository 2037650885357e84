"""A caller that writes bytes: whatever HTTP says or forbids."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httptools

from tests.harness import chat_body

CHAT = "/v1/chat/completions"
BODY = json.dumps(chat_body()).encode()
"""A good chat request."""


class RawResponse:
    """One response, as far as it has come; what httptools calls while it reads one."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.status = 0
        self.complete = False

    @property
    def body(self) -> bytes:
        """The body so far."""
        return b"".join(self.parts)

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class RawClient:
    """One connection to the gateway. Responses are read strictly: anything that is not HTTP raises.

    Attributes:
        responses: in the order they began.
        informational: statuses below 200 that came in between.
        ended: the gateway has closed its side.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.responses: list[RawResponse] = []
        self.informational: list[int] = []
        self.ended = False
        self._parser = httptools.HttpResponseParser(self)
        self._current = RawResponse()

    # What httptools calls

    def on_message_begin(self) -> None:
        """A response begins."""
        self._current = RawResponse()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._current.headers[name.decode().lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Take an answer's head; 1xx stand beside the responses."""
        self._current.status = self._parser.get_status_code()
        if self._current.status < 200:
            self.informational.append(self._current.status)
        else:
            self.responses.append(self._current)

    def on_body(self, data: bytes) -> None:
        """Collect a piece of the body."""
        self._current.parts.append(data)

    def on_message_complete(self) -> None:
        """A response is whole."""
        self._current.complete = True

    # What tests call

    async def send(self, data: bytes, *, drain: bool = True) -> None:
        """Write bytes."""
        self.writer.write(data)
        if drain:
            await self.writer.drain()

    async def response(self, number: int = 1, seconds: float = 30.0) -> RawResponse:
        """Return the ``number``-th response once it is whole; EOFError when the connection ends before."""
        async with asyncio.timeout(seconds):
            while len(self.responses) < number or not self.responses[number - 1].complete:
                await self._more()
        return self.responses[number - 1]

    async def until(self, text: bytes, seconds: float = 30.0) -> RawResponse:
        """Return the first response once its body holds ``text``."""
        async with asyncio.timeout(seconds):
            while not self.responses or text not in self.responses[0].body:
                await self._more()
        return self.responses[0]

    async def rest(self, seconds: float = 30.0) -> None:
        """Read until the gateway closes."""
        async with asyncio.timeout(seconds):
            while not self.ended:
                try:
                    await self._more()
                except EOFError:
                    return

    async def closed(self, seconds: float = 30.0) -> bool:
        """Whether the gateway closes the connection, by FIN or by reset, without another response."""
        known = len(self.responses)
        try:
            await self.rest(seconds)
        except ConnectionError:
            self.ended = True
        return self.ended and len(self.responses) == known

    def leave(self) -> None:
        """Close at once."""
        self.writer.transport.abort()

    async def _more(self) -> None:
        data = await self.reader.read(65536)
        if not data:
            self.ended = True
            raise EOFError(f"after {len(self.responses)} responses")
        self._parser.feed_data(data)


@asynccontextmanager
async def raw_client(port: int, *, receive_buffer: int = 0) -> AsyncIterator[RawClient]:
    """Open a connection for the block; ``receive_buffer`` bounds what the kernel takes for it, in bytes."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or 1 << 16)
    client = RawClient(reader, writer)
    try:
        yield client
    finally:
        writer.transport.abort()


def post(
    path: str,
    body: object,
    key: str | None,
    *headers: str,
    version: str = "1.1",
    length: int | str | None = None,
) -> bytes:
    """Return a request; ``body`` is bytes as they are or a document; ``length`` replaces the true length."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/{version}", "Host: gateway", "Content-Type: application/json"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    lines.append(f"Content-Length: {len(raw) if length is None else length}")
    return "\r\n".join([*lines, *headers, "", ""]).encode() + raw


def head(
    *lines: str, key: str, method: str = "POST", path: str = CHAT, version: str = "1.1", host: str = "Host: x"
) -> bytes:
    """Return the head of a request."""
    hosts = [host] if host else []
    return "\r\n".join(
        [f"{method} {path} HTTP/{version}", *hosts, f"Authorization: Bearer {key}", *lines, "", ""]
    ).encode("latin-1")


def changed(**members: object) -> bytes:
    """Return a good chat request with other members."""
    return json.dumps(chat_body() | members).encode()


def check_error(document: Any, headers: Any, status: int, kind: str) -> dict[str, Any]:
    """Check the shape of an error and return its ``error`` member."""
    assert headers["content-type"] == "application/json"
    error: dict[str, Any] = document["error"]
    assert error["code"] == status
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["metadata"]["error_type"] == kind
    assert document["request_id"].startswith("gen-")
    assert "Traceback" not in json.dumps(document)
    return error


def events(stream: bytes) -> list[Any]:
    """Read a well-formed event stream: JSON documents, and "[DONE]"; ValueError or AssertionError when it is not."""
    blocks = stream.decode().split("\n\n")
    assert blocks.pop() == "", "the last event is not complete"
    assert all(block.startswith("data: ") for block in blocks)
    payloads = [block.removeprefix("data: ") for block in blocks]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


def text_of(found: list[Any]) -> str:
    """Return the text that the events of a stream with one choice say."""
    parts: list[str] = []
    for document in found:
        if document != "[DONE]" and "error" not in document:
            choices = document["choices"]
            parts += [each.get("text") or each.get("delta", {}).get("content") or "" for each in choices]
    return "".join(parts)
