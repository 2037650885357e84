"""The command line: the table of commands. What they do is in ``gateway.commands``.

Exit status: 0 done, 1 it failed or the answer is no, 2 the command line or the environment is wrong.
"""

from __future__ import annotations

import typer

from gateway.commands import (
    billing,
    budgets,
    configuration,
    console,
    database,
    doctor,
    export,
    keys,
    lab,
    metering,
    models,
    prices,
    rankings,
    routing,
    serving,
    simulation,
    teams,
    upstream_keys,
    users,
)
from gateway.commands.console import fail

app = typer.Typer(name="weir", help="One endpoint for every app; every token metered once.", no_args_is_help=True)
app.callback()(console.options)
app.command("serve")(serving.serve)
app.command("demo")(serving.run_demo)
app.command("sim")(simulation.sim)
app.command("rankings")(rankings.rankings)
app.command("doctor")(doctor.doctor)
for name, group in (
    ("config", configuration.app),
    ("db", database.app),
    ("keys", keys.app),
    ("upstream-keys", upstream_keys.app),
    ("budgets", budgets.app),
    ("teams", teams.app),
    ("users", users.app),
    ("models", models.app),
    ("prices", prices.app),
    ("route", routing.app),
    ("meter", metering.app),
    ("billing", billing.app),
    ("export", export.app),
    ("lab", lab.app),
    ("apps", rankings.apps),
):
    app.add_typer(group, name=name)


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
