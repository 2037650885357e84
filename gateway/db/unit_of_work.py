"""Units of work: one transaction each, and the one place where database errors become ours.

A writing unit commits when its block ends and rolls back when it raises, also when it is cancelled. Of all writing
units one runs at a time, on all hosts, so what a unit read stays true until it ends. Whatever says that the database is
away, locked, full or damaged becomes ``Unavailable``; a broken rule of the schema (``IntegrityError``) passes
unchanged, because only the repository that broke it knows what it means.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db.bulletin import ANNOUNCED
from gateway.db.engine import Database
from gateway.db.postgresql import OURS, OVERTAKEN, UNSTORABLE, UNUSABLE, sqlstate_of
from gateway.types.errors import BadRequest, Unavailable

_OUR_MISTAKE = (
    *(exc.IntegrityError, exc.DataError, exc.ProgrammingError, exc.NotSupportedError),
    *(sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.NotSupportedError),
)


class Overtaken(Unavailable):
    """A transaction lost against another one (deadlock, serialisation); repeating it at once may help."""


class Refused(Unavailable):
    """The server is there and will not have us: wrong password, no such database. Waiting does not help."""


@asynccontextmanager
async def writing(database: Database) -> AsyncIterator[AsyncSession]:
    """Open a unit that may write: committed when the block ends, rolled back when it raises.

    Units must not be nested: the inner one would wait for the outer one.

    Raises:
        Unavailable: the database cannot be used now; nothing of the unit is to be relied on.
    """
    with translated():
        async with AsyncSession(database.writer, expire_on_commit=False) as session:
            try:
                async with session.begin():
                    # An empty unit waits for its turn too, and whatever it calls without the session.
                    await session.connection()
                    yield session
            finally:
                if ANNOUNCED in session.info:
                    database.bulletin.outdate()


@asynccontextmanager
async def reading(database: Database) -> AsyncIterator[AsyncSession]:
    """Open a unit that only reads and sees one state of the database throughout.

    Raises:
        Unavailable: the database cannot be used now.
    """
    with translated():
        async with AsyncSession(database.reader, expire_on_commit=False) as session, session.begin():
            yield session


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors that say "the database cannot be used now" into ``Unavailable``.

    A text that cannot be stored is ``BadRequest``: SQLite takes it, so nobody asks for it before.
    """
    try:
        yield
    except exc.DBAPIError as error:
        _refuse_unstorable(error.orig)
        # The driver's error alone: the toolkit's own holds the statement, which may be very long.
        if isinstance(error, _OUR_MISTAKE) or (error.orig is not None and _is_ours(error.orig)):
            raise
        raise _away(error.orig or error) from error.orig
    except _driver_errors() as error:
        _refuse_unstorable(error)
        if isinstance(error, _OUR_MISTAKE) or _is_ours(error):
            raise
        raise _away(error) from error
    except exc.TimeoutError as error:
        raise Unavailable("The database is busy.", retry_after=1.0) from error
    except OSError as error:
        raise Unavailable("The database cannot be reached.", retry_after=1.0) from error


def _driver_errors() -> tuple[type[Exception], ...]:
    """Return the errors of the drivers that are in use: looked at only when something was raised."""
    asyncpg = sys.modules.get("asyncpg")
    return (sqlite3.Error,) if asyncpg is None else (sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError)


def _refuse_unstorable(error: BaseException | None) -> None:
    if error is not None and sqlstate_of(error) == UNSTORABLE:
        raise BadRequest("a text holds the character U+0000, which cannot be stored") from error


def _is_ours(error: BaseException) -> bool:
    """Return whether a statement or a value of it is wrong: PostgreSQL's classes, or the driver's own complaint."""
    cause = error.__cause__ if error.__cause__ is not None else error
    return sqlstate_of(error)[:2] in OURS or (isinstance(cause, ValueError) and not isinstance(cause, OSError))


def _away(error: BaseException) -> Unavailable:
    """Return what an error means that is not our mistake."""
    sqlstate = sqlstate_of(error)
    if sqlstate in OVERTAKEN:
        return Overtaken("The database is busy.", retry_after=1.0)
    if sqlstate[:2] in UNUSABLE:
        # Names the user or the database, never the password.
        return Refused(f"The database refuses the connection: {error}.", retry_after=1.0)
    # For whoever mends it. SQLite's words name nothing that is stored; a server's may, its code does not.
    reason = f": {error}" if isinstance(error, sqlite3.Error) else f" (SQLSTATE {sqlstate})" if sqlstate else ""
    return Unavailable(f"The database cannot be used now{reason}.", retry_after=1.0)
