"""``weir db``: the ledger database. A database that is of no use is a ``StartError``."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

import typer

from gateway.commands.console import say
from gateway.commands.environment import read_settings

app = typer.Typer(help="The ledger database.", no_args_is_help=True)


@app.command("migrate")
def db_migrate() -> None:
    """Bring the ledger database to this version. The keeper does it too when it starts; none may run now."""
    import asyncio

    from gateway.db.engine import UnsupportedDatabase
    from gateway.db.migrations import UnknownRevision, migrate
    from gateway.keeper.address import KeeperLock
    from gateway.process import StartError

    settings = read_settings()
    lock = KeeperLock(settings.home).acquire()
    try:
        asyncio.run(migrate(settings.ledger_url.get_secret_value()))
    except (UnsupportedDatabase, UnknownRevision) as error:
        raise StartError(str(error)) from error
    finally:
        lock.release()
    say("the database is at this version")
