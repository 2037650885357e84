"""Facts of the machine and the versions a run used, for the report.

What cannot be found out says "unknown".
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from pathlib import Path

from bench.contestants.base import ROOT
from bench.figures import percentile
from bench.load import wrk_path
from gateway.diagnosis import is_optimised

_UNKNOWN = "unknown"


def _first_match(path: str, pattern: str) -> str:
    """Returns the first group of `pattern` in a file."""
    try:
        found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return _UNKNOWN
    return found[1].strip() if found else _UNKNOWN


def machine(work: Path) -> dict[str, object]:
    """Returns processor, cores, memory, system, load before the run, and the disk that `work` is on."""
    memory = _first_match("/proc/meminfo", r"^MemTotal:\s+(\d+)")
    return {
        "processor": _first_match("/proc/cpuinfo", r"^model name\s*:(.*)$"),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory) * 1024 / 1e9, 1) if memory.isdigit() else _UNKNOWN,
        "system": _first_match("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)'),
        "kernel": platform.release(),
        "file_system": file_system(work, Path("/proc/self/mounts").read_text()),
        "fdatasync_us": round(fdatasync_us(work)),
        "load_before": round(os.getloadavg()[0], 2),
    }


def file_system(path: Path, mounts: str) -> str:
    """Returns the type of the file system `path` is on; `mounts` is the text of `/proc/self/mounts`."""
    best, kind = "", _UNKNOWN
    for line in mounts.splitlines():
        _, point, found, *_ = line.split()
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def fdatasync_us(work: Path, times: int = 50) -> float:
    """Returns the median microseconds of appending 256 bytes and `fdatasync`: what durability costs here."""
    path = work / "fdatasync.probe"
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            begun = time.perf_counter()
            file.write(b"x" * 256)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begun)
    path.unlink()
    return percentile(taken, 0.5) * 1e6


def versions() -> dict[str, str]:
    """Returns the versions of what measures, and Weir's commit."""
    return {
        "python": platform.python_version() + ("" if is_optimised() else ", built without optimisations"),
        "uvloop": importlib.metadata.version("uvloop"),
        "wrk": _wrk_version(),
        "commit": _commit(),
    }


def _wrk_version() -> str:
    """Returns wrk's version."""
    seen = subprocess.run([wrk_path(), "-v"], capture_output=True, text=True, check=False)
    words = (seen.stdout + seen.stderr).split()
    return words[1] if len(words) > 1 else _UNKNOWN


def _commit() -> str:
    """Returns the short commit id of the checkout, with a mark when files differ from it."""
    try:
        head = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
        dirty = subprocess.run(
            ["git", "-C", str(ROOT), "status", "--porcelain"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return _UNKNOWN
    return head.stdout.strip() + (" with changes" if dirty.stdout.strip() else "")
