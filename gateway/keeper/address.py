"""Where the keeper of a state folder is reached: the lock that makes it the only one, and its socket.

The socket is ``keeper.sock`` in the state folder. A path of a unix socket holds about 107 bytes (103 on
macOS), so
for a long folder the socket lies in a private folder for temporary files, and ``keeper.addr`` says where. Failures are
``KeeperError`` with a message for the operator.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import tempfile
import time
from pathlib import Path
from secrets import token_hex
from typing import Final, Self

LOCK_FILE: Final = "keeper.lock"
SOCKET_FILE: Final = "keeper.sock"
ADDRESS_FILE: Final = "keeper.addr"
HOST_FILE: Final = "host.id"
LONGEST_PATH: Final = 103

_PRIVATE_PREFIX: Final = "weir-"
_LOCK_TRIES: Final = 5
_LOCK_PAUSE_S: Final = 0.02
_PROBE_S: Final = 1.0


class KeeperError(Exception):
    """The keeper cannot start; the message says why and what would mend it."""


class KeptError(KeeperError):
    """The folder has a keeper: a gateway's, or a command that is one for as long as it takes."""


class KeeperLock:
    """Exclusive ownership of a state folder, held until ``release`` or the death of the process.

    Args:
        home: the state folder; made when missing.
    """

    __slots__ = ("_descriptor", "_path")

    def __init__(self, home: Path) -> None:
        self._path = home / LOCK_FILE
        self._descriptor = -1

    def acquire(self) -> Self:
        """Take the lock.

        Raises:
            KeptError: another process has it.
            KeeperError: the folder cannot be used.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unusable(self._path, error) from error
        if not _locked(descriptor):
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f"process {owner}" if owner.isdigit() else "another process"
            raise KeptError(f"{who} keeps {self._path.parent} already: stop it, or use another WEIR_HOME")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor
        return self

    @property
    def descriptor(self) -> int:
        """The descriptor that holds the lock, or -1; a process that inherits it holds the lock too."""
        return self._descriptor

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _unusable(path: Path, error: OSError) -> KeeperError:
    return KeeperError(f"cannot use {path} ({error.strerror}): make WEIR_HOME a folder this user may write to")


def _locked(descriptor: int) -> bool:
    """Take the lock, trying again for a moment: whoever only looks (``is_kept``) holds it as short as that."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False


def host_id(home: Path) -> str:
    """Return the id of the state folder ``home``, made on first use: budgets are leased to it, not to a machine's name.

    Raises:
        KeeperError: the file can be neither read nor made.
    """
    path = home / HOST_FILE
    try:
        with contextlib.suppress(FileNotFoundError):
            found = path.read_text(encoding="ascii", errors="replace").strip()
            if re.fullmatch(r"[0-9a-f]{16}", found):
                return found
        made = token_hex(8)
        draft = home / f"{HOST_FILE}.{os.getpid()}"
        draft.write_text(f"{made}\n", encoding="ascii")
        draft.replace(path)
    except OSError as error:
        raise KeeperError(f"cannot use {path} ({error.strerror})") from error
    return made


def is_kept(home: Path) -> bool:
    """Return whether a living process keeps ``home``. Raises ``KeeperError`` when this user cannot tell."""
    path = home / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def socket_path(home: Path) -> Path:
    """Return where the keeper of ``home`` listens, or would."""
    with contextlib.suppress(OSError):
        text = (home / ADDRESS_FILE).read_text(encoding="utf-8").strip()
        if text:
            return Path(text)
    return home / SOCKET_FILE


def answers(home: Path) -> bool:
    """Return whether a keeper listens for ``home``; a command that keeps it for a while does not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(os.fspath(socket_path(home)))
        except OSError:
            return False
    return True


def listen(home: Path) -> tuple[socket.socket, Path]:
    """Return a listening socket for the keeper of ``home``, which holds its lock, and its path; mode 0600.

    Raises:
        KeeperError: no path is short enough, or the socket cannot be made.
    """
    path = home / SOCKET_FILE
    try:
        _forget(home)
        if len(os.fsencode(path)) > LONGEST_PATH:
            path = _private_path(home)
        return _bound(path), path
    except OSError as error:
        raise KeeperError(f"cannot listen at {path} ({error.strerror})") from error


def stop_listening(home: Path, path: Path) -> None:
    """Remove the socket at ``path`` and what points to it."""
    with contextlib.suppress(OSError):
        path.unlink()
    _forget(home)


def _forget(home: Path) -> None:
    """Remove what a dead keeper left; only the holder of the lock may."""
    with contextlib.suppress(OSError):
        (home / SOCKET_FILE).unlink()
    address = home / ADDRESS_FILE
    if not address.exists():
        return
    old = socket_path(home)
    address.unlink()
    if old.name == SOCKET_FILE and old.parent.name.startswith(_PRIVATE_PREFIX):
        with contextlib.suppress(OSError):
            old.unlink()
        with contextlib.suppress(OSError):
            old.parent.rmdir()


def _private_path(home: Path) -> Path:
    """Make a private folder for the socket and write its path where clients look."""
    folder = Path(tempfile.mkdtemp(prefix=_PRIVATE_PREFIX))
    path = folder / SOCKET_FILE
    if len(os.fsencode(path)) > LONGEST_PATH:
        folder.rmdir()
        raise KeeperError(f"the path {path} is too long for a unix socket: use a shorter WEIR_HOME or a shorter TMPDIR")
    draft = home / f"{ADDRESS_FILE}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{path}\n")
    draft.replace(home / ADDRESS_FILE)
    return path


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode must be right from the first moment; a umask that only takes rights away harms nobody else.
    mask = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    listener.listen(128)
    listener.setblocking(False)
    return listener
