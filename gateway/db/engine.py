"""The connections to the ledger database.

SQLite is used with one writing connection and a few that can only read: SQLite before 3.51.3 can corrupt a
write-ahead log that two connections write or checkpoint at once, and one writer needs no waiting for locks either.
Every commit is synced to disk (``synchronous=FULL``), because the journal segment behind it is deleted afterwards.

Failure behaviour: an unusable URL raises ``UnsupportedDatabase`` when the object is made; everything later surfaces
in the unit of work.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

SQLITE: Final = "sqlite+aiosqlite"
BUSY_TIMEOUT_MS: Final = 5_000
READERS: Final = 4
_THREAD: Final = "weir_thread"


class UnsupportedDatabase(ValueError):
    """The database URL names something Weir cannot use; the message says what would do."""


class Database:
    """The ledger database: where units of work get their connections.

    Attributes:
        writer: engine with one connection; each of its transactions holds SQLite's write lock from its start.
        reader: engine whose connections cannot write; each transaction sees one state of the database.
    """

    __slots__ = ("_url", "reader", "writer")

    def __init__(self, url: str) -> None:
        """Prepare connections to ``url``; none is opened yet. Makes the folder of an SQLite file.

        Raises:
            UnsupportedDatabase: not ``sqlite+aiosqlite:///<file>``.
        """
        self._url = _checked(url)
        self.writer = _sqlite_engine(self._url, writing=True)
        self.reader = _sqlite_engine(self._url, writing=False)

    @property
    def url(self) -> str:
        """The URL with any password masked, for messages."""
        return self._url.render_as_string(hide_password=True)

    async def close(self) -> None:
        """Close all connections; the writer's last, because it folds the write-ahead log into the file."""
        await self.reader.dispose()
        await self.writer.dispose()


def thread_seconds(connection: AsyncConnection) -> float:
    """Return the CPU seconds that the thread serving ``connection`` has used so far.

    0.0 where the platform has no clock for another thread. The connection must be checked out, because the
    clock of a thread that has ended must not be read.
    """
    sync = connection.sync_connection
    ident = sync.info.get(_THREAD) if sync is not None else None
    if ident is None or not hasattr(time, "pthread_getcpuclockid"):
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(ident))


def _checked(url: str) -> URL:
    """Return ``url`` parsed, or raise ``UnsupportedDatabase``."""
    mend = f"write {SQLITE}:///path/to/weir.db"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UnsupportedDatabase(f"The database URL cannot be read: {mend}.") from error
    if parsed.drivername != SQLITE:
        raise UnsupportedDatabase(f"The database {parsed.drivername!r} is not supported: {mend}.")
    if not parsed.database or parsed.database == ":memory:" or parsed.query:
        raise UnsupportedDatabase(f"SQLite needs a plain file, because several connections share it: {mend}.")
    return parsed


def _sqlite_engine(url: URL, *, writing: bool) -> AsyncEngine:
    """Return an engine for the SQLite file of ``url`` with one writing or several reading connections."""
    path = Path(url.database or "")
    engine = create_async_engine(
        url,
        pool_size=1 if writing else READERS,
        max_overflow=0,
        hide_parameters=True,
        # The driver's own transaction handling neither begins before a read nor knows BEGIN IMMEDIATE.
        # A prepared statement of many rows takes up to a megabyte, a sum of all sizes twice that.
        connect_args={"isolation_level": None, "cached_statements": 48},
    )

    def make_file(*_: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file holds digests of keys; SQLite gives its log files the same mode. One that exists is never opened
        # here: closing it again would drop every lock this process has on it (sqlite.org, "How To Corrupt", 2.2).
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))

    def prepare(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        pragmas = [f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"]
        if writing:
            pragmas += ["journal_mode=WAL", "synchronous=FULL", "journal_size_limit=67108864"]
        else:
            pragmas += ["query_only=ON", "wal_autocheckpoint=0"]
        driver: Any = connection
        driver.create_function(_THREAD, 0, threading.get_ident)
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.execute(f"SELECT {_THREAD}()")
        row = cursor.fetchone()
        record.info[_THREAD] = row[0] if row else None
        cursor.close()

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    event.listen(engine.sync_engine, "do_connect", make_file)
    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "begin", begin)
    return engine
