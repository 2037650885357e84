"""What the end-to-end tests share: `weir` as real processes, simulated backends on a thread, and running a command.

No process outlives its test: each is started in a session of its own, whose members are killed at the end, by a guard
when the test run itself was killed. Its output is a pipe that all its children inherit, so the end of the output means
that none of them is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TypeVar

import httpx
import pytest

from gateway.sim import Fault, SimConfig, SimFleet
from tests.fakes import forks
from tests.fakes.ledgers import furnish
from tests.harness import NO_TLS, Backend, configuration

ROOT: Final = Path(__file__).parents[2]
WEIR: Final = Path(sys.executable).with_name("weir")
KEY: Final = "sk-weir-e2etests-" + "0123456789abcdef" * 3
ADMIN_KEY: Final = "management-key-of-the-end-to-end-tests"
AUTHORIZED: Final = {"authorization": f"Bearer {KEY}"}
MANAGING: Final = {"authorization": f"Bearer {ADMIN_KEY}"}
MODEL: Final = """\
  - id: qwen/qwen3-32b
    context_length: 40960
    price: {prompt: "0.10", completion: "0.30", cache_read: "0.02"}
    endpoints:
"""
PATIENCE: Final = 60.0
"""Seconds after which something that should happen at once counts as not happening, on a machine that is busy."""
_POLL: Final = 0.02
_RUN: Final[set[tuple[str, ...]]] = set()
"""The first two words of each command that was run."""
_GUARD: Final = 'read -r end || kill -s KILL -- "-$1"'
"""A shell that kills a session when its standard input ends without a word, as it does when whoever holds it dies."""

T = TypeVar("T")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a command: ours without anything that configures Weir or make, then ``more``."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WEIR_", "OTEL_", "MAKE")) and name not in {"MFLAGS", "PORT"}
    }
    return ours | {"WEIR_HOME": os.fspath(home)} | more


def tool(name: str) -> str:
    """Return the path of a program that is no Python package; without it skip the test, or fail it when CI=true."""
    path = shutil.which(name)
    if path is None:
        mend = f"{name} is missing: apt-get install {name}"
        assert os.environ.get("CI") != "true", mend
        pytest.skip(mend)
    return path


def run(
    command: Sequence[str | Path], environ: Mapping[str, str], *, cwd: Path = ROOT, seconds: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; whatever happens it prints no traceback.

    Each command of Weir is started as an operator does the first time; after that it is forked, which takes a quarter
    of the time, or a tenth.
    """
    if command[0] == WEIR and _known(command[1:]):
        done = forks.weir(command[1:], environ, cwd, seconds)
    else:
        done = subprocess.run(
            command,
            env=environ,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done


def _known(arguments: Sequence[str | Path]) -> bool:
    """Return whether the command was run before; with one worker and with several are two commands."""
    words = [str(word) for word in arguments]
    name = (words[0], str("--workers" in words)) if words[0] == "serve" else tuple(words[:2])
    before = name in _RUN
    _RUN.add(name)
    return before


def _started(
    command: Sequence[str | Path], environ: Mapping[str, str], cwd: Path
) -> subprocess.Popen[str] | forks.Server:
    """Start a command in a session of its own, with one pipe for all it says; see ``run``."""
    if command[0] == WEIR and _known(command[1:]):
        return forks.Server(command[1:], environ, cwd)
    return subprocess.Popen(
        command,
        env=environ,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def eventually(look: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """Return what ``look`` returns once it is neither None nor False; fail when that does not happen in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(_POLL)


async def presently(look: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """As ``eventually``, while the event loop goes on; ``look`` must not block for long."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(_POLL)


class Process:
    """A command that runs, with what it and its children say.

    Attributes:
        all: every one of this test run, oldest first; a test that fails shows what the newest said.
        lines: what was said.
    """

    all: ClassVar[list[Process]] = []

    def __init__(self, command: Sequence[str | Path], environ: Mapping[str, str], *, cwd: Path = ROOT) -> None:
        self.command = " ".join(map(str, command))
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._popen = _started(command, environ, cwd)
        guard = ["sh", "-c", _GUARD, "guard", str(self._popen.pid)]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, text=True, start_new_session=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.all.append(self)

    @property
    def pid(self) -> int:
        """Process id of the command itself."""
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """Exit status of the command; None while it runs."""
        return self._popen.poll()

    @property
    def output(self) -> str:
        """What was said so far."""
        return "".join(self.lines)

    def find(self, pattern: str, seconds: float = PATIENCE) -> str:
        """Wait for a line that matches ``pattern`` and return its first group."""
        deadline = time.monotonic() + seconds
        seen = 0
        with self._changed:
            while True:
                for line in self.lines[seen:]:
                    found = re.search(pattern, line)
                    if found:
                        return found.group(1)
                seen = len(self.lines)
                left = deadline - time.monotonic()
                assert not self._ended, f"{self.command} ended without saying {pattern!r}:\n{self.output}"
                assert left > 0, f"{self.command} did not say {pattern!r} in time:\n{self.output}"
                self._changed.wait(left)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log's events of that name."""
        found = []
        for line in self.lines[:]:
            if line.startswith("{"):
                event = json.loads(line)
                if event.get("event") == name:
                    found.append(event)
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command itself."""
        self._popen.send_signal(number)

    def ended(self, seconds: float = PATIENCE) -> int:
        """Wait for the end of the command and return its exit status."""
        return self._popen.wait(seconds)

    def left_nothing(self, seconds: float = PATIENCE) -> bool:
        """Wait until no process that came from the command is left; return whether that is so."""
        self._reader.join(seconds)
        return not self._reader.is_alive()

    def stop(self) -> int:
        """Ask the command to end, and return its exit status."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def close(self) -> None:
        """Kill what is left."""
        if self._popen.poll() is None or self._reader.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self._guard.communicate("end\n")
        self._reader.join(PATIENCE)
        assert self._popen.stdout is not None
        self._popen.stdout.close()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WeirProcess(Process):
    """``weir serve`` on a free port, over a ledger of this version: the start of another is for tests of its own.

    Attributes:
        home: its state folder.
        config: its configuration file.
    """

    def __init__(self, home: Path, config: Path, *, workers: int = 1, **environ: str) -> None:
        known = {"WEIR_DEMO_KEY": KEY, "WEIR_ADMIN_KEY": ADMIN_KEY, "WEIR_CONFIG": os.fspath(config)}
        self.home = home
        self.config = config
        self.environ = environment(home, **known | environ)
        if "WEIR_DATABASE_URL" not in environ:
            furnish(home)
        several = ["--workers", str(workers)] if workers > 1 else []
        super().__init__([WEIR, "serve", "--port", "0", *several], self.environ)

    @property
    def url(self) -> str:
        """Its root, once it has been said."""
        return self.find(r"serves (http://\S+)")

    def ready(self) -> Self:
        """Wait until it takes requests."""
        with httpx.Client(verify=NO_TLS, base_url=self.url) as http:

            def is_ready() -> bool:
                assert self.status is None, self.output
                try:
                    return http.get("/ready", timeout=5.0).status_code == 200
                except httpx.TransportError:
                    return False

            eventually(is_ready)
        return self

    def weir(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the environment of this process."""
        return run([WEIR, *arguments], self.environ | environ)

    def audit(self) -> dict[str, Any]:
        """Return what ``weir meter audit --json`` says; it must be that all books agree."""
        done = self.weir("meter", "audit", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        assert report["ok"], report
        return report

    # With several workers

    @property
    def keeper(self) -> int:
        """Process id of the keeper that started last."""
        eventually(lambda: bool(self.events("keeper started")))
        return int(self.events("keeper started")[-1]["pid"])

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers that live, oldest first."""
        dead = {event["pid"] for event in self.events("process died")}
        return [event["pid"] for event in self.events("worker started") if event["pid"] not in dead]

    @asynccontextmanager
    async def client_of(self, worker: int) -> AsyncIterator[httpx.AsyncClient]:
        """Give the block a client whose one connection is to ``worker``: the others are stopped while it is made."""
        others = [pid for pid in self.workers if pid != worker]
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)
        async with httpx.AsyncClient(base_url=self.url, verify=NO_TLS, timeout=PATIENCE, limits=limits) as http:
            for pid in others:
                os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(0.05)
                assert (await http.get("/health")).status_code == 200
            finally:
                for pid in others:
                    os.kill(pid, signal.SIGCONT)
            yield http


class Simulators:
    """Simulated backends on an event loop of their own, so that a test that waits does not stop them."""

    def __init__(self, *configs: SimConfig) -> None:
        self.configs = configs
        self._fleet = SimFleet(configs)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._up: Future[None] = Future()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._up.result(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _serve(self) -> None:
        async with self._fleet:
            self._up.set_result(None)
            await self._stop.wait()

    @property
    def urls(self) -> Mapping[str, str]:
        """Where they are, by name."""
        return self._fleet.urls

    def configuration(self) -> str:
        """Return a configuration file with one model, for text alone, over all of them."""
        backends = [Backend(sim.config.name, sim.url, sim.config.kind) for sim in self._fleet]
        endpoints = "\n".join(f"      - {{backend: {name}, model: Qwen/Qwen3-32B}}" for name in self._fleet.urls)
        return configuration(backends, models=MODEL + endpoints)

    def books(self) -> dict[str, dict[str, Any]]:
        """Return every generation request they saw by the id the gateway gave it; no request came twice."""
        entries: list[dict[str, Any]] = self._call(
            lambda: [entry.document() for sim in self._fleet for entry in sim.books]
        )
        books = {entry["headers"]["x-request-id"]: entry for entry in entries}
        assert len(books) == len(entries)
        return books

    def arm(self, name: str, fault: Fault) -> None:
        """Break something in one of them."""
        self._call(lambda: self._fleet[name].faults.arm(fault))

    def _call(self, function: Callable[[], T]) -> T:
        async def carry_out() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(carry_out(), self._loop).result(PATIENCE)
