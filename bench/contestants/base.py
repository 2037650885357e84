"""What every contestant is: how it is started, when it is ready, where load goes, how it is stopped.

A contestant runs as one process group of its own with its output in a file. One that ends early, or does
not answer a chat completion in time, raises ContestantError with the end of its output. Only processes
started here are ended.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

import httpx

from bench.cpu import cpu_seconds, resident_mb
from bench.load import Target
from bench.payload import chat_body

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout."""

PEERS: Final = ROOT / ".venv-bench"
"""The environment of the other gateways."""

HOST: Final = "127.0.0.1"
_STOP_S: Final = 10.0


class ContestantError(Exception):
    """A contestant that is not installed, does not start, or does not answer."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A command to run and what it needs in its environment besides the common variables."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OffPath:
    """Work off the request's path as a contestant reports it: CPU seconds and records since its start."""

    seconds: float
    records: int


class Contestant(ABC):
    """One gateway in the comparison. Instances hold no state of a run but what `launch` fixed."""

    name: ClassVar[str]
    title: ClassVar[str]
    setup: ClassVar[str]
    """What is switched on, in one sentence for the report."""
    heavy: ClassVar[bool] = False
    """Two orders slower than the rest: gets the smaller load, so that a run ends in time."""
    translates: ClassVar[bool] = False
    """Whether `bench.translation` measures its code."""
    path: ClassVar[str] = "/v1/chat/completions"
    model: ClassVar[str] = "Qwen/Qwen3-32B"
    ready_s: ClassVar[float] = 60.0
    """Seconds it may take to start."""

    @abstractmethod
    def version(self) -> str:
        """Returns the installed version. Raises ContestantError when it is not installed."""

    @abstractmethod
    def launch(self, work: Path, port: int, replicas: Sequence[int]) -> Launch:
        """Writes what it needs into `work`; returns the command that serves `replicas` on `port`."""

    def headers(self) -> Mapping[str, str]:
        """Returns the request headers it wants, such as a key."""
        return {}

    def ready(self, target: Target) -> bool:
        """Returns whether it says that it is ready; most only show it by answering."""
        del target
        return True

    def off_path(self, target: Target) -> OffPath | None:
        """Returns what it reports of its work off the path, or None when it reports none."""
        del target
        return None


class Server:
    """A running contestant; a context manager that starts it, waits until it answers, and stops it."""

    def __init__(self, contestant: Contestant, work: Path, replicas: Sequence[int]) -> None:
        self.contestant = contestant
        self._work = work
        self._replicas = replicas
        self._log = work / "output.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.target = Target(HOST, free_port(), contestant.path, contestant.model, contestant.headers())

    def __enter__(self) -> Self:
        launch = self.contestant.launch(self._work, self.target.port, self._replicas)
        environment = {**_common_environment(), **launch.environment}
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    launch.argv,
                    cwd=self._work,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise ContestantError(f"{self.contestant.name} cannot be started: {error}") from error
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        """The root of its process tree."""
        assert self._process is not None
        return self._process.pid

    def cpu(self) -> float:
        """Returns the CPU seconds its process tree has used."""
        return cpu_seconds(self.pid)

    def memory(self) -> float:
        """Returns the resident memory of its process tree in MB."""
        return resident_mb(self.pid)

    def off_path(self) -> OffPath | None:
        """Returns what it reports of its work off the path."""
        return self.contestant.off_path(self.target)

    def tail(self) -> str:
        """Returns the end of its output, for an error message."""
        return self._log.read_bytes()[-1500:].decode(errors="replace") if self._log.exists() else ""

    def _wait(self) -> None:
        """Waits until a chat completion succeeds three times in a row. Raises ContestantError."""
        assert self._process is not None
        deadline = time.monotonic() + self.contestant.ready_s
        url = f"http://{HOST}:{self.target.port}{self.target.path}"
        headers = {"Content-Type": "application/json", **self.target.headers}
        body = chat_body("json", self.target.model)
        good, seen = 0, "no answer"
        with httpx.Client(timeout=10, trust_env=False) as client:
            while good < 3:
                if self._process.poll() is not None:
                    raise ContestantError(f"{self.contestant.name} ended while starting:\n{self.tail()}")
                if time.monotonic() > deadline:
                    raise ContestantError(f"{self.contestant.name} is not ready: {seen}\n{self.tail()}")
                if not self.contestant.ready(self.target):
                    time.sleep(0.1)
                    continue
                try:
                    answer = client.post(url, content=body, headers=headers)
                    good, seen = (
                        (good + 1 if answer.is_success else 0),
                        f"{answer.status_code} {answer.text[:300]}",
                    )
                except httpx.HTTPError as error:
                    good, seen = 0, repr(error)
                if not good:
                    time.sleep(0.1)

    def _stop(self) -> None:
        """Ends its process group: asks, waits, then insists."""
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                break
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                continue
            if number == signal.SIGTERM:
                # Children of a root that has ended on its own must not outlive it.
                continue
            break
        self._process = None


def free_port() -> int:
    """Returns a port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def _common_environment() -> dict[str, str]:
    """Returns the variables every contestant gets: no proxies, no keys of the caller, no colours."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "NO_COLOR": "1", "NO_PROXY": "*"}


def distribution_version(environment: Path, distribution: str) -> str:
    """Returns the version of a distribution in a virtual environment.

    Raises ContestantError when it is missing.
    """
    prefix = distribution.replace("-", "_").lower() + "-"
    for info in environment.glob("lib/python*/site-packages/*.dist-info"):
        if info.name.lower().startswith(prefix):
            return info.name[len(prefix) : -len(".dist-info")]
    raise ContestantError(f"{distribution} is not installed in {environment.name}")
