"""The lane: an event loop in a thread of its own, for a library that makes connections by itself.

Every name that is resolved and every address that is connected to on the lane goes through the egress guard of the
backend whose request asks for it, so that what was checked is what is connected to, also when a name changes its mind
in between. Outside of a request nothing is connected to at all. What is forbidden is ``OSError`` for the library, as a
host that cannot be reached.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

Judge = Callable[[str, int], Awaitable[tuple[tuple[str, int], ...]]]
"""Returns the addresses of a host that may be connected to; raises when there is none. Awaited on the lane."""

JUDGE: Final[ContextVar[Judge | None]] = ContextVar("judge", default=None)
"""Who judges the connections of what runs now."""
_lanes: Final[list[asyncio.AbstractEventLoop]] = []


class GuardedLoop(asyncio.SelectorEventLoop):
    """An event loop that looks up no name and connects to no address but by leave of ``JUDGE``."""

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the name that callers use
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Return the addresses of ``host`` that passed. Raises ``OSError`` when none did."""
        name = host.decode("ascii") if isinstance(host, bytes) else host or ""
        found: list[Any] = []
        for address, number in await _judged(name, int(port or 0)):
            try:
                # A literal address: nothing is asked of the name service.
                found += socket.getaddrinfo(address, number, family, type, proto, flags | socket.AI_NUMERICHOST)
            except socket.gaierror:
                continue  # of another family than the one wanted
        if not found:
            raise OSError(errno.EHOSTUNREACH, "no address of the host may be connected to")
        return found

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect to an address that passes. Raises ``OSError`` when it does not."""
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            await _judged(str(address[0]), int(address[1]))
        await super().sock_connect(sock, address)


async def _judged(host: str, port: int) -> tuple[tuple[str, int], ...]:
    judge = JUDGE.get()
    if judge is None:
        raise OSError(errno.EACCES, "nothing is connected to outside of a request")
    try:
        return await judge(host, port)
    except OSError:
        raise
    except Exception as error:
        # Whatever the guard says is what the library knows as a host that cannot be reached.
        raise OSError(errno.EACCES, "the host may not be connected to") from error


def lane() -> asyncio.AbstractEventLoop:
    """Return the lane, started now if it was not yet.

    The library imports, counts and signs with its loop standing still, which the worker's other requests must not
    notice; hence the thread.
    """
    if not _lanes:
        _lanes.append(GuardedLoop())
        threading.Thread(target=_lanes[0].run_forever, name="lane", daemon=True).start()
    return _lanes[0]
