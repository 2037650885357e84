"""Schema migrations: bringing a database to a revision, forwards or back.

Run in-process by Alembic inside one transaction that holds the write lock, so two processes that start together
migrate once and a failed revision leaves the schema as it was. Errors of the database are translated as in a unit
of work; an unknown revision raises ``UnknownRevision``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from gateway.db.engine import Database
from gateway.db.unit_of_work import translated

HEAD: Final = "head"
BASE: Final = "base"


class UnknownRevision(ValueError):
    """The revision asked for, or the one the database is at, is not one of this version's."""


async def migrate(url: str, revision: str = HEAD) -> None:
    """Bring the database at ``url`` forward to ``revision``; does nothing when it is there already.

    Raises:
        UnsupportedDatabase: the URL is of no use.
        UnknownRevision: the database was made by a newer version, or ``revision`` does not exist.
        Unavailable: the database cannot be used now.
    """
    await _run(url, lambda config: command.upgrade(config, revision))


async def downgrade(url: str, revision: str) -> None:
    """Take the database at ``url`` back to ``revision`` (``BASE`` for empty). Tables made since then are lost.

    Raises as ``migrate`` does.
    """
    await _run(url, lambda config: command.downgrade(config, revision))


async def current(url: str) -> str | None:
    """Return the revision the database at ``url`` is at, or None when it was never migrated.

    Raises as ``migrate`` does.
    """
    database = Database(url)
    try:
        with translated():
            async with database.writer.begin() as connection:
                return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())
    finally:
        await database.close()


def head() -> str:
    """Return the newest revision of this version."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:  # pragma: no cover - the package holds revisions
        raise UnknownRevision("This version has no revisions.")
    return revision


async def _run(url: str, step: Callable[[Config], None]) -> None:
    """Run an Alembic command over one writing transaction of the database at ``url``."""

    def with_connection(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        step(config)

    database = Database(url, patient=True)
    try:
        with translated():
            async with database.writer.begin() as connection:
                await connection.run_sync(with_connection)
    except CommandError as error:
        mend = "start that one, or put back a backup from before it"
        raise UnknownRevision(f"The database is of a newer version of Weir ({error}): {mend}.") from error
    finally:
        await database.close()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
