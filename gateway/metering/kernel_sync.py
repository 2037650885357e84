"""Forcing journal segments to disk without a thread: Linux's asynchronous I/O does it, and an event wakes the loop.

A thread that waits for ``fdatasync`` changes places with the event loop's several times for each sync, and each time
one of them waits for the interpreter's lock; here a sync is one system call to begin and two to take its outcome. The
interface is the kernel's own (io_submit(2), ``IOCB_CMD_FDSYNC``, Linux 4.18), called through the C library, since
nothing in Python's standard library speaks it. Wherever it is missing, forbidden or used up, ``KernelSync`` cannot be
made, and a ``SyncThread`` does the same.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import struct
import sys
import time
from contextlib import suppress
from typing import Final, NamedTuple

from gateway.metering.sync import SyncJob, SyncLanded, SyncThread

_DEPTH: Final = 32
"""Files in one job at most: the current segment, its folder and those that are complete, seldom more than one."""


class _Calls(NamedTuple):
    """Numbers of the system calls; the C library has no functions for them."""

    setup: int
    destroy: int
    getevents: int
    submit: int


_CALLS: Final = {"x86_64": _Calls(206, 207, 208, 209), "aarch64": _Calls(0, 1, 4, 2), "riscv64": _Calls(0, 1, 4, 2)}
_REQUEST: Final = struct.Struct("<QIiHhIQQqQII")
"""``struct iocb``: data, key, flags, operation, priority, file, buffer, bytes, offset, reserved, flags, event."""
_EVENT: Final = struct.Struct("<QQqq")
"""``struct io_event``: data, request, outcome (0 or a negative error number), second outcome."""
_FSYNC: Final = 2
_FDSYNC: Final = 3
_WAKES: Final = 1
"""``IOCB_FLAG_RESFD``: the end of the request is counted in an eventfd."""


class KernelSync:
    """Runs sync jobs, one at a time, by the kernel. Belongs to one event loop.

    Args:
        loop: where ``landed`` is called.
        landed: told of each job, its error or None, and the wall seconds it took.

    Raises:
        OSError: this system does not do it, or does not allow it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, landed: SyncLanded) -> None:
        self._loop = loop
        self._landed = landed
        self._calls = _calls()
        # Neither of the two calls of a job waits for anything, so the interpreter's lock is not let go for them.
        self._call = ctypes.PyDLL(None, use_errno=True).syscall
        self._call.restype = ctypes.c_long
        self._requests = ctypes.create_string_buffer(_REQUEST.size * _DEPTH)
        start = ctypes.addressof(self._requests)
        self._list = (ctypes.c_void_p * _DEPTH)(*(start + _REQUEST.size * at for at in range(_DEPTH)))
        self._events = ctypes.create_string_buffer(_EVENT.size * _DEPTH)
        self._job: SyncJob | None = None
        self._folder: int | None = None
        self._left = 0
        self._short = False
        self._error: OSError | None = None
        self._begun = 0.0
        self._thread: SyncThread | None = None
        self._context = ctypes.c_ulong(0)
        self._ask(self._calls.setup, ctypes.c_uint(_DEPTH), ctypes.byref(self._context))
        try:
            self._outcomes()  # there are none; but where they are not told, that is heard before anything depends on it
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            self._destroy()
            raise
        loop.add_reader(self._event, self._wake)

    def submit(self, job: SyncJob) -> None:
        """Start ``job``; the one before has landed. A thread does it, and all later ones, if the kernel refuses it."""
        if self._thread is None:
            self._begun = time.perf_counter()
            try:
                self._begin(job)
            except OSError:  # a file system that has no such operation, or too much of it under way
                self._refused(job)
        else:
            self._thread.submit(job)

    def stop(self) -> None:
        """Wait for the job that runs, which is told to nobody any more, and let go of everything."""
        if not self._loop.is_closed():
            self._loop.remove_reader(self._event)
        self._destroy()
        os.close(self._event)
        self._shut_folder()
        if self._thread is not None:
            self._thread.stop()

    def _begin(self, job: SyncJob) -> None:
        """Ask for all that ``job`` names at once. Raises ``OSError`` when none of it was taken."""
        wanted = [(_FDSYNC, segment.fd) for segment in job.segments]
        if job.folder is not None:
            self._folder = os.open(job.folder, os.O_RDONLY)
            wanted.append((_FSYNC, self._folder))
        if len(wanted) > _DEPTH:
            raise OSError(f"{len(wanted)} files are more than one job takes")
        for at, (operation, fd) in enumerate(wanted):
            fields = 0, 0, 0, operation, 0, fd, 0, 0, 0, 0, _WAKES, self._event
            _REQUEST.pack_into(self._requests, at * _REQUEST.size, *fields)
        taken = self._ask(self._calls.submit, self._context, ctypes.c_long(len(wanted)), self._list)
        self._job, self._left, self._error, self._short = job, taken, None, taken < len(wanted)

    def _wake(self) -> None:
        """Take the outcomes that have come; the last one ends the job."""
        job = self._job
        try:
            os.eventfd_read(self._event)
            for outcome in self._outcomes():
                self._left -= 1
                if outcome < 0 and self._error is None:
                    self._error = OSError(-outcome, os.strerror(-outcome))
        except OSError as failure:
            # What came of the job is lost. A second sync would not tell: the kernel says of each error but once.
            self._thread = self._thread or SyncThread(self._loop, self._landed)
            self._left, self._error = 0, failure
        if not self._left and job is not None:
            self._complete(job)

    def _outcomes(self) -> list[int]:
        """Take what has come: 0 or a negative error number for each file. Raises ``OSError``."""
        none, most = ctypes.c_long(0), ctypes.c_long(_DEPTH)
        count = self._ask(self._calls.getevents, self._context, none, most, self._events, None)
        return [_EVENT.unpack_from(self._events, at * _EVENT.size)[2] for at in range(count)]

    def _complete(self, job: SyncJob) -> None:
        """Tell of a job all that was asked for of which is done."""
        error, self._job = self._error, None
        if self._short and error is None:
            self._refused(job)
            return
        self._shut_folder()
        if error is None:
            try:
                job.close()
            except OSError as failure:
                error = failure
        self._landed(job, error, time.perf_counter() - self._begun)

    def _refused(self, job: SyncJob) -> None:
        """Give ``job`` and all that follow to a thread; what the kernel has done of it is done once more."""
        self._shut_folder()
        self._thread = SyncThread(self._loop, self._landed)
        self._thread.submit(job)

    def _destroy(self) -> None:
        """Give the kernel's queue back, once nothing is under way in it."""
        with suppress(OSError):  # it ends with the process at the latest
            self._ask(self._calls.destroy, self._context)

    def _shut_folder(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            os.close(folder)

    def _ask(self, number: int, *arguments: object) -> int:
        """Make a system call. Raises ``OSError``."""
        found: int = self._call(ctypes.c_long(number), *arguments)
        if found < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return found


def _calls() -> _Calls:
    """Return the numbers of this system's calls. Raises ``OSError`` where they are not known."""
    found = _CALLS.get(platform.machine()) if sys.platform == "linux" and sys.maxsize > 2**32 else None
    if found is None:
        raise OSError("no asynchronous fdatasync is known for this system")
    return found
