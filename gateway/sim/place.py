"""A port that stays a simulated backend's own while nobody listens on it.

A port without a listener refuses connections, as that of a process that died does, but may be taken by any other
process meanwhile. On Linux a second socket is bound to it that never listens: the kernel refuses connections all the
same, and gives the port to nobody else. Elsewhere two sockets cannot be bound to one port, and it is free meanwhile.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

BACKLOG: Final = 2_048
"""Connections that wait to be accepted."""


class Place:
    """A host and a port; 0 takes any port that is free. Raises OSError when the port is taken.

    Attributes:
        port: the one it has.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._holder = None if sys.platform != "linux" else _bound(host, port)
        self.port = port if self._holder is None else self._holder.getsockname()[1]

    def listen(self) -> socket.socket:
        """Return a socket that listens on it; raises OSError when the port is taken."""
        self._share(shared=True)
        sock = _bound(self._host, self.port)
        try:
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        self.port = sock.getsockname()[1]
        # Holds from the first socket that listens on: until then the kernel remembers that sharing was agreed to.
        self._share(shared=False)
        return sock

    def release(self) -> None:
        """Give the port up."""
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    def _share(self, *, shared: bool) -> None:
        """Say whether a socket that asks for it may be bound beside the holder."""
        if self._holder is not None:
            self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, shared)


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to ``host`` and ``port``, also while old connections of the port fade away."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock
