"""A small S3-compatible store on a free port: objects and multipart uploads, signatures looked at but not computed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit


@dataclass(slots=True)
class FakeS3:
    """The store.

    Attributes:
        url: its root.
        objects: bytes by path, ``/bucket/name``.
        puts: paths in the order in which they were written.
        refusing: status to answer instead, 0 for none.
        unsigned: requests without an AWS signature of the expected key.
    """

    url: str = ""
    key_id: str = "AKIATEST"
    objects: dict[str, bytes] = field(default_factory=dict)
    puts: list[str] = field(default_factory=list)
    refusing: int = 0
    unsigned: int = 0
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Return status and body."""
        signed = headers.get("authorization", "")
        if not signed.startswith(f"AWS4-HMAC-SHA256 Credential={self.key_id}/") or "x-amz-date" not in headers:
            self.unsigned += 1
            return 403, b"<Error><Code>AccessDenied</Code><Message>no signature</Message></Error>"
        if self.refusing:
            return self.refusing, b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
        parts = urlsplit(target)
        query = parse_qs(parts.query, keep_blank_values=True)
        if method == "POST" and "uploads" in query:
            self.uploads[parts.path] = {}
            return 200, b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
        if method == "PUT" and "partNumber" in query:
            self.uploads[parts.path][int(query["partNumber"][0])] = body
            return 200, b""
        if method == "POST" and "uploadId" in query:
            found = self.uploads.pop(parts.path)
            self._put(parts.path, b"".join(found[number] for number in sorted(found)))
            return 200, b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
        if method == "PUT":
            self._put(parts.path, body)
            return 200, b""
        return 405, b""

    def _put(self, path: str, body: bytes) -> None:
        self.objects[path] = body
        self.puts.append(path)


async def _serve(store: FakeS3, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            status, said = store.answer(method, target, headers, body)
            writer.write(b'HTTP/1.1 %d X\r\nETag: "e"\r\nContent-Length: %d\r\n\r\n' % (status, len(said)) + said)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def fake_s3() -> AsyncIterator[FakeS3]:
    """Run a store inside the block."""
    store = FakeS3()
    server = await asyncio.start_server(lambda reader, writer: _serve(store, reader, writer), "127.0.0.1", 0)
    store.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield store
    finally:
        server.close()
