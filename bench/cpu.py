"""CPU time and memory of a process tree, from `/proc` and its CPU clocks: what a contestant costs.

CPU is user plus system time of every living process of the tree (threads included) plus what its ended and
reaped children used, so the sum never falls while the root lives. Memory is the sum of resident sets; pages
that processes share count once for each, which can only overstate. A process that ends while it is read is
left out. Linux only; a root that is gone raises ProcessLookupError.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_STATE, _PPID, _UTIME, _STIME, _CUTIME, _CSTIME = 0, 1, 11, 12, 13, 14
"""Positions in `/proc/PID/stat` after the command name; see proc(5)."""


def stat_fields(text: str) -> list[str]:
    """Returns the fields of a `/proc/PID/stat` line after the command name (which may hold anything)."""
    return text[text.rindex(")") + 2 :].split()


def _stat(pid: int) -> list[str] | None:
    """Returns the fields of one process, or None when it is gone or a zombie without a parent's interest."""
    try:
        return stat_fields((_PROC / str(pid) / "stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def tree(root: int) -> list[int]:
    """Returns the ids of `root` and all its living descendants.

    Raises ProcessLookupError when the root is gone.
    """
    children: defaultdict[int, list[int]] = defaultdict(list)
    alive = set()
    for pid in _pids():
        fields = _stat(pid)
        if fields is not None and fields[_STATE] != "Z":
            children[int(fields[_PPID])].append(pid)
            alive.add(pid)
    if root not in alive:
        raise ProcessLookupError(f"process {root} is gone")
    found = [root]
    for pid in found:
        found.extend(children[pid])
    return found


def _pids() -> Iterator[int]:
    """Yields the ids of all processes."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def cpu_seconds(root: int) -> float:
    """Returns the user and system CPU seconds the tree has used since its start."""
    return sum(_own_seconds(pid) for pid in tree(root))


def _own_seconds(pid: int) -> float:
    """Returns the CPU seconds of one process and of its reaped children; 0 when it is gone."""
    fields = _stat(pid)
    if fields is None:
        return 0.0
    reaped = (int(fields[_CUTIME]) + int(fields[_CSTIME])) / _TICKS_PER_S
    try:
        return time.clock_gettime(_cpu_clock(pid)) + reaped
    except OSError:
        return (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS_PER_S + reaped


def _cpu_clock(pid: int) -> int:
    """Returns the id of a process's CPU clock, as clock_getcpuclockid(3) makes it on Linux.

    It counts what `/proc/PID/stat` counts, user and system time of all threads, in nanoseconds, not ticks.
    """
    return ((~pid) << 3) | 2


def resident_mb(root: int) -> float:
    """Returns the resident memory of the tree in MB (10^6 bytes)."""
    return sum(_resident_bytes(pid) for pid in tree(root)) / 1e6


def _resident_bytes(pid: int) -> int:
    """Returns the resident set of one process: exact from smaps_rollup, else as status has it."""
    for name, key in (("smaps_rollup", "Rss:"), ("status", "VmRSS:")):
        try:
            text = (_PROC / str(pid) / name).read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        for line in text.splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return 0
