"""The segments of one journal, one after the other: when the next one begins, and with what.

``OSError`` is left to the journal, but where the segment at hand is still good and may go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.metering.carry import Carry
from gateway.metering.commit import GroupCommit
from gateway.metering.record import Seal, frame
from gateway.metering.reserve import Reserve, Space
from gateway.metering.segments import SegmentWriter, new_writer_id
from gateway.telemetry import logs

_SOON_S: Final = 0.01
"""Seconds after which what a segment has kept is written."""

log: Final = logs.logger(__name__)


class Series:
    """Makes the segments of one journal and ends them by their length and age.

    Args:
        folder: where they are.
        loop: of the journal.
        carry: what each begins with.
        sync: what forces them to disk; it holds the one being written.
        segment_bytes: length at which a segment is ended.
        segment_seconds: age at which a segment that was used is ended.

    Attributes:
        writer: the id that all segments share.
        space: what is set aside for a full disk.
        limit: length at which the segment being written is ended.
        begun_bytes: bytes written at the beginning of segments.
        closing: whether the journal ends, so that no segment is ended because of its age any more.
    """

    __slots__ = (
        "_bytes",
        "_carry",
        "_folder",
        "_loop",
        "_seconds",
        "_stamp",
        "_sync",
        "_timer",
        "begun_bytes",
        "closing",
        "limit",
        "space",
        "writer",
    )

    def __init__(
        self,
        folder: Path,
        loop: asyncio.AbstractEventLoop,
        carry: Carry,
        sync: GroupCommit,
        *,
        segment_bytes: int,
        segment_seconds: float,
    ) -> None:
        self.writer = new_writer_id()
        self.space = Space(folder, self.writer)
        self.limit = segment_bytes
        self.begun_bytes = 0
        self.closing = False
        self._folder = folder
        self._loop = loop
        self._carry = carry
        self._sync = sync
        self._bytes = segment_bytes
        self._seconds = segment_seconds
        self._stamp = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, repeated: Sequence[bytes] = (), reserve: Reserve | None = None) -> SegmentWriter:
        """Make the next segment, if need be of the ``reserve``, and write to it from now on. Raises ``OSError``.

        It begins with all rates, the attempts still open, and the frames ``repeated``.
        """
        self._stamp = max(self._stamp + 1, time.time_ns() // 1000)
        first = [*self._carry.head(), *repeated]
        segment = SegmentWriter.create(self._folder, self.writer, self._stamp, first, reserve)
        self._carry.carried()
        self._sync.segment = segment
        self._sync.unlisted = True
        self.begun_bytes += segment.size
        self.limit = reserve.size if reserve is not None else segment.size + self._bytes
        self.rest()
        if not self.closing:
            self._timer = self._loop.call_later(self._seconds, self._expire, segment.size)
        return segment

    def rotate(self, segment: SegmentWriter) -> SegmentWriter:
        """End ``segment`` and return the next one, or the same when no other can be made now.

        Raises ``OSError`` when what ``segment`` has kept cannot be written.
        """
        segment.flush()
        try:
            following = self.begin()
        except OSError as error:
            # The segment at hand still works; it may grow until another can be made.
            log.warning("journal_rotation_failed", error=str(error))
            self.limit = segment.size + self._bytes // 16
            return segment
        try:
            segment.write(frame(Seal(following.path.name)))
        except OSError as error:
            log.warning("journal_seal_failed", segment=segment.path.name, error=str(error))
        if self._sync.synced:
            self._sync.retiring.append(segment)
            self._sync.schedule(others=bool(self._carry.open))
        else:
            segment.close()
        return following

    def extend(self, segment: SegmentWriter) -> None:
        """Let ``segment`` grow as long as any, now that the disk has room again."""
        self.limit = segment.size + self._bytes

    def rest(self) -> None:
        """End no segment because of its age until the next one begins."""
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self, begun: int) -> None:
        """End the segment because of its age, when anything was written since it was ``begun`` bytes long."""
        segment = self._sync.segment
        if segment is None:
            return
        if segment.kept:
            self._timer = self._loop.call_later(_SOON_S, self._expire, begun)
        elif segment.size == begun or self.space.full or self.rotate(segment) is segment:
            self._timer = self._loop.call_later(self._seconds, self._expire, begun)
