"""Journal segments on disk: making, listing, owning and reading them.

A segment belongs to the process that holds an exclusive lock on it; the lock goes with the process, however it ends.
A segment gets its name only once it is locked and begun, so every listed segment is either owned or complete. All
segments of one journal share a writer id, so that a reader can tell a writer that went on in another segment from
one that died.

Errors of the file system are left as ``OSError``: the writer and the reader answer them differently.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import google_crc32c
import msgspec

from gateway.metering.record import (
    FORMAT_VERSION,
    HEADER,
    MAX_PAYLOAD,
    End,
    Head,
    Price,
    Record,
    Seal,
    Settled,
    decode,
    decode_settled,
    frame,
    frames,
)
from gateway.metering.reserve import Reserve, own

T = TypeVar("T", Record, Settled)

SUFFIX: Final = ".weirj"
QUARANTINE: Final = "quarantine"
LONGEST_FRAME: Final = HEADER.size + MAX_PAYLOAD
CHUNK: Final = 256 * 1024
"""Bytes to read at once; more than the longest frame."""
_SETTLED_S: Final = 60.0
_TORN_ZEROS: Final = 32
"""Zeros that no frame ends with: they stand for bytes that never reached the disk."""
_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{12}Z-([0-9]+-[0-9a-f]{16})\.weirj")
_FRAME_START: Final = re.compile(rb"(?s)(?=..[\x00\x01]\x00.{4}(?:[\x90-\x9f]|\xdc..)\xa1[hspogc])")


_LONG_ARRAY: Final = 0xDC
"""First byte of records of more than 15 fields: ends of attempts."""
_TAG: Final = 0xA1
"""Second byte of all others: a text of one character, the tag."""
_UNDER_WAY: Final = frozenset(b"og")
"""Tags of ``Open`` and ``Progress``."""
_SHORTEST: Final = 3
"""Bytes that any record has."""
_ARRAY: Final = struct.Struct(">BI")
"""MessagePack's header of an array of any length."""
_ends_decoder: Final = msgspec.msgpack.Decoder(list[End])


def new_writer_id() -> str:
    """Return an id for a new journal of this process."""
    return f"{os.getpid()}-{os.urandom(8).hex()}"


class SegmentWriter:
    """A segment being written by this process, owned until it is closed.

    Attributes:
        path: where it is.
        fd: its descriptor, for syncing.
        size: bytes written, and those that are kept.
        kept: what is written with whatever comes next.
    """

    __slots__ = ("fd", "kept", "path", "size")

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.size = 0
        self.kept: list[bytes] = []

    @classmethod
    def create(
        cls, folder: Path, writer: str, now_us: int, first: Sequence[bytes], reserve: Reserve | None = None
    ) -> SegmentWriter:
        """Make and own a segment that begins with a ``Head`` and the frames ``first``.

        Args:
            folder: the journal's folder.
            writer: id of the journal.
            now_us: microseconds since 1970; must differ between the segments of one writer.
            first: frames to begin with.
            reserve: space to make it of; used up, whether it works or not.

        Raises:
            OSError: it could not be made; nothing is left behind that a reader would list.
        """
        stamp = datetime.fromtimestamp(now_us / 1e6, tz=UTC).strftime("%Y%m%dT%H%M%S") + f"{now_us % 10**6:06d}Z"
        path = folder / f"{stamp}-{writer}{SUFFIX}"
        if reserve is not None:
            hidden, fd = reserve.path, reserve.fd
        else:
            hidden = path.with_suffix(".new")
            fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        segment = cls(path, fd)
        try:
            if reserve is None:
                fcntl.flock(fd, fcntl.LOCK_EX)
            head = Head(FORMAT_VERSION, writer, socket.gethostname(), os.getpid(), now_us)
            segment.write(b"".join([frame(head), *first]))
            hidden.rename(path)
        except OSError:
            os.close(fd)
            hidden.unlink(missing_ok=True)
            raise
        return segment

    def keep(self, data: bytes) -> None:
        """Append ``data`` with what is written next, or by ``flush``."""
        self.kept.append(data)
        self.size += len(data)

    def write(self, data: bytes) -> None:
        """Append ``data``, behind what was kept. Raises ``OSError`` as ``flush`` does."""
        self.size += len(data)
        if self.kept:
            self.kept.append(data)
            self.flush()
        else:
            self._write(data)

    def flush(self) -> None:
        """Write what was kept. Raises ``OSError`` when not all of it was taken; the segment is then of no more use."""
        kept = self.kept
        if kept:
            self.kept = []
            self._write(kept[0] if len(kept) == 1 else b"".join(kept))

    def _write(self, data: bytes) -> None:
        written = os.write(self.fd, data)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes were written")

    def close(self) -> None:
        """Give the segment up; from now on its writer counts as gone from it."""
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A segment as found in the journal's folder.

    Attributes:
        path: where it is.
        writer: id of the journal it belongs to.
    """

    path: Path
    writer: str

    @property
    def name(self) -> str:
        """The file's name, by which its checkpoint goes."""
        return self.path.name

    def owned(self) -> bool:
        """Return whether the process that writes it is alive. Raises ``OSError`` when it cannot be opened."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def size(self) -> int:
        """Return its length in bytes. Raises ``OSError`` when it is gone."""
        return self.path.stat().st_size

    def read(self, position: int, limit: int) -> bytes:
        """Return up to ``limit`` bytes from ``position`` on. Raises ``OSError``."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            return os.pread(fd, limit, position)
        finally:
            os.close(fd)


def list_segments(folder: Path) -> list[SegmentFile]:
    """Return the segments in ``folder``, oldest first; none when there is no such folder."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - a path for each name costs more than the look itself
    except FileNotFoundError:
        return []
    return [SegmentFile(folder / name, match[1]) for name in names if (match := _NAME.fullmatch(name))]


def sweep(folder: Path) -> None:
    """Remove what a writer left that died while it made a segment; such files hold nothing acknowledged.

    Raises ``OSError``.
    """
    for path in folder.glob("*.new"):
        try:
            # Between making and locking a file its maker does not own it yet.
            if time.time() - path.stat().st_mtime <= _SETTLED_S:
                continue
        except FileNotFoundError:
            continue
        fd = own(path)
        if fd is None:
            continue
        try:
            path.unlink(missing_ok=True)  # while it is ours: who takes a reserve over looks whether it is still there
        finally:
            os.close(fd)


class SegmentParser:
    """Turns the bytes of one segment into records, and steps over damage.

    Attributes:
        position: the byte behind the last record yielded, where reading goes on.
        damaged: bytes stepped over because no record could be read from them, although they are not the beginning of
            one whose writing was broken off.
        sealed: whether the segment's ``Seal`` was seen.
        foreign: whether the segment was written in a newer format, of which nothing is read.
    """

    __slots__ = ("damaged", "foreign", "position", "sealed")

    def __init__(self, position: int = 0, damaged: int = 0) -> None:
        self.position = position
        self.damaged = damaged
        self.sealed = False
        self.foreign = False

    def records(self, data: bytes, *, more: bool, final: bool) -> Iterator[Record]:
        """Yield all records of ``data``; see ``settled``."""
        return self._parse(data, decode, more=more, final=final)

    def settled(self, data: bytes, offset: int = 0, *, more: bool, final: bool) -> Iterator[Settled]:
        """Yield the records of ``data`` that make the ledger, ends of attempts as ``End``.

        Args:
            data: bytes of the segment.
            offset: where in them ``position`` is.
            more: whether the segment goes on behind ``data``.
            final: whether the writer is gone, so that bytes that make no record never will.
        """
        return self._parse(data, decode_settled, offset, more=more, final=final)

    def take(self, data: bytes, offset: int, most: int) -> tuple[list[End], list[Head | Seal | Price], int]:
        """Return the next records that make the ledger, ends of attempts apart, and the offset behind them.

        Much quicker than ``settled``, but for the usual case only: it stops at whatever is not a whole and sound frame
        of a known record, and then ``settled`` tells from there on what it is.

        Args:
            data: bytes of the segment.
            offset: where in them ``position`` is.
            most: ends of attempts, at least 1.
        """
        payloads, rest, end = _scan(data, offset, most)
        others: list[Head | Seal | Price] = []
        try:
            ends = _ends_decoder.decode(_ARRAY.pack(0xDD, len(payloads)) + b"".join(payloads))
            for payload in rest:
                record = decode_settled(payload)
                if isinstance(record, End) or (isinstance(record, Head) and record.version > FORMAT_VERSION):
                    return [], [], offset
                if record is not None:
                    others.append(record)
        except msgspec.DecodeError:
            return [], [], offset
        self.sealed = self.sealed or any(isinstance(record, Seal) for record in others)
        self.position += end - offset
        return ends, others, end

    def _parse(
        self, data: bytes, decoded: Callable[[bytes], T | None], offset: int = 0, *, more: bool, final: bool
    ) -> Iterator[T]:
        """Yield what ``decoded`` makes of each frame, but None; keep the attributes up to date."""
        base = self.position - offset
        while not self.foreign:
            for payload, end in frames(data, offset):
                start, offset = offset, end
                self.position = base + end
                try:
                    record = decoded(payload)
                except msgspec.DecodeError:
                    self.damaged += end - start
                    continue
                if record is None:
                    continue
                if isinstance(record, Head) and record.version > FORMAT_VERSION:
                    self.foreign, self.position = True, base + start
                    return
                self.sealed = self.sealed or isinstance(record, Seal)
                yield record
            rest = len(data) - offset
            if rest <= LONGEST_FRAME and (more or not final):
                return  # the rest of a frame is still to be read, or to be written
            found = _next_frame(data, offset + 1)
            if found is None:
                if not more:
                    if final and not _torn(data[offset:]):
                        self.damaged += rest
                        self.position = base + len(data)
                    return
                # A frame may begin in the last bytes and end behind them.
                found = max(offset + 1, len(data) - LONGEST_FRAME)
            self.damaged += found - offset
            self.position = base + found
            offset = found


def _next_frame(data: bytes, offset: int) -> int | None:
    """Return where the next readable frame of ``data`` begins at or behind ``offset``, or None.

    A text inside a record cannot pass for one: the ids and array headers of records are not valid UTF-8.
    """
    for match in _FRAME_START.finditer(data, offset):
        payload, _ = next(frames(data, match.start()), (None, 0))
        if payload is not None:
            return match.start()
    return None


def _torn(rest: bytes) -> bool:
    """Return whether ``rest`` is what a write leaves that was broken off: a frame without its end, or zeros for it.

    A frame that is there to its last byte and fails its CRC, or a length that no frame has, was damaged later. So was
    the length of a frame that is longer than ``rest`` although the CRC is that of ``rest``.
    """
    written = rest.rstrip(b"\0")
    if not written or len(rest) - len(written) >= _TORN_ZEROS:
        rest = written
    if len(rest) < HEADER.size:
        return True
    length, crc = HEADER.unpack_from(rest)
    payload = rest[HEADER.size :]
    return bool(len(payload) < length <= MAX_PAYLOAD and google_crc32c.value(payload) != crc)


def _scan(data: bytes, offset: int, most: int) -> tuple[list[bytes], list[bytes], int]:
    """Return the payloads of ends of attempts, at most ``most``, those of all other records, and the offset behind.

    The same rules as ``gateway.metering.record.frames``, written out, because a step of a generator for each frame
    costs as much as its checksum. What neither ends an attempt nor can matter to the ledger is not returned.
    """
    ends: list[bytes] = []
    others: list[bytes] = []
    unpack, size, checksum = HEADER.unpack_from, HEADER.size, google_crc32c.value
    whole = len(data)
    last = whole - size
    while offset <= last and most:
        length, crc = unpack(data, offset)
        start = offset + size
        behind = start + length
        payload = data[start:behind]
        if checksum(payload) != crc or behind > whole or not _SHORTEST <= length <= MAX_PAYLOAD:
            break
        offset = behind
        if payload[0] == _LONG_ARRAY:
            ends.append(payload)
            most -= 1
        elif payload[2] not in _UNDER_WAY or payload[1] != _TAG:
            others.append(payload)
    return ends, others, offset
