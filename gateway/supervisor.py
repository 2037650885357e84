"""``weir serve --workers N``: one supervisor that owns the listening socket and N worker processes and their keeper.

The supervisor does no work of its own: it starts the keeper, then the workers, looks at what they start with, passes
SIGHUP on, and starts anew whatever dies. One that gives no sign of life (``gateway.pulse``) for too long is asked where
it is, for the log, and killed. Children are forked from it, so what it has imported they need not import again, and
they share its memory. It has no thread and no event loop, now or later: a fork would copy the locks of one and the
descriptors of the other. Children begin with SIGHUP blocked, so that one that comes while they start waits for them
instead of ending them. Every child holds the read end of a pipe whose write end only the supervisor has: when the
supervisor is gone, however it went, the pipe ends and the children stop by themselves, also those that are still
starting.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn, Protocol

from gateway.pulse import ASKED, Pulse
from gateway.telemetry import logs

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0
STEADY_AFTER: Final = 10.0
"""Seconds after which a child counts as having started well."""
LAST_WORDS: Final = 1.0
"""Seconds that a child which hangs has to say where."""
LOOK_S: Final = 1.0
"""Seconds between two looks at what children will start with."""
_POLL: Final = 0.2
_END_POLL: Final = 0.02
_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})
"""What the supervisor has handlers for."""
_log: Final = logs.logger(__name__)


Work = Callable[[int, Pulse], int]
"""What a child does from its start to its end; takes the read end of the leash and where to give signs of life,
returns the exit status."""


class Look(Protocol):
    """Looks at what children will start with."""

    def __call__(self, *, asked: bool) -> None:
        """Look; ``asked``, even if nothing seems to have changed."""


@dataclass(slots=True, eq=False)
class Child:
    """One process under supervision.

    Attributes:
        role: ``keeper`` or ``worker``.
        pid: the running process, or None while it waits to be started.
        status: the exit status of the last process, negative for a signal; None while it runs.
        started: monotonic seconds of the last start.
        delay: seconds to wait before the next start, also after one that failed.
        due: monotonic seconds at which to start it.
        pulse: its signs of life.
        asked: whether it was asked where it hangs.
    """

    role: str
    pid: int | None = None
    status: int | None = None
    started: float = 0.0
    delay: float = FIRST_DELAY
    due: float = 0.0
    pulse: Pulse = field(default_factory=Pulse)
    asked: bool = False

    def runs(self) -> bool:
        """Return whether there is a process that has not ended; one that has is buried."""
        if self.pid is None or self.status is not None:
            return False
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        if ended:
            self.status = os.waitstatus_to_exitcode(status)
        return not ended

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self.runs():
            assert self.pid is not None
            os.kill(self.pid, number)


class Supervisor:
    """Runs until it is told to stop; returns the exit status.

    Args:
        listener: the socket that workers take connections from; closed here first of all when it stops.
        workers: how many.
        grace: seconds that workers have to finish.
        patience: seconds without a sign of life after which a child is killed; 0 for ever.
        work: what a ``keeper`` does and what a ``worker`` does.
        look: looks at what children will start with, once a second and, ``asked``, before SIGHUP is passed on.
    """

    def __init__(
        self,
        listener: socket.socket,
        workers: int,
        *,
        grace: float,
        patience: float,
        work: Mapping[str, Work],
        look: Look | None = None,
    ) -> None:
        self._listener = listener
        self._grace = grace
        self._patience = patience
        self._work = work
        self._look = look
        self._look_at = 0.0
        self._children = [Child("keeper"), *(Child("worker") for _ in range(workers))]
        self._leash, self._hand = os.pipe()
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._stopping = False
        self._reloading = False

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT; then let the workers finish, the keeper last."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reload)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one that came during the start comes now
        gc.collect()
        gc.freeze()  # a child that looked through it for garbage would write on, and so copy, every page of it
        try:
            while not self._stopping:
                self._heed()
                self._tend()
                ready, _, _ = select.select([self._wake], [], [], _POLL)
                if ready:
                    os.read(self._wake, 512)
        finally:
            signal.set_wakeup_fd(-1)
            self._shut_down()
        return 0

    def _heed(self) -> None:
        """Look at what children will start with, now and then, and pass on that it is to be read anew."""
        asked, now = self._reloading, time.monotonic()
        if self._look is not None and (asked or now >= self._look_at):
            self._look_at = now + LOOK_S
            self._look(asked=asked)
        if asked:
            self._reloading = False
            for child in self._children:
                child.signal(signal.SIGHUP)

    def _tend(self) -> None:
        """Start what is due, bury what has died, end what hangs."""
        now = time.monotonic()
        for child in self._children:
            if child.pid is not None and not child.runs():
                _log.error("process died", role=child.role, pid=child.pid, status=child.status)
                steady = now - child.started > STEADY_AFTER
                child.delay = FIRST_DELAY if steady else min(child.delay * 2, LONGEST_DELAY)
                child.due = now + child.delay
                child.pid = None
            if child.pid is None and now >= child.due:
                self._start(child, now)
            elif child.pid is not None and self._patience:
                self._watch(child, now)

    def _watch(self, child: Child, now: float) -> None:
        """Kill a child that gives no sign of life; it may say before where it is."""
        still = child.pulse.look(now)
        if not child.asked and still > self._patience:
            child.asked = True
            _log.error("process hangs", role=child.role, pid=child.pid, seconds=round(still, 1))
            child.signal(ASKED)
        elif child.asked and still > self._patience + LAST_WORDS:
            child.signal(signal.SIGKILL)
        elif child.asked and not still:
            child.asked = False
            _log.warning("process hangs no longer", role=child.role, pid=child.pid)

    def _start(self, child: Child, now: float) -> None:
        sys.stdout.flush()  # else the child has the same text, and says it again
        child.pulse.forget(now)
        child.asked = False
        # Held back while there are two of us: what comes for the child must not be taken by a handler that is ours.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = _fork(child.role)
            if pid == 0:
                self._become(child)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if pid is None:
            child.delay = min(child.delay * 2, LONGEST_DELAY)
            child.due = now + child.delay
        else:
            child.pid, child.status, child.started = pid, None, now

    def _become(self, child: Child) -> NoReturn:
        """Be a child, with the signals of a new process, except that SIGHUP waits."""
        status, role = 1, child.role
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            for descriptor in (self._hand, self._wake, self._waker):
                os.close(descriptor)
            if role != "worker":
                self._listener.close()
            with suppress(OSError):  # the name by which `ps` and `top` show it; only Linux has it there
                Path("/proc/self/comm").write_text(f"weir {role}")
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS - {signal.SIGHUP})
            status = self._work[role](self._leash, child.pulse)
        except BaseException:  # noqa: BLE001 - nothing of the supervisor's that is above here may run in a child
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)  # whatever became of the last words: there is one supervisor

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reloading = True

    def _shut_down(self) -> None:
        self._listener.close()
        keeper, workers = self._children[0], self._children[1:]
        for child in workers:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._grace + 5.0
        for child in workers:
            _await_end(child, deadline)
        keeper.signal(signal.SIGTERM)
        _await_end(keeper, time.monotonic() + 10.0)
        for descriptor in (self._leash, self._hand, self._wake, self._waker):
            os.close(descriptor)


def _fork(role: str) -> int | None:
    """Fork, and return what it returns; None when there is no memory or no process to spare, which may pass."""
    try:
        return os.fork()
    except OSError as error:
        _log.error("process cannot be started", role=role, error=str(error))
        return None


def _await_end(child: Child, deadline: float) -> None:
    while child.runs():
        if time.monotonic() > deadline:
            _log.error("process did not stop in time", role=child.role, pid=child.pid)
            child.signal(signal.SIGKILL)
            deadline += LONGEST_DELAY
        time.sleep(_END_POLL)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket for all workers. Raises ``OSError`` when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener
