"""What commands work with: the settings of the environment and the keeper of the state folder.

Errors are those of ``Settings.read`` and of the keeper; ``gateway.cli`` turns them into one sentence.
"""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union

import typer

from gateway.commands.console import complain, fail

if TYPE_CHECKING:
    from gateway.config.snapshot import ConfigSnapshot
    from gateway.keeper.client import KeeperClient
    from gateway.keeper.service import Keeper
    from gateway.settings import Settings

T = TypeVar("T")
Reached = Union["Keeper", "KeeperClient"]
"""The keeper that runs, or one of this process."""
Config = Annotated[Path | None, typer.Option("--config", help="Configuration file; default WEIR_CONFIG.")]


def read_settings(config: Path | None = None, *, quiet: bool = False) -> Settings:
    """Return the settings of the environment; ``--config`` counts as WEIR_CONFIG. A ``quiet`` command logs errors."""
    import logging

    from gateway.settings import Settings
    from gateway.telemetry import logs

    if config is not None:
        os.environ["WEIR_CONFIG"] = str(config)
    settings = Settings.read()
    known = [key.get_secret_value() for key in (settings.admin_key, settings.demo_key) if key is not None]
    logs.configure("error" if quiet else settings.log_level, settings.log_format, secrets=known)
    if settings.log_level == "info":
        for chatty in ("uvicorn.error", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
    return settings


def ask_gateway(
    settings: Settings,
    url: str | None,
    method: str,
    path: str,
    *,
    params: dict[str, str] | None = None,
    content: bytes | None = None,
) -> tuple[int, dict[str, Any]]:
    """Ask a running gateway with a management key; return status and document.

    Args:
        settings: the environment.
        url: where it listens; None is the port of this machine.
        method: of HTTP.
        path: below ``url``.
        params: the query.
        content: the body.

    Raises:
        StartError: none answers there.
    """
    import time

    import httpx

    from gateway.access.management import mint_local_token
    from gateway.process import StartError

    root = url or f"http://127.0.0.1:{settings.port}"
    if settings.admin_key is not None:
        key = settings.admin_key.get_secret_value()
    else:
        key = mint_local_token(settings.obtain_secret().get_secret_value().encode(), time.time())
    try:
        answer = httpx.request(
            method, root + path, params=params, content=content, headers={"authorization": f"Bearer {key}"}
        )
        document = answer.json()
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise StartError(f"no gateway answers at {root}: {error}; name another with --url or PORT") from error
    except ValueError:
        document = None
    if not isinstance(document, dict) or (answer.status_code != 200 and "error" not in document):
        raise StartError(f"what answers at {root} is no gateway of this kind; name another with --url")
    return answer.status_code, document


def with_keeper(do: Callable[[Reached], Coroutine[Any, Any, T]], *, configured: bool = False, fresh: bool = False) -> T:
    """Run ``do`` with the keeper of WEIR_HOME: the one that runs, else one of this process.

    The latter knows the configuration file, where WEIR_CONFIG names one, only if it is to be ``configured``; a file
    that is refused ends the command. If it is to be ``fresh`` it first ships what a process that died left in the
    journal, so that no sum lacks it.
    """
    import asyncio

    from gateway.keeper.address import answers
    from gateway.keeper.process import reaching
    from gateway.types.actor import ACTING, Actor

    settings = read_settings(quiet=True)
    if not settings.home.exists():
        complain(f"a new state folder, {settings.home}: WEIR_HOME names another")
    pepper = settings.obtain_secret().get_secret_value().encode()
    config = _configuration(settings) if configured and not answers(settings.home) else None

    async def reach() -> T:
        ACTING.set(Actor(_user(), "command"))
        found: AbstractAsyncContextManager[Reached] = reaching(
            settings.home, settings.ledger_url.get_secret_value(), pepper, config=lambda: config, fresh=fresh
        )
        async with found as reached:
            return await do(reached)

    return asyncio.run(reach())


def _user() -> str:
    """Return who runs the command, as the operating system calls them."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return f"user {os.getuid()}"


def _configuration(settings: Settings) -> ConfigSnapshot | None:
    """Return what the configuration file says, or None when WEIR_CONFIG names none."""
    if settings.config is None:
        return None
    from gateway.app import presets
    from gateway.config.load import load
    from gateway.config.problem import ConfigError

    try:
        return load(settings.config, presets=presets())
    except ConfigError as error:
        fail(str(error), 2)
