"""The environment of the other gateways: `.venv-bench`, made from the lock when missing or outdated.

Made with `uv` where it is installed, else with `venv` and `pip`. A failed installation raises
PeersError and leaves no marker, so the next run tries again.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.contestants.base import PEERS

LOCK: Final = Path(__file__).with_name("requirements.lock")
_MARKER: Final = PEERS / ".lock-sha256"


class PeersError(Exception):
    """The environment of the other gateways cannot be made."""


def is_current() -> bool:
    """Returns whether the environment was made from the lock as it is now."""
    return _MARKER.exists() and _MARKER.read_text() == _digest()


def make() -> None:
    """Makes the environment anew from the lock. Raises PeersError."""
    python = str(PEERS / "bin" / "python")
    if shutil.which("uv"):
        commands = [
            ["uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(PEERS)],
            ["uv", "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", str(LOCK)],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", "--clear", str(PEERS)],
            [python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(LOCK)],
        ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeersError(f"{' '.join(command[:3])} failed:\n{done.stderr[-2000:]}")
    _MARKER.write_text(_digest())


def _digest() -> str:
    """Returns the lock's SHA-256."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()
