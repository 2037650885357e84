"""Keeps the running configuration equal to its files.

The files are looked at once a second, or loaded at once by ``reload``. A file is loaded in a thread and
checked whole; only a good one replaces the snapshot. A bad one leaves it in place, is logged and reported
once, and stays in ``last_error`` until a good one comes. The loop survives every error of its callbacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from gateway.beat import paused
from gateway.config.load import load
from gateway.config.problem import ConfigError
from gateway.config.snapshot import ConfigSnapshot
from gateway.config.source import SourceFile
from gateway.telemetry import logs

_log = logs.logger(__name__)


class ConfigWatcher:
    """Watches one configuration file and the secret files it refers to.

    Attributes:
        current: the snapshot that is in force.
        last_error: why the newest file was refused, or None when it is in force.
    """

    def __init__(
        self,
        path: str | Path,
        current: ConfigSnapshot,
        *,
        presets: Collection[str],
        on_change: Callable[[ConfigSnapshot], None],
        on_problem: Callable[[ConfigError], None] | None = None,
        environ: Mapping[str, str] | None = None,
        interval: float = 1.0,
        settle: float = 0.2,
    ) -> None:
        """Watch the file ``path``, of which ``current`` was loaded.

        Args:
            path: the file.
            current: the snapshot in force.
            presets: names that ``routing.default`` may take.
            on_change: called on the event loop with each new snapshot, before it becomes ``current``.
            on_problem: called on the event loop with each refusal.
            environ: what ``${NAME}`` refers to; the environment of the process when it is None.
            interval: seconds between two looks.
            settle: seconds a changed file must stay as it is, so that no half-written one is loaded.
        """
        self.current = current
        self.last_error: ConfigError | None = None
        self._path = path
        self._presets = presets
        self._environ = environ
        self._on_change = on_change
        self._on_problem = on_problem
        self._interval = interval
        self._settle = settle
        self._sources: tuple[SourceFile, ...] = current.sources
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(paused(self._interval))
            try:
                await self._look()
            except Exception:  # noqa: BLE001 - a failing callback must not end the watch
                _log.exception("config.watch_failed", file=str(self._path))

    async def reload(self) -> bool:
        """Load the file now and return whether it is in force, be it new or what was in force already.

        Raises whatever ``on_change`` or ``on_problem`` raise; the snapshot then stays as it was.
        """
        async with self._lock:
            try:
                found = await asyncio.to_thread(self._load)
            except ConfigError as error:
                self._refuse(error)
                return False
            self._sources = found.sources
            self._accept(found)
            return True

    async def _look(self) -> None:
        seen = _states(self._sources)
        if seen == list(self._sources):
            return
        await asyncio.sleep(self._settle)
        if _states(self._sources) == seen:
            await self.reload()

    def _load(self) -> ConfigSnapshot:
        version = self.current.version + 1
        return load(self._path, presets=self._presets, environ=self._environ, version=version)

    def _accept(self, found: ConfigSnapshot) -> None:
        if found != self.current:
            self._on_change(found)
            self.current = found
            _log.info("config.changed", file=str(self._path), version=found.version, digest=found.digest)
        self.last_error = None

    def _refuse(self, error: ConfigError) -> None:
        self._sources = error.sources
        self.last_error = error
        problems = [problem.render() for problem in error.problems]
        _log.error("config.refused", file=str(self._path), problems=problems, kept=self.current.version)
        if self._on_problem is not None:
            self._on_problem(error)


def _states(sources: Sequence[SourceFile]) -> list[SourceFile]:
    return [SourceFile.look(source.path) for source in sources]
