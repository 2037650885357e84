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

if TYPE_CHECKING:
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


def with_keeper(do: Callable[[Reached], Coroutine[Any, Any, T]]) -> T:
    """Run ``do`` with the keeper of WEIR_HOME: the one that runs, else one of this process."""
    import asyncio

    from gateway.keeper.process import reaching

    settings = read_settings(quiet=True)
    pepper = settings.obtain_secret().get_secret_value().encode()

    async def reach() -> T:
        found: AbstractAsyncContextManager[Reached] = reaching(
            settings.home, settings.ledger_url.get_secret_value(), pepper
        )
        async with found as reached:
            return await do(reached)

    return asyncio.run(reach())
