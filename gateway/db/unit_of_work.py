"""Units of work: one transaction each, and the one place where database errors become ours.

A writing unit commits when its block ends and rolls back when it raises, also when it is cancelled. Whatever says
that the database is away, locked, full or damaged becomes ``Unavailable``; a broken rule of the schema
(``IntegrityError``) passes unchanged, because only the repository that broke it knows what it means.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db.engine import Database
from gateway.types.errors import Unavailable

_OUR_MISTAKE = (
    *(exc.IntegrityError, exc.DataError, exc.ProgrammingError, exc.NotSupportedError),
    *(sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.NotSupportedError),
)


@asynccontextmanager
async def writing(database: Database) -> AsyncIterator[AsyncSession]:
    """Open a unit that may write: committed when the block ends, rolled back when it raises.

    Raises:
        Unavailable: the database cannot be used now; nothing of the unit is to be relied on.
    """
    with translated():
        async with AsyncSession(database.writer, expire_on_commit=False) as session, session.begin():
            yield session


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
    """Turn errors that say "the database cannot be used now" into ``Unavailable``."""
    try:
        yield
    except exc.DBAPIError as error:
        if isinstance(error, _OUR_MISTAKE):
            raise
        # The driver's error alone: the toolkit's own holds the statement, which may be very long.
        raise Unavailable("The database cannot be used now.", retry_after=1.0) from error.orig
    except sqlite3.Error as error:
        if isinstance(error, _OUR_MISTAKE):
            raise
        raise Unavailable("The database cannot be used now.", retry_after=1.0) from error
    except exc.TimeoutError as error:
        raise Unavailable("The database is busy.", retry_after=1.0) from error
    except OSError as error:
        raise Unavailable("The database cannot be reached.", retry_after=1.0) from error
