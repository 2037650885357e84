"""``weir serve`` and ``weir demo``, and what the processes of several workers do.

Raises ``StartError`` and its like with a sentence; later errors are in the log.
"""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.console import say
from gateway.commands.environment import Config, read_settings

if TYPE_CHECKING:
    import socket

    from gateway.process import Beside, Standing, Startup
    from gateway.pulse import Pulse

MOST_DAYS = 366
MOST_FILES = 1_048_576
Host = Annotated[str, typer.Option(help="Address to listen on.")]


def serve(
    host: Host = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="TCP port; default PORT or 8000, 0 takes a free one.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes.")] = 1,
    config: Config = None,
) -> None:
    """Serve the configured fleet."""
    _hold_reload()
    from gateway.process import prepare

    settings = read_settings(config)
    startup = prepare(settings)
    listener = _listen(host, settings.port if port is None else port)
    raise SystemExit(_serve(startup, host, listener, workers, _announce))


def run_demo(
    host: Host = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="TCP port; default PORT or 8000.")] = None,
    history: Annotated[str, typer.Option(help="Length of the made-up past, such as 90d; 0d for none.")] = "90d",
) -> None:
    """Serve a simulated fleet with a made-up past, and print how to talk to it."""
    _hold_reload()
    from gateway import demo
    from gateway.keeper.address import KeeperLock
    from gateway.process import prepare

    days = _days(history)
    settings = read_settings()
    home = settings.home
    # Before anything is written: a demo that runs reads its file again when that changes.
    listener = _listen(host, settings.port if port is None else port)
    KeeperLock(home).acquire().release()
    backend_key = "sim-" + demo.kept(home, "demo.backend-key", os.urandom(16).hex())
    os.environ["WEIR_SIM_DEMO_KEY"] = backend_key
    os.environ.setdefault("WEIR_DEMO_KEY", demo.inference_key(home))
    os.environ.setdefault("WEIR_ADMIN_KEY", demo.admin_key(home))
    os.environ.setdefault("WEIR_LOG_LEVEL", "warning")
    with demo.simulated_fleet(backend_key) as urls:
        settings = read_settings(demo.write_config(home, urls))
        startup = prepare(settings)
        assert settings.demo_key is not None
        assert settings.admin_key is not None
        key, admin = settings.demo_key.get_secret_value(), settings.admin_key.get_secret_value()

        def announce(_startup: Startup, base: str) -> None:
            sys.stdout.write(demo.welcome(base, key, admin, days))
            sys.stdout.flush()

        status = _serve(startup, host, listener, 1, announce, demo.past(home, days, key))
    raise SystemExit(status)


def _be_worker(listener: socket.socket, workers: int, standing: Standing, leash: int, pulse: Pulse) -> int:
    """Serve as one of several workers; return the exit status."""
    from gateway.process import serve_worker

    return _child(leash, standing, lambda startup: serve_worker(startup, listener, workers, pulse))


def _be_keeper(standing: Standing, leash: int, pulse: Pulse) -> int:
    """Keep the ledger for several workers; return the exit status."""
    from gateway.process import serve_keeper

    return _child(leash, standing, lambda startup: serve_keeper(startup, pulse))


def _child(leash: int, standing: Standing, serve: Callable[[Startup], int]) -> int:
    """Read everything anew, because it may have changed since the supervisor did, and serve."""
    from gateway.process import StartError
    from gateway.settings import SettingsError
    from gateway.telemetry import logs

    _heed(leash)
    try:
        startup = standing.startup()
    except (StartError, SettingsError) as error:
        logs.logger(__name__).error("cannot start", reason=str(error))  # the log is read by machines, too
        return 2
    return serve(startup)


def _heed(leash: int) -> None:
    """Send this process SIGTERM once the supervisor is gone; while it still starts, that ends it at once."""

    def wait() -> None:
        os.read(leash, 1)  # nothing is ever written: this returns when the supervisor's end is closed
        os.kill(os.getpid(), signal.SIGTERM)

    # A thread, because imports and reading the configuration leave no event loop time to look.
    threading.Thread(target=wait, name="leash", daemon=True).start()


def _hold_reload() -> None:
    """Let a SIGHUP that comes while the process starts wait until it is served; it would end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ``StartError``."""
    from gateway import supervisor
    from gateway.process import StartError

    try:
        return supervisor.bind(host, port)
    except OSError as error:
        mend = "choose another with --port, or PORT in the environment"
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}; {mend}") from error


def _open_more() -> None:
    """Take as many open files as this process may have: the usual soft limit of 1,024 is some 500 streams."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # some systems have a limit behind the limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _days(text: str) -> int:
    """Return the days in a length such as ``90d``. Raises ``BadParameter``."""
    digits = text.removesuffix("d")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 9 or int(digits) > MOST_DAYS:
        raise typer.BadParameter(f"write a number of days up to {MOST_DAYS}, such as 90d", param_hint="--history")
    return int(digits)


def _serve(
    startup: Startup,
    host: str,
    listener: socket.socket,
    workers: int,
    announce: Callable[[Startup, str], None],
    beside: Beside | None = None,
) -> int:
    from gateway import supervisor
    from gateway.keeper.address import KeeperLock
    from gateway.process import Standing, prepare, serve_alone

    _open_more()
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else f"[{host}]" if ":" in host else host
    base = f"http://{shown}:{listener.getsockname()[1]}"
    if workers == 1:
        return serve_alone(startup, listener, lambda: announce(startup, base), beside)
    KeeperLock(startup.settings.home).acquire().release()  # said here once, not by one keeper after another in the log
    announce(startup, base)
    import gateway.serving  # noqa: F401 - what workers are made of: imported here once instead of by each

    standing = Standing(startup, lambda: prepare(read_settings()))
    work: dict[str, supervisor.Work] = {
        "keeper": partial(_be_keeper, standing),
        "worker": partial(_be_worker, listener, workers, standing),
    }
    grace, patience = startup.settings.grace, startup.settings.watchdog
    overseer = supervisor.Supervisor(listener, workers, grace=grace, patience=patience, work=work, look=standing.look)
    return overseer.run()


def _announce(startup: Startup, base: str) -> None:
    from gateway import __version__

    say(f"Weir {__version__} serves {base}")
    if startup.new_admin_key is not None:
        say(f"management key (shown this once): {startup.new_admin_key}")
