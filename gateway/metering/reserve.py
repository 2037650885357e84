"""Space set aside on the disk, so that running answers can still be metered when the disk is full.

It is a hidden file in the journal's folder whose blocks are allocated and whose length is zero. When the disk is full
the journal goes on in it as its next segment: appending within blocks that are there already needs no room. Made again
as soon as there is room for it; that is how the journal knows that the disk is not full any more.

Raises ``OSError``; where the platform or the file system cannot allocate blocks beyond the end of a file there is no
reserve, which the error ``ENOTSUP`` or ``ENOSYS`` tells. File systems that never write a block in place (Btrfs, ZFS)
allocate and may run out all the same; the journal then does what it does without a reserve.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from pathlib import Path
from secrets import token_hex
from typing import Final

from gateway.telemetry import logs

RESERVE_BYTES: Final = 4 * 1024 * 1024
"""Space set aside for a full disk, in bytes; more when very many attempts are open."""
_UNACKNOWLEDGED: Final = RESERVE_BYTES // 2
"""Part of it for what is written and not yet acknowledged when the disk turns out to be full."""
_ENDING_BYTES: Final = 1024
"""The end and a progress of an attempt together are less than this longer than its beginning, in bytes.

An open attempt may still take twice its beginning, which is repeated at the head of a segment, and these."""
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""How a disk says that there is no room, or no right to more."""
PASSING: Final = frozenset({errno.EWOULDBLOCK, errno.EMFILE, errno.ENFILE})
"""What keeps a reserve from being made now and may be gone in a moment: somebody holds a lock, too many open files."""
_NAME: Final = "reserve"
_KEEP_SIZE: Final = 1
"""``FALLOC_FL_KEEP_SIZE`` of Linux."""

log: Final = logs.logger(__name__)


class Reserve:
    """Blocks set aside in a folder, owned by this process.

    Attributes:
        path: where it is; a name that no reader lists, and that is swept away once its owner is gone.
        fd: its descriptor, locked, for appending.
        size: bytes set aside.
    """

    __slots__ = ("fd", "path", "size")

    def __init__(self, path: Path, fd: int, size: int) -> None:
        self.path = path
        self.fd = fd
        self.size = size

    @classmethod
    def make(cls, folder: Path, writer: str, size: int) -> Reserve:
        """Set ``size`` bytes aside in ``folder`` for the journal ``writer``; nothing is left behind on an error.

        What a journal that died had set aside is taken over.

        Raises:
            OSError: there is no room; or less than another such reserve would be left of it, so that the disk would be
                full again at once.
        """
        reserve = cls._adopt(folder)
        if reserve is None:
            free = os.statvfs(folder)
            if free.f_bavail * free.f_frsize < 2 * size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            reserve = cls._begin(folder, writer)
        try:
            reserve.extend(size)
        except OSError:
            reserve.release()
            raise
        return reserve

    @classmethod
    def _begin(cls, folder: Path, writer: str) -> Reserve:
        """Make a reserve without blocks, locked. Raises ``OSError``.

        It gets a name that others look for only once it is locked: the owner of one that they find unlocked is gone.
        """
        hidden = folder / f"{writer}-{token_hex(4)}.new"
        fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path = hidden.rename(folder / f"{_NAME}-{hidden.name}")
        except OSError:
            os.close(fd)
            hidden.unlink(missing_ok=True)
            raise
        return cls(path, fd, 0)

    @classmethod
    def _adopt(cls, folder: Path) -> Reserve | None:
        """Return what somebody set aside and left behind, locked; None when there is nothing of that kind."""
        for path in folder.glob(f"{_NAME}-*.new"):
            try:
                fd = own(path)
            except OSError:
                continue
            if fd is None:
                continue
            if not os.fstat(fd).st_size:
                return cls(path, fd, 0)
            # Its owner died while it made a segment of it: nothing in there was acknowledged.
            path.unlink(missing_ok=True)
            os.close(fd)
        return None

    def extend(self, size: int) -> None:
        """Set as much aside as makes ``size`` bytes together. Raises ``OSError``; what there was stays."""
        _allocate(self.fd, size)
        self.size = size

    def release(self) -> None:
        """Give the blocks back."""
        self.path.unlink(missing_ok=True)
        os.close(self.fd)


class Space:
    """What is set aside for the open attempts of one journal, and whether the disk is full.

    Attributes:
        full: whether less is set aside than should be, because there is no room.
        owed: bytes that the open attempts may still take.
    """

    __slots__ = ("_folder", "_possible", "_reserve", "_writer", "full", "owed")

    def __init__(self, folder: Path, writer: str) -> None:
        self.full = False
        self.owed = 0
        self._folder = folder
        self._writer = writer
        self._reserve: Reserve | None = None
        self._possible = True

    def ended(self, begun: bytes) -> None:
        """Take note of the end of an attempt."""
        self.owed -= 2 * len(begun) + _ENDING_BYTES

    def began(self, begun: bytes) -> bool:
        """Take note of an attempt that is open from now on, by the frame it began with, and set aside what ends it.

        Returns False, and takes no note, when there is no room to end all open attempts and this one.
        """
        owed, reserve = self.owed + 2 * len(begun) + _ENDING_BYTES, self._reserve
        wanted = owed + _UNACKNOWLEDGED
        if reserve is not None and wanted > reserve.size:
            try:
                reserve.extend(2 * wanted)
            except OSError as error:
                log.warning("journal_reserve_too_small", bytes=wanted, error=str(error))
                return False
        self.owed = owed
        return True

    @property
    def lacking(self) -> bool:
        """Whether nothing is set aside although it may be possible later."""
        return self._reserve is None and self._possible

    def provide(self) -> bool:
        """Set space aside unless that is done; return whether new attempts may be taken."""
        if self.lacking:
            try:
                self._reserve = Reserve.make(self._folder, self._writer, max(RESERVE_BYTES, 2 * self.owed))
            except OSError as error:
                if error.errno in FULL or (self.full and error.errno in PASSING):
                    self.full = True
                    return False
                self._possible = error.errno in PASSING
                log.warning("journal_without_reserve", error=str(error))
        self.full = False
        return True

    def take(self) -> Reserve | None:
        """Hand over what is set aside, if anything is."""
        reserve, self._reserve = self._reserve, None
        return reserve

    def release(self) -> None:
        """Give back what is set aside."""
        if (reserve := self.take()) is not None:
            reserve.release()


def own(path: Path) -> int | None:
    """Open, lock and return what is at ``path``; None when it is somebody else's, or gone. Raises ``OSError``."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between the two its owner may have made a segment of it, or somebody have removed it.
        if path.stat().st_ino == os.fstat(fd).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _allocate(fd: int, size: int) -> None:
    """Allocate the first ``size`` bytes of an open file without changing its length. Raises ``OSError``."""
    if not sys.platform.startswith("linux"):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    import ctypes  # noqa: PLC0415 - once in a process's life, and not on every platform

    libc = ctypes.CDLL(None, use_errno=True)
    while libc.fallocate(fd, _KEEP_SIZE, ctypes.c_longlong(0), ctypes.c_longlong(size)) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
