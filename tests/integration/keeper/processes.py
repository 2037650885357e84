"""What the keeper's tests share: waiting, and keepers and workers as processes of their own that can be killed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from gateway.keeper.client import KeeperClient

PEPPER = b"pepper of the tests"
ROOT = Path(__file__).parents[3]

_KEEPER = """
import asyncio, signal, sys
from pathlib import Path
from gateway.keeper.process import run_keeper

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run_keeper(Path(sys.argv[1]), sys.argv[2], bytes.fromhex(sys.argv[3]), stop)

asyncio.run(main())
"""

_WORKER = """
import asyncio, sys
from pathlib import Path
from gateway.keeper.client import KeeperClient
from gateway.types.keys import KeyLimits

async def main():
    client = KeeperClient(Path(sys.argv[1]))
    await client.start()
    limits = KeyLimits(concurrent=int(sys.argv[3]))
    for _ in range(int(sys.argv[3])):
        assert (await client.admit(sys.argv[2], limits, 10)).refused is None
    print("holding", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def url_of(home: Path) -> str:
    """Return the database of the state folder ``home``."""
    return f"sqlite+aiosqlite:///{home / 'weir.db'}"


async def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until ``condition`` holds; fail when it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.01)


class Connect(Protocol):
    """Makes connected clients."""

    def __call__(self, patience: float = 1.0) -> AbstractAsyncContextManager[KeeperClient]:
        """Return a client that is stopped at the end of the block."""


class Processes:
    """Processes of one test; all are gone at its end."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._running: list[subprocess.Popen[str]] = []

    def keeper(self) -> subprocess.Popen[str]:
        """Start a keeper."""
        return self._start(_KEEPER, os.fspath(self._home), url_of(self._home), PEPPER.hex())

    async def worker(self, key_id: str, holds: int) -> subprocess.Popen[str]:
        """Start a worker and return once it holds as many requests of a key as the key may run."""
        process = self._start(_WORKER, os.fspath(self._home), key_id, str(holds))
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "holding\n"
        return process

    def _start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            env=os.environ | {"PYTHONPATH": os.fspath(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process

    def end(self) -> None:
        """Kill what still runs."""
        for process in self._running:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
