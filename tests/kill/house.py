"""A gateway of real processes with failpoints in them: starting, killing and starting it anew, on one state folder."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from random import Random
from typing import Final

import httpx

from tests.e2e.processes import ADMIN_KEY, KEY, PATIENCE, Process, WeirProcess, environment, presently
from tests.harness import NO_TLS, Backend, configuration
from tests.kill.books import PRICE
from tests.kill.engine import MODEL
from tests.kill.failpoints import Points

FIRES_WITHIN_S: Final = 3.0
"""Seconds after which a point that nobody came by is given up for another way to die."""


class Launched(WeirProcess):
    """``weir serve`` with failpoints."""

    def __init__(self, home: Path, config: Path, workers: int, more: dict[str, str]) -> None:
        self.home = home
        self.config = config
        known = {"WEIR_DEMO_KEY": KEY, "WEIR_ADMIN_KEY": ADMIN_KEY, "WEIR_CONFIG": os.fspath(config)}
        self.environ = environment(home, **known | more)
        command = [sys.executable, "-m", "tests.kill.launch", "serve", "--port=0", f"--workers={workers}"]
        Process.__init__(self, command, self.environ)


class House:
    """One state folder and whatever process serves it now.

    Attributes:
        home: the state folder.
        kills: processes that died of SIGKILL.
        points: by which points, and how often.
        process: what serves now.
    """

    def __init__(
        self, folder: Path, urls: list[str], *, workers: int, durability: str = "disk", database_url: str = ""
    ) -> None:
        self.home = folder / "home"
        self.workers = workers
        self.kills = 0
        self.points: dict[str, int] = {}
        self.archive = folder / "archive"
        self.failpoints = Points(folder / "points")
        for each in (self.home, self.archive, self.failpoints.folder, self.journal):
            each.mkdir(parents=True, exist_ok=True)
        self._config = folder / "weir.yaml"
        self._config.write_text(_configuration(urls))
        self._more = {
            "KILL_POINTS": str(self.failpoints.folder),
            "KILL_ARCHIVE": str(self.archive),
            "WEIR_DURABILITY": durability,
        }
        if database_url:
            self._more["WEIR_DATABASE_URL"] = database_url
        self.database_url = database_url or f"sqlite+aiosqlite:///{self.home / 'weir.db'}"
        self.process: Launched

    @property
    def journal(self) -> Path:
        """Where the journal is."""
        return self.home / "journal"

    async def start(self) -> int:
        """Start a process, anew when it dies of a point that is armed; return the port it serves."""
        while True:
            self.process = Launched(self.home, self._config, self.workers, self._more)
            await presently(lambda: self.process.status is not None or "serves http" in self.process.output)
            if self.process.status is None and await self._ready():
                return int(self.process.url.rpartition(":")[2])
            assert self.process.ended() == -signal.SIGKILL, self.process.output
            self.process.close()
            self._count("while-recovering")

    async def _ready(self) -> bool:
        """Wait until requests are taken; return False when the process died instead."""
        async with httpx.AsyncClient(verify=NO_TLS, base_url=self.process.url, timeout=PATIENCE) as http:
            while self.process.status is None:
                try:
                    if (await http.get("/ready")).status_code == 200:
                        return True
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.02)
        return False

    async def kill(self, point: str, chance: Random) -> None:
        """Kill a process at ``point``; at a random moment when it is "random", or when nobody comes by it."""
        if point == "random":
            await asyncio.sleep(chance.random() / 10)
        else:
            self.failpoints.arm(point)
            if await self._fires(point):
                await self._died(point)
                return
        victim = self._victim(chance)
        if victim:
            os.kill(victim, signal.SIGKILL)
            await self._died("random")

    async def _fires(self, point: str) -> bool:
        for _ in range(int(FIRES_WITHIN_S / 0.01)):
            if not (self.failpoints.folder / point).exists():
                return True
            await asyncio.sleep(0.01)
        return not self.failpoints.disarm(point)

    async def _died(self, point: str) -> None:
        """Wait until the death is noticed, by us or by the supervisor."""
        self._count(point)
        if self.workers == 1:
            await presently(lambda: self.process.status is not None)
        else:
            await presently(lambda: self._noticed() >= self.kills)

    def _noticed(self) -> int:
        """Return how many processes the supervisor saw die of SIGKILL."""
        return sum(event["status"] == -signal.SIGKILL for event in self.process.events("process died"))

    def _count(self, point: str) -> None:
        self.kills += 1
        self.points[point] = self.points.get(point, 0) + 1

    def _victim(self, chance: Random) -> int:
        """Return the process id of somebody who lives, 0 when nobody is known to."""
        if self.workers == 1:
            return self.process.pid
        dead = {event["pid"] for event in self.process.events("process died")}
        keepers = [event["pid"] for event in self.process.events("keeper started")]
        living = [pid for pid in [*self.process.workers, *keepers] if pid not in dead]
        return chance.choice(living) if living else 0

    async def restart(self, point: str = "") -> int:
        """Start the only process anew after its death, which may die of ``point`` meanwhile; return its port."""
        assert self.process.ended() == -signal.SIGKILL, self.process.output
        self.process.close()
        if point:
            self.failpoints.arm(point)
        kills, port = self.kills, await self.start()
        if point and not self.failpoints.disarm(point) and self.kills == kills:
            await self._died("while-recovering")
            return await self.restart()
        return port

    async def stop(self) -> None:
        """Let it end in order."""
        status = await asyncio.to_thread(self.process.stop)
        assert status == 0, self.process.output
        assert await asyncio.to_thread(self.process.left_nothing)

    def complaints(self) -> list[str]:
        """Return lines of the newest process that speak of a defect."""
        return [line for line in self.process.lines if "Traceback" in line]


def _configuration(urls: list[str]) -> str:
    price = ", ".join(f'{name}: "{usd}"' for name, usd in PRICE.items())
    lines = [f"  - id: {MODEL}", "    context_length: 40960", f"    price: {{{price}}}", "    endpoints:"]
    backends = [Backend(f"engine-{number}", url) for number, url in enumerate(urls)]
    lines += [f"      - {{backend: {backend.name}, model: m}}" for backend in backends]
    return configuration(backends, models="\n".join(lines))
