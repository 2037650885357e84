"""``weir serve --workers N``: one supervisor that owns the listening socket and N worker processes and their keeper.

The supervisor does no work of its own: it starts the keeper, then the workers, hands them the listening socket, passes
SIGHUP on, and starts anew whatever dies. Children begin with SIGHUP blocked, so that one that comes while they start
waits for them instead of ending them. Every child holds the read end of a pipe whose write end only the supervisor
has: when the supervisor is gone, however it went, the pipe ends and the children stop by themselves, also those that
are still starting.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from types import FrameType
from typing import Final

from gateway.telemetry import logs

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0
STEADY_AFTER: Final = 10.0
"""Seconds after which a child counts as having started well."""
_POLL: Final = 0.2
_log: Final = logs.logger(__name__)


@dataclass(slots=True)
class Child:
    """One process under supervision.

    Attributes:
        role: ``keeper`` or ``worker``.
        process: the running process, or None while it waits to be started.
        started: monotonic seconds of the last start.
        delay: seconds to wait before the next start.
        due: monotonic seconds at which to start it.
    """

    role: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    delay: float = FIRST_DELAY
    due: float = 0.0


class Supervisor:
    """Runs until it is told to stop; returns the exit status."""

    def __init__(self, listener: socket.socket, workers: int, *, grace: float) -> None:
        self._listener = listener
        self._workers = workers
        self._grace = grace
        self._children = [Child("keeper"), *(Child("worker") for _ in range(workers))]
        self._leash, self._hand = os.pipe()
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._stopping = False

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT; then let the workers finish, the keeper last."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reload)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        try:
            while not self._stopping:
                self._tend()
                ready, _, _ = select.select([self._wake], [], [], _POLL)
                if ready:
                    os.read(self._wake, 512)
        finally:
            signal.set_wakeup_fd(-1)
            self._shut_down()
        return 0

    def _tend(self) -> None:
        """Start what is due, bury what has died."""
        now = time.monotonic()
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                _log.error("process died", role=child.role, pid=child.process.pid, status=child.process.returncode)
                steady = now - child.started > STEADY_AFTER
                child.delay = FIRST_DELAY if steady else min(child.delay * 2, LONGEST_DELAY)
                child.due = now + child.delay
                child.process = None
            if child.process is None and now >= child.due:
                self._start(child, now)

    def _start(self, child: Child, now: float) -> None:
        command = [sys.executable, "-m", "gateway.cli", child.role, "--leash", str(self._leash)]
        descriptors = [self._leash]
        if child.role == "worker":
            command += ["--fd", str(self._listener.fileno()), "--workers", str(self._workers)]
            descriptors.append(self._listener.fileno())
        # A child inherits the mask; our own SIGHUP of this moment comes right after.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            child.process = subprocess.Popen(command, pass_fds=descriptors)  # noqa: S603 - our own interpreter and module
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        child.started = now

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _reload(self, _number: int, _frame: FrameType | None) -> None:
        for child in self._children:
            if child.process is not None:
                child.process.send_signal(signal.SIGHUP)

    def _shut_down(self) -> None:
        self._listener.close()
        keeper, workers = self._children[0], self._children[1:]
        for child in workers:
            _terminate(child)
        deadline = time.monotonic() + self._grace + 5.0
        for child in workers:
            _await_end(child, deadline)
        _terminate(keeper)
        _await_end(keeper, time.monotonic() + 10.0)
        for descriptor in (self._leash, self._hand, self._wake, self._waker):
            os.close(descriptor)


def _terminate(child: Child) -> None:
    if child.process is not None and child.process.poll() is None:
        child.process.terminate()


def _await_end(child: Child, deadline: float) -> None:
    if child.process is None:
        return
    try:
        child.process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        _log.error("process did not stop in time", role=child.role, pid=child.process.pid)
        child.process.kill()
        child.process.wait()


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket for all workers. Raises ``OSError`` when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.set_inheritable(True)
    except OSError:
        listener.close()
        raise
    return listener
