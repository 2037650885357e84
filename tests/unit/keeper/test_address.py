"""Where a keeper is reached: one keeper per folder, a private socket, and paths of any length."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from gateway.keeper.address import (
    ADDRESS_FILE,
    LOCK_FILE,
    LONGEST_PATH,
    SOCKET_FILE,
    KeeperError,
    KeeperLock,
    is_kept,
    listen,
    socket_path,
    stop_listening,
)


def connects(path: Path) -> bool:
    """Return whether somebody listens at ``path``."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(os.fspath(path))
        except OSError:
            return False
        return True


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose socket path fits."""
    return tmp_path_factory.mktemp("s")


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A state folder whose socket path is too long."""
    folder = tmp_path / ("d" * 100)
    folder.mkdir()
    return folder


def test_one_keeper_per_folder(short: Path) -> None:
    """A second keeper is refused with the pid of the first; after the release there is room."""
    assert not is_kept(short)
    lock = KeeperLock(short).acquire()
    assert is_kept(short)
    with pytest.raises(KeeperError, match=f"process {os.getpid()}"):
        KeeperLock(short).acquire()
    lock.release()
    lock.release()
    assert not is_kept(short)
    KeeperLock(short).acquire().release()


def test_a_lock_that_cannot_be_looked_at_is_said(short: Path) -> None:
    """Whoever asks is told which file and what to do, as who wants to keep the folder is."""
    (short / LOCK_FILE).mkdir()
    with pytest.raises(KeeperError, match=r"keeper\.lock \(Is a directory\): make WEIR_HOME a folder"):
        is_kept(short)


def test_the_folder_is_made_when_it_is_missing(short: Path) -> None:
    """The lock makes the folder, for its owner alone."""
    home = short / "a" / "b"
    KeeperLock(home).acquire().release()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_used_is_said_to_be_so(short: Path) -> None:
    """The message names WEIR_HOME."""
    (short / "file").write_text("")
    with pytest.raises(KeeperError, match="WEIR_HOME"):
        KeeperLock(short / "file").acquire()


def test_the_socket_is_for_its_owner_alone(short: Path) -> None:
    """Mode 0600, at the place where clients look, gone when it is stopped."""
    listener, path = listen(short)
    assert path == short / SOCKET_FILE == socket_path(short)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert connects(path)
    listener.close()
    stop_listening(short, path)
    assert list(short.iterdir()) == []


def test_a_dead_keepers_socket_is_replaced(short: Path) -> None:
    """What a killed keeper left does not stop the next one."""
    listen(short)[0].close()
    listener, path = listen(short)
    assert connects(path)
    listener.close()


def test_a_long_folder_gets_a_short_socket_in_a_private_folder(long: Path) -> None:
    """Clients find it through keeper.addr; everything is for the owner alone, and removed in the end."""
    listener, path = listen(long)
    assert len(os.fsencode(path)) <= LONGEST_PATH
    assert socket_path(long) == path
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((long / ADDRESS_FILE).stat().st_mode) == 0o600
    assert connects(path)
    listener.close()
    stop_listening(long, path)
    assert not path.parent.exists()
    assert list(long.iterdir()) == []


def test_what_a_killed_keeper_left_elsewhere_is_removed(long: Path) -> None:
    """The next keeper cleans the old private folder and points to its own."""
    first, old = listen(long)
    first.close()
    second, new = listen(long)
    assert not old.parent.exists()
    assert socket_path(long) == new
    second.close()
    stop_listening(long, new)


def test_a_strange_keeper_addr_deletes_nothing(short: Path, tmp_path: Path) -> None:
    """Only a socket in a folder of ours is ever removed."""
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    (short / ADDRESS_FILE).write_text(f"{precious}\n")
    listener, path = listen(short)
    assert precious.read_text() == "keep me"
    assert path == short / SOCKET_FILE
    listener.close()


def test_when_no_path_is_short_enough_the_message_says_what_to_change(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both folders can be shortened."""
    monkeypatch.setattr("tempfile.tempdir", os.fspath(long))
    with pytest.raises(KeeperError, match=r"shorter WEIR_HOME.*TMPDIR"):
        listen(long)
    assert list(long.iterdir()) == []
