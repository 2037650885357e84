"""How long pages take in a real ``weir serve``, seen by a client in another process.

Visits are those of somebody who works with the console: every page in turn over one kept connection, round after round
while requests come in every second, so that today's figures change between any two visits. The process keeps what it
keeps in production. A round begins ``APART_S`` seconds after the last one at the earliest, which is longer than pages
keep a board or a sum that may have changed, so each visit but those to what never changes asks the books anew.

The first round meets a process that has just started and showed its sign-in page for ``SIGNING_IN_S`` seconds, about
what somebody takes to sign in. It is told apart, because it happens once.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import urlsplit

import httpx

from tests.e2e.processes import AUTHORIZED, Simulators, WeirProcess
from tests.harness import NO_TLS, SECRET
from tests.ui.house import SIM_KEY, configuration, simulated

ROUNDS: Final = 20
APART_S: Final = 10.0
SIGNING_IN_S: Final = 8.0
_BODY: Final = {"model": "qwen/qwen3-32b", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
Place = tuple[str, str]


@dataclass(slots=True)
class Visits:
    """What the visits of one page took, in milliseconds.

    Attributes:
        cold, cold_cpu: the first one after the process started, and the CPU time of the process meanwhile.
        times: of the others, from the first byte sent to the last one read.
        cpus: CPU time of the gateway's process meanwhile, all of its threads and the trickle of requests.
        sent: bytes of the page as a browser gets it.
    """

    cold: float = 0.0
    cold_cpu: float = 0.0
    times: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    sent: int = 0

    def told(self) -> dict[str, float | int]:
        """Return the figures of ``pages.json``."""
        if not self.times:
            return {"cold_ms": round(self.cold, 1), "cold_cpu_ms": round(self.cold_cpu, 1)}
        worst = sorted(self.times)[max(0, round(len(self.times) * 0.95) - 1)]
        return {
            "p95_ms": round(worst, 1),
            "p50_ms": round(median(self.times), 1),
            "cold_ms": round(self.cold, 1),
            "cold_cpu_ms": round(self.cold_cpu, 1),
            "cpu_ms": round(median(self.cpus), 1),
            "sent_bytes": self.sent,
        }


class Visitor:
    """Somebody with a browser's kept connection."""

    def __init__(self, url: str, pid: int, tokens: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self._tasks = Path(f"/proc/{pid}/task")
        self._tokens = tokens

    def visit(self, role: str, path: str) -> tuple[float, float, int]:
        """Return milliseconds, CPU milliseconds of the gateway, and bytes sent for one visit."""
        headers = {"accept-encoding": "gzip"} | ({"cookie": f"weir_session={self._tokens[role]}"} if role else {})
        used, began = self._cpu(), time.perf_counter()
        self._connection.request("GET", path, headers=headers)
        answer = self._connection.getresponse()
        body = answer.read()
        took = (time.perf_counter() - began) * 1_000
        return took, self._cpu() - used, len(body)

    def _cpu(self) -> float:
        """Return the CPU time of the gateway so far, in milliseconds, as Linux counts it for each thread."""
        spent = 0
        for task in self._tasks.iterdir():
            try:
                spent += int((task / "schedstat").read_text().split()[0])
            except OSError:  # a thread that has just ended
                continue
        return spent / 1e6


@contextmanager
def running(home: Path, *, loaded: bool) -> Iterator[WeirProcess]:
    """Run ``weir serve`` in a folder that a house was opened in before, with the same simulated backends."""
    with Simulators(*simulated(loaded=loaded)) as sims:
        config = home / "weir.yaml"
        config.write_text(configuration(home, sims.urls, loaded=loaded))
        with WeirProcess(home, config, WEIR_SECRET=SECRET, WEIR_SIM_DEMO_KEY=SIM_KEY) as process:
            yield process.ready()
            process.stop()


@contextmanager
def trickle(url: str) -> Iterator[None]:
    """Send a request every second while the block runs."""
    stop = threading.Event()

    def work() -> None:
        with httpx.Client(base_url=url, headers=AUTHORIZED, verify=NO_TLS, timeout=30.0) as http:
            while not stop.wait(1.0):
                http.post("/v1/chat/completions", json=_BODY)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)


def timed(
    home: Path, places: Sequence[Place], tokens: Mapping[str, str], *, loaded: bool, rounds: int = ROUNDS
) -> tuple[dict[Place, Visits], float]:
    """Visit ``places`` for ``rounds`` rounds after a first one.

    Returns:
        The visits of each place, and what the very first page took, the imports of the process included.
    """
    found = {place: Visits() for place in places}
    with running(home, loaded=loaded) as process, trickle(process.url):
        visitor = Visitor(process.url, process.pid, tokens)
        first, _, _ = visitor.visit("", "/console/sign-in")
        time.sleep(SIGNING_IN_S)
        for number in range(rounds + 1):
            began = time.monotonic()
            for place, visits in found.items():
                took, cpu, visits.sent = visitor.visit(*place)
                if number == 0:
                    visits.cold, visits.cold_cpu = took, cpu
                else:
                    visits.times.append(took)
                    visits.cpus.append(cpu)
            if number < rounds:
                time.sleep(max(0.0, APART_S - (time.monotonic() - began)))
    return found, first
