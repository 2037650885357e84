"""Responses that are made in the background, and the keeper's methods for them.

A run belongs to the process that makes its answer. Its response is kept from the moment on which the caller is told its
id, as ``queued`` or ``in_progress``; ``FINISH`` puts the finished one in its place. Events of a stream are kept as they
come, for a while, so that a caller who lost it can go on reading behind any event. A run whose process has died is
``failed``: whoever looks at it finds that out, as does the keeper by itself.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.types.method import method
from gateway.types.responses import NewTurn

EVENTS_S: Final = 3600.0
"""Seconds for which the events of a stream are kept."""
RUNNING: Final = frozenset({"queued", "in_progress"})
"""States of a response that is being made."""
UNFINISHED: Final = RUNNING | {"failed", "cancelled"}
"""States of a response that nothing can go on from."""

Piece = tuple[int, bytes]
"""An event of a stream: its number and its bytes."""


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """What a process says of one of its runs.

    Attributes:
        request_id: the run.
        key_id: public id of its inference key.
        begun: whether it has left the queue.
        pieces: events that came since it was last spoken of, in their order.
    """

    request_id: bytes
    key_id: str
    begun: bool
    pieces: tuple[Piece, ...] = ()


class Reading(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a stream.

    Attributes:
        pieces: events, in their order; at most ``MOST_READ`` bytes and one.
        running: whether more may come. What is read while it is False, and is empty, is the end.
        streamed: whether there are events at all: the caller wanted a stream, and they are still kept.
    """

    pieces: tuple[Piece, ...]
    running: bool
    streamed: bool


MOST_READ: Final = 4 * 2**20
"""Bytes of events that are read at once."""

BEGIN: Final = method("background.begin", tuple[NewTurn, str, bool, bool], bool)
"""Keep the response of a new run: the turn as it is now, the journal of its process, whether it streams, whether it has
left the queue. False when responses are not kept (any more)."""
PROGRESS: Final = method("background.progress", tuple[list[Progress]], list[bytes])
"""Keep events of runs; returns those of the runs that are to end: they were cancelled, or deleted."""
FINISH: Final = method("background.finish", tuple[NewTurn, list[Piece]], bool)
"""Keep the finished response of a run and its last events; False when it was deleted meanwhile."""
CANCEL: Final = method("background.cancel", tuple[str, bytes], bool)
"""Have the run of an inference key end; False when nothing runs."""
READ: Final = method("background.read", tuple[str, bytes, int], Reading | None)
"""The events of a run of an inference key behind a number; None when the response is not there."""
OFFICE: Final = (BEGIN, PROGRESS, FINISH, CANCEL, READ)
