"""The command line of Weir with failpoints in it and in all processes it starts; everything else is as it is.

Segments are short, so that many end while a run lasts, and progress is journalled often. The supervisor's children are
forked from it with everything imported, which saves a second of CPU time at each of hundreds of starts; the only
process of one worker is started as any command is. The environment says where failpoints are armed (``KILL_POINTS``)
and where deleted segments are kept (``KILL_ARCHIVE``).
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NoReturn

from tests.kill.failpoints import Points, install

PROGRESS_TOKENS: Final = 16
SEGMENT_BYTES: Final = 24 * 1024
SEGMENT_SECONDS: Final = 0.7
_NEEDED: Final = ("gateway.serving", "gateway.keeper.server", "gateway.keeper.service", "gateway.keeper.schema")
_POLL_S: Final = 0.02


class Forked:
    """A child as the supervisor sees it: the part of ``subprocess.Popen`` that it uses."""

    def __init__(self, command: Sequence[str], *, pass_fds: Iterable[int]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _become(command[3:], {0, 1, 2, *pass_fds})

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = 3600.0) -> None:
        """Wait for its end. Raises ``subprocess.TimeoutExpired``."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("weir", timeout)
            time.sleep(_POLL_S)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def _become(arguments: Sequence[str], descriptors: set[int]) -> NoReturn:
    """Be a new process that runs the command line: with default signals and nothing open but ``descriptors``."""
    from gateway import cli

    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for entry in list(Path("/dev/fd").iterdir()):
        if int(entry.name) not in descriptors:
            with suppress(OSError):  # the descriptor of the listing itself
                os.close(int(entry.name))
    sys.argv = ["weir", *arguments]
    status: object = 1
    try:
        cli.main()
    except SystemExit as end:
        status = end.code
    finally:
        sys.stdout.flush()
        os._exit(status if isinstance(status, int) else 1)


def main() -> None:
    """Install the failpoints and run the command line."""
    from gateway import cli, supervisor
    from gateway.metering import meter
    from gateway.metering.journal import Journal

    install(Points(Path(os.environ["KILL_POINTS"])), Path(os.environ["KILL_ARCHIVE"]))
    meter.PROGRESS_TOKENS = PROGRESS_TOKENS  # type: ignore[misc]
    create = functools.partial(Journal.create, segment_bytes=SEGMENT_BYTES, segment_seconds=SEGMENT_SECONDS)
    Journal.create = staticmethod(create)  # type: ignore[method-assign]
    supervisor.STEADY_AFTER = 0.0  # type: ignore[misc]
    if "--workers=1" not in sys.argv:
        for name in _NEEDED:
            import_module(name)
        namespace: Any = SimpleNamespace(Popen=Forked, TimeoutExpired=subprocess.TimeoutExpired)
        vars(supervisor)["subprocess"] = namespace
    cli.main()


if __name__ == "__main__":
    main()
