"""A load that leaves a gateway time to rest: JSON answers at a fixed pace, far below what it can do.

Between two requests other work takes the processor's caches, so each request finds them cold. Load without a pause
hides that, and most gateways are at rest most of the time. An answer that is refused, cut or too late raises
CalmError. All times are seconds.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final, cast

from bench.load import Target
from bench.streams import request_for

_CONNECTIONS: Final = 8
_PROMPTS: Final = 64
"""Different prompts in rotation."""
_SUCCESS: Final = (b"HTTP/1.1 200", b"HTTP/1.0 200")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]{1,9})\r\n", re.IGNORECASE)
_LAST_CHUNK: Final = b"0\r\n\r\n"


class CalmError(Exception):
    """A load that cannot count: an answer failed or did not come."""


class CalmClient(asyncio.Protocol):
    """One connection that asks again and again, never twice at once."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._answer = b""
        self._answered: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        # A cast, not an assertion: uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    async def ask(self, request: bytes) -> None:
        """Sends a request and waits for its whole answer. Raises CalmError."""
        if self.transport is None:
            raise CalmError("the connection is closed")
        self._answer = b""
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self._answered

    def data_received(self, data: bytes) -> None:
        """Ends the request once its answer is whole."""
        self._answer += data
        if not self._answer.startswith(_SUCCESS):
            self._end(CalmError(f"not a success: {self._answer[:300]!r}"))
        elif is_whole(self._answer):
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that did not come fails its request."""
        self.transport = None
        self._end(CalmError(f"connection ended: {exc}"))

    def _end(self, failure: CalmError | None) -> None:
        answered = self._answered
        if answered is None or answered.done():
            return
        if failure is None:
            answered.set_result(None)
        else:
            answered.set_exception(failure)


def is_whole(answer: bytes) -> bool:
    """Returns whether the bytes are one whole answer, by its length or its last chunk."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    length = _LENGTH.search(head + b"\r\n")
    return len(body) >= int(length[1]) if length else body.endswith(_LAST_CHUNK)


async def ask_calmly(target: Target, *, per_s: float, seconds: float, limit: float) -> int:
    """Asks for `per_s` JSON answers a second, evenly, for `seconds`; returns how many came.

    A target that is slower than its turn is asked later, never twice at once on a connection. Raises CalmError when
    one fails, TimeoutError when all is not done after `limit` seconds.
    """
    loop = asyncio.get_running_loop()
    requests = [request_for(target, "json", serial) for serial in range(_PROMPTS)]
    count = round(per_s * seconds)
    start = loop.time()

    async def asker(number: int) -> None:
        _, client = await loop.create_connection(CalmClient, target.host, target.port)
        try:
            for turn in range(number, count, _CONNECTIONS):
                await asyncio.sleep(max(0.0, start + turn / per_s - loop.time()))
                await client.ask(requests[turn % _PROMPTS])
        finally:
            if client.transport is not None:
                client.transport.close()

    try:
        async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
            for number in range(_CONNECTIONS):
                group.create_task(asker(number))
    except ExceptionGroup as failures:
        raise CalmError(repr(failures.exceptions[0])) from failures
    return count
