"""Named moments at which a process of the gateway kills itself.

They exist only here: ``tests.kill.launch`` wraps functions of the gateway from outside before it runs the command line.
The gateway has no hook, no flag and no variable for them, so they cost nothing where they are not installed.

A point is armed by a file of its name; the process that comes by first takes the file away and dies of SIGKILL.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

IN_WORKER: Final = (
    "before-open",
    "after-open",
    "mid-stream",
    "before-close",
    "after-close",
    "before-sync",
    "after-sync",
    "before-last-bytes",
    "after-last-bytes",
    "torn-record",
    "new-segment",
)
IN_SYNC: Final = frozenset({"before-sync", "after-sync"})
IN_KEEPER: Final = ("before-commit", "between-commit-and-delete", "after-delete")
SHOWN_DELTAS: Final = 3
"""Tokens that a caller has seen at least when its worker is killed mid-stream."""


class Points:
    """The armed points of a run, as files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def arm(self, name: str) -> None:
        """Kill the next process that comes by."""
        (self.folder / name).touch()

    def disarm(self, name: str) -> bool:
        """Return whether the point was still armed; it is not any more."""
        try:
            (self.folder / name).unlink()
        except FileNotFoundError:
            return False
        return True

    def pass_by(self, name: str) -> None:
        """Die here when the point is armed."""
        if self.disarm(name):
            os.kill(os.getpid(), signal.SIGKILL)


def install(points: Points, archive: Path) -> None:
    """Wrap the gateway's functions; finished segments are copied to ``archive`` before they are deleted."""
    from gateway.edge.openai_reply import OpenAIReply
    from gateway.metering import sync
    from gateway.metering.kernel_sync import KernelSync
    from gateway.metering.meter import Meter
    from gateway.metering.segments import SegmentWriter

    around(Meter, "opened", lambda *_: points.pass_by("before-open"), lambda *_: points.pass_by("after-open"))
    around(Meter, "settle", lambda *_: points.pass_by("before-close"), lambda *_: points.pass_by("after-close"))
    for sent in ("send", "say"):
        around(Meter, sent, _nothing, lambda meter, *_: _in_the_middle(points, meter))
    for end in ("finish", "answer"):
        around(
            OpenAIReply,
            end,
            lambda *_: points.pass_by("before-last-bytes"),
            lambda *_: points.pass_by("after-last-bytes"),
        )
    around(sync, "_perform", lambda *_: points.pass_by("before-sync"), lambda *_: points.pass_by("after-sync"))
    around(KernelSync, "submit", lambda *_: points.pass_by("before-sync"), _nothing)
    around(KernelSync, "_complete", lambda *_: points.pass_by("after-sync"), _nothing)
    around(SegmentWriter, "create", _nothing, lambda *_: points.pass_by("new-segment"))
    around(SegmentWriter, "_write", lambda segment, data: _tear(points, segment, data), _nothing)
    _in_keeper(points, archive)


def _in_keeper(points: Points, archive: Path) -> None:
    from gateway.metering import checkpoints
    from gateway.metering.backlog import Backlog, Waiting

    save: Callable[..., Awaitable[None]] = checkpoints.save
    remove = Backlog.remove

    @functools.wraps(save)
    async def saved(*arguments: Any) -> None:
        await save(*arguments)
        points.pass_by("before-commit")

    @functools.wraps(remove)
    def removed(backlog: Backlog, finished: Iterable[Waiting]) -> None:
        going = list(finished)
        if going:
            points.pass_by("between-commit-and-delete")
            for segment in going:
                shutil.copyfile(segment.file.path, archive / segment.file.name)
        remove(backlog, going)
        if going:
            points.pass_by("after-delete")

    vars(checkpoints)["save"] = saved
    setattr(Backlog, "remove", removed)  # noqa: B010 - a plain assignment would not be typed


def around(owner: Any, name: str, before: Callable[..., None], after: Callable[..., None]) -> None:
    """Call ``before`` and ``after`` with the arguments of ``owner``'s function ``name``, which must be there."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        before(*arguments)
        result = original(*arguments, **named)
        after(*arguments)
        return result

    # A method that is bound to its class already must not be bound to it once more.
    setattr(owner, name, staticmethod(wrapped) if hasattr(original, "__self__") else wrapped)


def _nothing(*_: object) -> None:
    pass


def _in_the_middle(points: Points, meter: Any) -> None:
    if meter.tap.deltas >= SHOWN_DELTAS and not meter.tap.finished:
        points.pass_by("mid-stream")


def _tear(points: Points, segment: Any, data: bytes) -> None:
    """Write a part of a record and die."""
    if segment.size > len(data) and points.disarm("torn-record"):
        os.write(segment.fd, data[: random.randrange(1, len(data))])
        os.kill(os.getpid(), signal.SIGKILL)
