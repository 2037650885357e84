"""Files that a configuration is read from, and how a change of one is noticed.

Only regular files of bounded size are read, so that a pipe or a device cannot block a reload. A file that
cannot be read raises ``OSError`` with a reason in words.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

Fingerprint = tuple[int, int, int]
"""Modification time in nanoseconds, inode, size in bytes."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as it was when it was read; ``fingerprint`` is None when it could not be."""

    path: Path
    fingerprint: Fingerprint | None

    @classmethod
    def look(cls, path: Path) -> SourceFile:
        """Return ``path`` as it is now."""
        try:
            return cls(path, _fingerprint(path.stat()))
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return cls(path, None)


def read(path: Path, limit: int) -> tuple[bytes, SourceFile]:
    """Return the content of ``path``, at most ``limit`` bytes, and its state at that moment.

    Raises:
        OSError: it is missing, not a regular file, too large or not readable; ``strerror`` says which.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with path.open("rb") as file:
            source = SourceFile(path, _fingerprint(os.fstat(file.fileno())))
            content = file.read(limit + 1)
    except ValueError:
        raise OSError(errno.EINVAL, "its name holds a NUL") from None
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")
    return content, source


def _fingerprint(status: os.stat_result) -> Fingerprint:
    return status.st_mtime_ns, status.st_ino, status.st_size
