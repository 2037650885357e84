"""Bringing the ledger database to this version's schema before the keeper opens it.

Looking whether that is needed is cheap; doing it takes Alembic, which weighs more than what a keeper does afterwards.
``migrate_apart`` therefore does it in a process of its own, which is this module run as a program: it holds the state
folder's lock together with the keeper, so that it is alone even if the keeper dies meanwhile. ``migrate_here`` is for
processes that are short or migrate often. Errors are those of ``gateway.db.migrations.migrate``, by way of
``KeeperError`` and ``Unavailable``.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from gateway import db
from gateway.db.engine import Database, UnsupportedDatabase
from gateway.db.unit_of_work import translated
from gateway.keeper.address import KeeperError
from gateway.types.errors import Unavailable

Migrate = Callable[[str, int], Awaitable[None]]
"""Migrates the database at a URL; the number is the descriptor of the state folder's lock."""

_REVISIONS: Final = Path(db.__file__).parent / "migrations" / "versions"
_AWAY: Final = 3
_REFUSED: Final = 4


def newest() -> str:
    """Return the newest revision of this version; their ids are the names of their files, which begin with a number."""
    return max(path.stem for path in _REVISIONS.glob("[0-9]*.py"))


def is_known(revision: str) -> bool:
    """Return whether ``revision`` is one of this version's; another one was made by a newer version."""
    return (_REVISIONS / f"{revision}.py").is_file()


async def is_current(database_url: str) -> bool:
    """Return whether the database has this version's schema. Raises as ``revision`` does."""
    return await revision(database_url) == newest()


async def revision(database_url: str) -> str | None:
    """Return the revision of the database's schema, None when it has none.

    Raises:
        KeeperError: the URL is of no use.
        Unavailable: the database cannot be used now.
    """
    try:
        database = Database(database_url)
    except UnsupportedDatabase as error:
        raise KeeperError(str(error)) from error
    try:
        with translated():
            async with database.reader.connect() as connection:
                return await connection.run_sync(_revision)
    finally:
        await database.close()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


async def migrate_here(database_url: str, _lock: int) -> None:
    """Migrate in this process."""
    # Only a database that is not of this version needs Alembic.
    from gateway.db.migrations import UnknownRevision, migrate  # noqa: PLC0415 - Alembic is for the child that migrates

    try:
        await migrate(database_url)
    except (UnsupportedDatabase, UnknownRevision) as error:
        raise KeeperError(str(error)) from error


async def migrate_apart(database_url: str, lock: int) -> None:
    """Migrate in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(lock,)
    )
    # Not as an argument: a URL may hold a password, and arguments are for everybody to see.
    said, _ = await process.communicate(database_url.encode())
    if process.returncode == _AWAY:
        raise Unavailable(said.decode(), retry_after=1.0)
    if process.returncode:
        raise KeeperError(said.decode() or "the database cannot be brought to this version; the reason is above")


def main() -> int:
    """Migrate the database whose URL standard input says; return the exit status and print what is wrong."""
    try:
        asyncio.run(migrate_here(sys.stdin.read(), -1))
    except KeeperError as error:
        sys.stdout.write(str(error))
        return _REFUSED
    except Unavailable as error:
        sys.stdout.write(error.message)
        return _AWAY
    return 0


if __name__ == "__main__":
    sys.exit(main())
