"""The part of the journal that is not in the ledger yet: which segments there are, who owns them, what is new in them.

Reads only; what was read counts as shipped once the shipper says so. A segment that cannot be read is complained of
once and tried again in every round, without holding up the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from gateway.metering.checkpoints import Checkpoint
from gateway.metering.entry import Entries
from gateway.metering.record import End, Price, Settled
from gateway.metering.segments import CHUNK, QUARANTINE, SegmentFile, SegmentParser, list_segments
from gateway.telemetry import logs

_SLICE: Final = 300
"""Ends of attempts in one step of the event loop, about a millisecond; two such slices are a chunk of a segment."""

log: Final = logs.logger(__name__)


@dataclass(slots=True)
class Waiting:
    """What is known of one segment.

    Attributes:
        position: the byte up to which it is shipped.
        damaged: bytes stepped over, and records that are older than the ledger.
        finished: nothing of it is missing from the ledger, so it may go.
        size: length when it was last looked at; final once it is not owned.
        owned: whether its writer still holds it.
        sealed: whether its writer ended it in order.
        drained: its writer is gone from it and every record of it is shipped; attempts without an end may be left.
        since: monotonic time since which something in it waits, or None.
        complained: whether the log says that it could not be read.
        unread: whether it could not be read the last time.
    """

    file: SegmentFile
    position: int = 0
    damaged: int = 0
    finished: bool = False
    size: int = 0
    owned: bool = True
    sealed: bool = False
    drained: bool = False
    since: float | None = None
    complained: bool = False
    unread: bool = False

    def checkpoint(self) -> Checkpoint:
        """Return where it is."""
        return Checkpoint(self.file.name, self.position, self.damaged, self.finished)


@dataclass(frozen=True, slots=True)
class Move:
    """How far a segment gets with a batch."""

    segment: Waiting
    position: int
    damaged: int
    sealed: bool
    drained: bool

    def apply(self) -> Move:
        """Take note that the batch is in the ledger, or is on its way; return the move back."""
        segment = self.segment
        back = Move(segment, segment.position, segment.damaged, segment.sealed, segment.drained)
        segment.position, segment.damaged = self.position, self.damaged
        segment.sealed, segment.drained = self.sealed, self.drained
        return back


@dataclass(slots=True)
class Batch:
    """Records to ship together.

    Attributes:
        entries: ends of attempts, as rows.
        records: how many there are.
        prices: rates by id that the ledger may not know yet.
        moves: how far each segment gets with them.
        first_day: the first day that the ledger still has.
        expired: ends of attempts of earlier days, which are left out.
    """

    entries: list[Entries] = field(default_factory=list)
    records: int = 0
    prices: dict[int, Price] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    first_day: int = 0
    expired: int = 0

    def add(self, ends: Sequence[End], others: Iterable[Settled], known_prices: Container[int]) -> None:
        """Take records in, ends of attempts apart from all others."""
        for record in others:
            if type(record) is Price and record.price_id not in known_prices:
                self.prices[record.price_id] = record
        for some in Entries.of(ends):
            if some.hour // 24 < self.first_day:
                self.expired += len(some.rows)
                continue
            self.entries.append(some)
            self.records += len(some.rows)


class Backlog:
    """The segments in ``directory`` and how far each of them is shipped.

    Attributes:
        segments: by file name, oldest first.
        lag_bytes: bytes that wait, as of the last look.
        quarantined: segments put aside.
    """

    def __init__(self, directory: Path) -> None:
        self.segments: dict[str, Waiting] = {}
        self.lag_bytes = 0
        self.quarantined = 0
        self._directory = directory

    @property
    def oldest_s(self) -> float:
        """For how many seconds the longest waiting part has been seen waiting."""
        since = [segment.since for segment in self.segments.values() if segment.since is not None]
        return time.monotonic() - min(since) if since else 0.0

    @property
    def unreadable(self) -> bool:
        """Whether there is a segment that cannot be read now."""
        return any(segment.unread and not segment.drained for segment in self.segments.values())

    def look(self) -> None:
        """See which segments there are, who owns them, and how long they are. Raises ``OSError``."""
        known = self.segments
        self.segments = {file.name: known.get(file.name) or Waiting(file) for file in list_segments(self._directory)}
        for segment in self.segments.values():
            if not segment.drained:
                with suppress(FileNotFoundError):
                    # In this order: once a segment is not owned its length is final.
                    segment.owned = segment.file.owned()
                    segment.size = segment.file.size()
        self.measure()

    def restore(self, saved: Mapping[str, Checkpoint]) -> None:
        """Set every segment to its checkpoint, those without one to their beginning."""
        for name, segment in self.segments.items():
            checkpoint = saved.get(name, Checkpoint(name, 0))
            segment.position, segment.damaged = checkpoint.position, checkpoint.damaged
            # A copy of the folder may have ended a segment that is still written to here, or has more here.
            whole = not segment.owned and segment.size <= segment.position
            segment.finished = segment.drained = checkpoint.finished and whole
        self.measure()

    def measure(self) -> None:
        """Bring ``lag_bytes`` and ``oldest_s`` up to date."""
        now = time.monotonic()
        self.lag_bytes = 0
        for segment in self.segments.values():
            behind = 0 if segment.drained else max(0, segment.size - segment.position)
            self.lag_bytes += behind
            if behind == 0:
                segment.since = None
            elif segment.since is None:
                segment.since = now

    async def collect(self, most: int, known_prices: Container[int], first_day: int = 0) -> Batch:
        """Read the next records, at most ``most`` ends, giving way to the event loop between slices.

        Ends of days before ``first_day`` are left out, and their segment is put aside in the end, as one in which
        something could not be read.
        """
        batch = Batch(first_day=first_day)
        for segment in self.segments.values():
            if batch.records >= most:
                break
            if segment.drained or (segment.owned and segment.size <= segment.position):
                continue
            segment.unread = False
            try:
                await self._read(segment, batch, most, known_prices)
            except OSError as error:
                _complain(segment, str(error))
        return batch

    async def _read(self, segment: Waiting, batch: Batch, most: int, known_prices: Container[int]) -> None:
        """Read what is new in ``segment`` into ``batch``, until the batch is full. Raises ``OSError``."""
        parser = SegmentParser(segment.position, segment.damaged)
        parser.sealed = segment.sealed
        expired = batch.expired
        at_end = False
        while not at_end and batch.records < most and not parser.foreign:
            data = segment.file.read(parser.position, CHUNK)
            more = bool(data) and parser.position + len(data) < segment.size
            offset, wanted, got = 0, 1, 1
            while got == wanted and batch.records < most:
                wanted = min(_SLICE, most - batch.records)
                ends, others, offset = parser.take(data, offset, wanted)
                await asyncio.sleep(0)
                batch.add(ends, others, known_prices)
                got = len(ends)
                await asyncio.sleep(0)
            if batch.records >= most:
                break
            # The rest is a part of a frame, or damage: that is gone through step by step.
            rest = parser.settled(data, offset, more=more, final=not segment.owned)
            while records := list(islice(rest, min(_SLICE, most - batch.records))):
                batch.add([record for record in records if type(record) is End], records, known_prices)
                await asyncio.sleep(0)
            at_end = not more and batch.records < most
        if parser.foreign:
            _complain(segment, "it was written by a newer version")
            return
        if batch.expired > expired:
            parser.damaged += batch.expired - expired
            log.error("records_older_than_the_ledger", segment=segment.file.name, records=batch.expired - expired)
        drained = at_end and not segment.owned
        if drained or parser.position != segment.position:
            batch.moves.append(Move(segment, parser.position, parser.damaged, parser.sealed, drained))

    def remains(self, writer: str) -> Sequence[SegmentFile] | None:
        """Return all segments of ``writer`` when it is dead, none when it lives on, or None when unsure.

        A living writer makes its next segment before it gives the last one up, so it is dead when none of its
        segments is owned and none came up while that was looked at. Raises ``OSError``.
        """
        files = [file for file in list_segments(self._directory) if file.writer == writer]
        if any(file.owned() for file in files):
            return ()
        if files != [file for file in list_segments(self._directory) if file.writer == writer]:
            return None
        known = [self.segments.get(file.name) for file in files]
        return files if all(segment is not None and segment.drained for segment in known) else None

    def remove(self, finished: Iterable[Waiting]) -> None:
        """Delete segments that are in the ledger as a whole; put those aside that were unreadable in part.

        Raises ``OSError``.
        """
        for segment in list(finished):
            path = segment.file.path
            if segment.damaged:
                aside = self._directory / QUARANTINE
                aside.mkdir(mode=0o700, exist_ok=True)
                path.rename(aside / path.name)
                self.quarantined += 1
                log.error("segment_damaged", segment=path.name, unreadable_bytes=segment.damaged)
            else:
                path.unlink(missing_ok=True)
            del self.segments[path.name]


def _complain(segment: Waiting, why: str) -> None:
    """Log once that a segment cannot be shipped now."""
    segment.unread = True
    if not segment.complained:
        segment.complained = True
        log.error("segment_unreadable", segment=segment.file.name, error=why)
