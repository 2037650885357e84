"""The command line: the table of commands. What they do is in ``gateway.commands``.

Exit status: 0 done, 1 it failed or the answer is no, 2 the command line or the environment is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_group

from gateway.commands import console
from gateway.commands.console import fail

_PLACES: Final = {
    "serve": "serving.serve",
    "demo": "serving.run_demo",
    "sim": "simulation.sim",
    "rankings": "rankings.rankings",
    "doctor": "doctor.doctor",
    "config": "configuration.app",
    "db": "database.app",
    "keys": "keys.app",
    "upstream-keys": "upstream_keys.app",
    "budgets": "budgets.app",
    "teams": "teams.app",
    "users": "users.app",
    "models": "models.app",
    "prices": "prices.app",
    "route": "routing.app",
    "meter": "metering.app",
    "billing": "billing.app",
    "export": "export.app",
    "lab": "lab.app",
    "apps": "rankings.apps",
}
"""Where in ``gateway.commands`` each command or group of commands is, in the order of the help page."""


class _Commands(Mapping[str, Any]):
    """The commands by name, each imported when it is first looked up: a server would carry a megabyte of others."""

    def __getitem__(self, name: str) -> Any:
        return _made(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


@cache
def _made(name: str) -> Any:
    """Return a command as its library wants it. Raises ``KeyError``."""
    module, _, member = _PLACES[name].partition(".")
    found = getattr(import_module(f"gateway.commands.{module}"), member)
    alone = typer.Typer()
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
    else:
        alone.command(name)(found)
    return get_group(alone).commands[name]


class _Group(TyperGroup):
    """All commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        commands: Any = _Commands()
        self.commands = commands


app = typer.Typer(
    name="weir", cls=_Group, help="One endpoint for every app; every token metered once.", no_args_is_help=True
)
app.callback()(console.options)


def main() -> None:
    """Run the command line; an expected error is one sentence, not a trace."""
    try:
        app()
    except Exception as error:
        message, status = _expected(error)
        if not status:
            raise
        fail(message, status)


def _expected(error: Exception) -> tuple[str, int]:
    """Return what to say of ``error`` and the exit status, which is 0 for a defect."""
    # Their modules are imported only now that there is an error: a command that goes well may not need them.
    from gateway.keeper.address import KeeperError  # noqa: PLC0415 - see above
    from gateway.process import StartError  # noqa: PLC0415 - see above
    from gateway.settings import SettingsError  # noqa: PLC0415 - see above
    from gateway.types.errors import WeirError  # noqa: PLC0415 - see above

    if isinstance(error, SettingsError | StartError | KeeperError):
        return str(error), 2
    if isinstance(error, WeirError):
        return error.message, 1
    return "", 0


if __name__ == "__main__":
    main()
