"""One request and its response on a server road, without knowing a dialect.

Two roads implement it: the native one (``gateway.edge.native``) and the plain ASGI adapter (``gateway.edge.asgi``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.types.ids import RequestId
from gateway.types.reply import Flow


class Exchange(Protocol):
    """A request that is answered once: with ``respond``, or with ``open``, any number of ``write``, ``close``.

    After the caller has gone, all of these do nothing.

    Attributes:
        request_id: ours.
        path: without the query.
        headers: lower-case names to values; the last of a repeated header.
        body: the whole body once it has come.
        gone: whether the caller has left.
        arrived: monotonic seconds at which the request was whole.
        begun: whether ``open`` has been called.
    """

    request_id: RequestId
    path: bytes
    headers: Mapping[bytes, bytes]
    body: bytes
    arrived: float

    @property
    def gone(self) -> bool:
        """See the attributes."""

    @property
    def begun(self) -> bool:
        """See the attributes."""

    def steer(self, flow: Flow) -> None:
        """Tell ``flow`` from now on when the caller leaves, stops reading, or reads again."""

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Send a whole response. ``headers`` are lines ended by CRLF, without length and connection."""

    def open(self, headers: bytes) -> None:
        """Start a streamed 200 response; its head leaves with the first ``write``."""

    def write(self, data: bytes) -> None:
        """Send a piece of a streamed response now."""

    def framed(self) -> Callable[[bytes], None] | None:
        """Return what sends pieces of a chunked body as they are, sizes and all, behind what ``write`` has sent.

        Not to be called any more once the caller has left or does not read. None where pieces cannot be sent so.
        """

    def close(self, data: bytes) -> None:
        """Send the last piece (may be empty) and end the streamed response."""


class Patient(Exchange, Protocol):
    """An exchange that can tell its caller to wait."""

    @property
    def silent(self) -> bool:
        """Whether the caller has had nothing of the response yet but comments."""

    def comment(self, data: bytes) -> None:
        """Send ``data``, whole lines of a comment, while the caller waits for the first event; after ``open``."""
