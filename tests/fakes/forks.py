"""Processes that start at once: forked from one that has imported what they are made of.

Importing the database's libraries takes a second of CPU time, and tests that kill processes start dozens. These are
forked from Python's own fork server, which has no threads and ends with the tests. A forked process is like any other:
it has its own id, can be killed, and shares nothing that is written later.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, TextIO

PRELOADED: Final = (
    "asyncpg",
    "gateway.cli",
    "gateway.keeper.figures",
    "gateway.keeper.schema",
    "gateway.keeper.server",
    "gateway.keeper.service",
    "gateway.serving",
    "gateway.supervisor",
    "rich.table",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "tests.integration.metering.workload",
)
"""What the fork server has imported. None of it may start a thread."""

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(PRELOADED))


class Fork:
    """A process that runs ``work``, a function of a module, with a connection to talk into, then ``arguments``.

    Attributes:
        said: what it writes to the connection, to be read as lines; ends with the process.
    """

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        listening, talking = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=work, args=(talking, *arguments))
        self._process.start()
        talking.close()
        self.said = os.fdopen(os.dup(listening.fileno()), "rb")
        listening.close()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.is_alive()

    def kill(self) -> None:
        """Kill it and wait until it is gone."""
        self._process.kill()
        self._process.join(20)
        assert not self.alive


def weir(
    arguments: Sequence[str | Path], environ: Mapping[str, str], cwd: Path, seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run a command line of Weir to its end in a forked process, as ``subprocess.run`` would run ``weir``."""
    command = [os.fspath(each) for each in arguments]
    with tempfile.TemporaryDirectory(prefix="weir-fork-") as folder:
        place = Path(folder)
        process = _CONTEXT.Process(target=_be_weir, args=(command, dict(environ), cwd, place))
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["weir", *command], seconds)
        out, err = ((place / name).read_text() for name in ("out", "err"))
    return subprocess.CompletedProcess(["weir", *command], process.exitcode, out, err)


class Server:
    """A command line of Weir that serves, in a session of its own, forked: what tests need of ``subprocess.Popen``.

    Attributes:
        pid: of the process.
        stdout: what it and its children say on both outputs; ends with the last of them.
    """

    def __init__(self, arguments: Sequence[str | Path], environ: Mapping[str, str], cwd: Path) -> None:
        listening, talking = _CONTEXT.Pipe(duplex=False)
        command = [os.fspath(each) for each in arguments]
        self._process = _CONTEXT.Process(target=_be_server, args=(talking, command, dict(environ), cwd), daemon=True)
        self._process.start()
        talking.close()
        self._asking = threading.Lock()
        self.stdout: TextIO = os.fdopen(os.dup(listening.fileno()), encoding="utf-8")
        listening.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        with suppress(ProcessLookupError):
            while self.poll() is None and os.getpgid(self.pid) != self.pid:  # who kills the session must find it
                time.sleep(0.001)

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        with self._asking:
            return self._process.exitcode

    def wait(self, timeout: float = 3600.0) -> int:
        """Wait for its end and return the exit status. Raises ``subprocess.TimeoutExpired``."""
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(["weir"], timeout)
            time.sleep(0.005)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to it, not to its children."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _be_server(talking: Connection, command: list[str], environ: dict[str, str], cwd: Path) -> None:
    os.setsid()
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for number in (1, 2):
        os.dup2(talking.fileno(), number)
    talking.close()
    _run(command, environ, cwd)


def _be_weir(command: list[str], environ: dict[str, str], cwd: Path, place: Path) -> None:
    for number, name in ((1, "out"), (2, "err")):
        with (place / name).open("wb") as file:
            os.dup2(file.fileno(), number)
    _run(command, environ, cwd)


def _run(command: list[str], environ: dict[str, str], cwd: Path) -> None:
    from gateway import cli

    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["weir", *command]
    cli.main()


def tell(talking: Connection, *words: object) -> None:
    """Write words to a connection as a line, at once and whole: for the forked side."""
    os.write(talking.fileno(), (" ".join(map(str, words)) + "\n").encode())
