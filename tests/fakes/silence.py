"""An address at which nobody answers: neither accepted nor refused, as of a machine that has lost its power."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

HERE = "127.0.0.1"
SILENT = "127.0.0.2"


@contextmanager
def silent_beside(port: int) -> Iterator[None]:
    """Let nobody answer at ``port`` of ``SILENT`` inside the block: the queue of a listener there is full."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((SILENT, port))
        listener.listen(0)
        queued = [socket.socket() for _ in range(4)]
        try:
            for each in queued:
                each.setblocking(False)
                each.connect_ex((SILENT, port))
            yield
        finally:
            for each in queued:
                each.close()
