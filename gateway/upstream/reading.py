"""How an attempt is read: the connection it comes from, and the time limit that stands still while nobody reads."""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.upstream.fast_path import FastPath
    from gateway.upstream.wire import Connection


class Reading:
    """Reads from a backend as long as the caller keeps up and what came is wanted.

    Args:
        loop: the event loop.
        first_byte: seconds to the first event or the whole answer.
        idle: seconds between two reads of an answer.

    Attributes:
        deadline: monotonic seconds at which the current limit strikes; infinite while nothing is read.
    """

    __slots__ = ("_begun", "_connection", "_fast", "_held", "_idle", "_left", "_paused", "deadline")

    def __init__(self, loop: asyncio.AbstractEventLoop, first_byte: float, idle: float) -> None:
        self._begun: asyncio.Future[None] = loop.create_future()
        self._connection: Connection | None = None
        self._fast: FastPath | None = None
        self._paused = False  # the caller does not keep up
        self._held = False  # more came than may wait for the sink
        self._idle = idle
        self._left = first_byte  # seconds of the limit that stood still when reading was stopped
        self.deadline = monotonic() + first_byte

    def begun(self) -> asyncio.Future[None]:
        """Return what is done once the attempt has begun or failed."""
        return self._begun

    @property
    def over(self) -> bool:
        """Whether no more will come."""
        return self._connection is None

    def pause(self) -> None:
        """Stop reading from the backend; while it is not read it cannot be idle."""
        if self._fast is not None:
            self._fast.tell()
        self._paused = True
        self._stop()

    def resume(self) -> None:
        """Read again, unless what came still waits for the sink; a limit that stood still goes on."""
        self._paused = False
        if self._fast is not None:
            self._fast.leave()  # the caller may have left: what is read on then is not written any more
        if self._connection is not None and not self._held:
            if self.deadline == math.inf:
                self.deadline = monotonic() + (self._idle if self._begun.done() else self._left)
            self._connection.resume()

    def hold(self) -> None:
        """More came than may wait for the sink: stop reading until ``release``."""
        self._held = True
        self._stop()

    def release(self) -> None:
        """What waited for the sink is there: read again, unless the caller does not keep up."""
        if self._held:
            self._held = False
            if not self._paused:
                self.resume()

    def _stop(self) -> None:
        if self._connection is not None:
            if self.deadline < math.inf:
                self._left = self.deadline - monotonic()
                self.deadline = math.inf
            self._connection.pause()
