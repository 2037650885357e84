"""The kinds of process Weir runs as: everything in one, a worker, a keeper.

Each function here is one process from start to end, and imports what that kind of process needs: FastAPI and uvicorn
are for workers, SQLAlchemy is for keepers. Errors of starting are ``StartError`` with a sentence for the operator;
everything later is logged.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import uvloop

from gateway.access.declared import file_budgets
from gateway.access.management import obtain_admin_digest
from gateway.app import Gateway, Identity, conceal_keys, presets
from gateway.config.load import load
from gateway.config.problem import ConfigError
from gateway.config.snapshot import ConfigSnapshot
from gateway.config.source import SourceFile
from gateway.config.watcher import ConfigWatcher
from gateway.keeper.address import KeeperError
from gateway.keeper.client import KeeperClient
from gateway.keeper.extras import Extras
from gateway.keeper.process import serving
from gateway.pulse import Pulse
from gateway.routing.registry import PresetError
from gateway.settings import Settings, SettingsError
from gateway.telemetry import logs
from gateway.types.budgets import FILE_BUDGETS
from gateway.types.errors import WeirError
from gateway.types.keys import NewKey

if TYPE_CHECKING:
    from gateway.keeper.service import Keeper

KEEPER_PATIENCE: Final = 30.0
"""Seconds a worker waits for its keeper at the start."""
DEMO_KEY: Final = "demo.key"
"""File in the state folder with the inference key of the demo."""
_log: Final = logs.logger(__name__)


class StartError(Exception):
    """The process cannot start; the message says why and what would mend it."""


@dataclass(frozen=True, slots=True)
class Startup:
    """What a process starts with.

    Attributes:
        settings: from the environment, with a configuration file.
        snapshot: the checked configuration.
        identity: the secret and the management key's digest.
        new_admin_key: the management key when it was made just now, to be shown once.
    """

    settings: Settings
    snapshot: ConfigSnapshot
    identity: Identity
    new_admin_key: str | None


def prepare(settings: Settings) -> Startup:
    """Read and check everything a serving process needs. Raises ``StartError``."""
    if settings.config is None:
        raise StartError("no configuration: set WEIR_CONFIG or give --config FILE; `weir demo` needs none")
    try:
        snapshot = load(settings.config, presets=presets())
        pepper = settings.obtain_secret().get_secret_value().encode()
        admin = settings.admin_key.get_secret_value() if settings.admin_key is not None else None
        digest, made = obtain_admin_digest(settings.home, pepper, admin)
        conceal_keys(snapshot)
    except (ConfigError, PresetError, SettingsError, ValueError, OSError) as error:
        raise StartError(str(error)) from error
    return Startup(settings, snapshot, Identity(pepper, digest), made)


class Standing:
    """What children of a supervisor start with: the configuration that was good last, for as long as the file is bad.

    Args:
        startup: what the supervisor itself has read.
        read: reads everything anew; raises ``StartError``.
    """

    def __init__(self, startup: Startup, read: Callable[[], Startup]) -> None:
        self._startup = startup
        self._read = read
        self._sources = startup.snapshot.sources

    def look(self, *, asked: bool = False) -> None:
        """Read the file if it has changed since the last look, or if ``asked`` to; a bad one changes nothing."""
        seen = tuple(SourceFile.look(source.path) for source in self._sources)
        if seen == self._sources and not asked:
            return
        try:
            self._startup = self._read()
            self._sources = self._startup.snapshot.sources
        except (StartError, SettingsError) as error:
            cause = error.__cause__
            self._sources = cause.sources if isinstance(cause, ConfigError) else seen

    def startup(self) -> Startup:
        """Return what to start with: as it is now, or with what was good last. Raises ``StartError``."""
        try:
            return self._read()
        except StartError as error:
            if not isinstance(error.__cause__, ConfigError):
                raise
            _log.error("the configuration is refused, what was in force before stays", reason=str(error))
            return self._startup


Beside = Callable[["Keeper"], Coroutine[Any, Any, None]]
"""Work that goes on beside a gateway that serves; it is cancelled when that ends, and raises nothing."""


def serve_alone(
    startup: Startup, listener: socket.socket, started: Callable[[], None], beside: Beside | None = None
) -> int:
    """Run worker and keeper in this process; return the exit status. Raises ``StartError`` or ``WeirError``."""
    from gateway.keeper.figures import bind_budgets, bind_offices, bind_shipper  # noqa: PLC0415 - see above
    from gateway.serving import serve  # noqa: PLC0415 - see above

    async def main() -> bool:
        settings = startup.settings
        config = _Config(startup.snapshot)
        async with _kept(startup, config) as keeper:
            await _bootstrap(keeper, startup)
            gateway = Gateway(settings, startup.snapshot, keeper, startup.identity)
            config.read = lambda: gateway.snapshot
            bind_shipper(gateway.metrics, keeper.shipper)
            bind_budgets(gateway.metrics, keeper.budget_figures)
            bind_offices(gateway.metrics, keeper.offices)
            task = asyncio.create_task(beside(keeper)) if beside is not None else None
            try:
                return await serve(gateway, listener, started=started)
            finally:
                if task is not None:
                    task.cancel()
                    await asyncio.wait([task])

    return 0 if uvloop.run(main()) else 1


def serve_worker(startup: Startup, listener: socket.socket, workers: int, pulse: Pulse) -> int:
    """Run one of ``workers`` workers on a socket that all of them have; return the exit status."""
    from gateway.serving import serve  # noqa: PLC0415 - see above

    async def main() -> bool:
        async with _client(startup.settings) as client:
            settings, snapshot, identity = startup.settings, startup.snapshot, startup.identity
            gateway = Gateway(settings, snapshot, client, identity, workers=workers, peers=client.share_metrics)
            return await serve(
                gateway, listener, started=lambda: _log.info("worker started", pid=os.getpid()), alone=False
            )

    return _run(main, pulse)


def serve_keeper(startup: Startup, pulse: Pulse) -> int:
    """Run the keeper of several workers; return the exit status."""

    async def main() -> bool:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, stop.set)
        config = _Config(startup.snapshot)
        async with _kept(startup, config) as keeper, _watching(startup, config):
            # Only now: one that comes while the keeper starts ends it at once, for there is nothing to finish.
            loop.add_signal_handler(signal.SIGTERM, stop.set)
            await _bootstrap(keeper, startup)
            _log.info("keeper started", pid=os.getpid())
            await stop.wait()
            await _outlive(keeper, startup.settings.grace + 5.0)
        return True

    return _run(main, pulse)


class _Config:
    """The configuration that a keeper works with; called, it returns that of now.

    Attributes:
        read: where that of now is found.
    """

    def __init__(self, snapshot: ConfigSnapshot) -> None:
        self.read: Callable[[], ConfigSnapshot] = lambda: snapshot

    def __call__(self) -> ConfigSnapshot:
        return self.read()


@asynccontextmanager
async def _watching(startup: Startup, config: _Config) -> AsyncIterator[None]:
    """Keep ``config`` equal to the file, which is read again on change and on SIGHUP, while the block runs."""
    path = startup.settings.config
    assert path is not None, "prepare refuses to start without one"
    watcher = ConfigWatcher(path, startup.snapshot, presets=presets(), on_change=conceal_keys)
    config.read = lambda: watcher.current
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[Any]] = {loop.create_task(watcher.run())}

    def reload() -> None:
        task = loop.create_task(watcher.reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one that came during the start comes now
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@asynccontextmanager
async def _kept(startup: Startup, config: _Config) -> AsyncIterator[Keeper]:
    settings = startup.settings
    try:
        url = settings.ledger_url.get_secret_value()
        pepper = startup.identity.pepper
        extras = extras_of(settings)
        async with serving(settings.home, url, pepper, lasting=True, config=config, extras=extras) as keeper:
            yield keeper
    except KeeperError as error:
        raise StartError(str(error)) from error


@asynccontextmanager
async def _client(settings: Settings) -> AsyncIterator[KeeperClient]:
    client = KeeperClient(settings.home)
    try:
        await client.start(KEEPER_PATIENCE)
        yield client
    finally:
        await client.stop()


def extras_of(settings: Settings) -> Extras:
    """Return the servers beside the database that the environment names."""
    redis, alerts, secret = settings.redis_url, settings.alert_url, settings.alert_secret
    return Extras(
        redis_url=redis.get_secret_value() if redis is not None else None,
        alert_url=alerts.get_secret_value() if alerts is not None else None,
        alert_secret=secret.get_secret_value().encode() if secret is not None else b"",
    )


async def _bootstrap(keeper: Keeper, startup: Startup) -> None:
    """Make what file and environment want in the database: now, or once it is there."""
    await keeper.when_there(lambda: _furnish(keeper, startup))


async def _furnish(keeper: Keeper, startup: Startup) -> None:
    """Make the teams of the file and the demo key, if there are any."""
    for team in startup.snapshot.teams:
        await keeper.ensure_team(team.slug, team.name)
    await keeper.ask(FILE_BUDGETS, (file_budgets(startup.snapshot),))
    demo = startup.settings.demo_key
    if demo is not None:
        await keeper.ensure_key(NewKey(name="demo", team="default"), demo.get_secret_value())
    elif (startup.settings.home / DEMO_KEY).exists():
        _log.warning(
            "the key of a demo that ran in this folder still works; revoke it, or serve from a WEIR_HOME of its own",
            command=f'weir keys revoke "$(cat {startup.settings.home / DEMO_KEY})"',
        )


async def _outlive(keeper: Keeper, seconds: float) -> None:
    """Wait, for at most ``seconds``, until the workers have ended: they settle their last requests here."""
    ends = monotonic() + seconds
    while keeper.watched and monotonic() < ends:  # noqa: ASYNC110 - once in a process's life; an event would be noise
        await asyncio.sleep(0.05)


def _run(main: Callable[[], Coroutine[None, None, bool]], pulse: Pulse) -> int:
    """Run a child's coroutine on uvloop; an error of starting is one line of the log, because nobody else sees it."""

    async def alive() -> bool:
        signs = asyncio.get_running_loop().create_task(pulse.give())
        try:
            return await main()
        finally:
            signs.cancel()

    try:
        return 0 if uvloop.run(alive()) else 1
    except (StartError, WeirError) as error:
        _log.error("cannot start", reason=str(error))
        return 1
