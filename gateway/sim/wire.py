"""HTTP/1.1 as bytes: requests as the parser hands them over, answers, and the heads in front of bodies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


@dataclass(slots=True)
class Request:
    """A request whose body has arrived.

    Attributes:
        method: upper case.
        path: without the query.
        query: what stands behind ``?``, as it came.
        headers: names and values as they came, in order.
        body: all of it.
        keep_alive: whether the connection may serve another request.
        chunked: whether the client understands chunked bodies (HTTP/1.1).
    """

    method: str
    path: str
    query: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    keep_alive: bool
    chunked: bool

    def header(self, name: bytes) -> str | None:
        """Return the first header with the lower-case ``name``, or None."""
        for key, value in self.headers:
            if len(key) == len(name) and key.lower() == name:
                return value.decode("latin-1")
        return None


@dataclass(slots=True)
class Reply:
    """A whole answer."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def status_line(status: int) -> bytes:
    """Return the first line of an answer; a status HTTP has no phrase for gets an empty one."""
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode()


def head(
    status: int,
    content_type: str,
    headers: tuple[tuple[str, str], ...],
    *,
    server: str,
    length: int | None,
    chunked: bool,
    keep_alive: bool,
) -> bytes:
    """Return status line and headers up to the blank line.

    ``length`` is the Content-Length, None for a body of unknown length: chunked, or up to the end of the connection.
    """
    first = _fixed(status, content_type, server, length is None and chunked, keep_alive)
    if headers:
        first += "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("latin-1")
    return first + b"\r\n" if length is None else b"%bcontent-length: %d\r\n\r\n" % (first, length)


@lru_cache(maxsize=256)
def _fixed(status: int, content_type: str, server: str, chunked: bool, keep_alive: bool) -> bytes:
    lines = [f"server: {server}\r\n"]
    if content_type:
        lines.append(f"content-type: {content_type}\r\n")
    if chunked:
        lines.append("transfer-encoding: chunked\r\n")
    if not keep_alive:
        lines.append("connection: close\r\n")
    return status_line(status) + "".join(lines).encode("latin-1")


def http_chunk(data: bytes) -> bytes:
    """Return ``data`` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
