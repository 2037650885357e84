"""Connections to an SQLite file.

SQLite is used with one writing connection and a few that can only read: SQLite before 3.51.3 can corrupt a
write-ahead log that two connections write or checkpoint at once, and one writer needs no waiting for locks either.
Every commit is synced to disk (``synchronous=FULL``), because the journal segment behind it is deleted afterwards.

Failure behaviour: nothing is opened here; everything surfaces in the unit of work.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

BUSY_TIMEOUT_MS: Final = 5_000
READERS: Final = 4
THREAD: Final = "weir_thread"
"""Where a connection's ``info`` has the thread that serves it."""
ENDED: Final = "weir_ended"
"""What a connection's ``info`` has while the transaction on it is known to be over: none is to be rolled back."""

_PATIENTLY: Final = Retrying(
    retry=retry_if_exception_type(sqlite3.OperationalError),
    stop=stop_after_attempt(25),
    wait=wait_fixed(0.02),
    reraise=True,
)

# The driver takes bytes as they are, but first looks for a way to adapt them, and is told that there is none by an
# exception: 0.9 µs a value, a quarter of what a row of the ledger costs to insert. Here is a way that does nothing.
sqlite3.register_adapter(bytes, bytes.__bytes__)


def sqlite_engine(url: URL, *, writing: bool, patient: bool = False) -> AsyncEngine:
    """Return an engine for the file of ``url`` with one writing or several reading connections.

    A ``patient`` one waits ten times as long for the lock: it changes the schema.
    """
    busy_ms = BUSY_TIMEOUT_MS * (10 if patient else 1)
    path = Path(url.database or "")
    engine = create_async_engine(
        url,
        pool_size=1 if writing else READERS,
        max_overflow=0,
        pool_reset_on_return=None,  # done by ``reset``
        hide_parameters=True,
        # The driver's own transaction handling neither begins before a read nor knows BEGIN IMMEDIATE.
        # A prepared statement of many rows takes 150 kB.
        connect_args={"isolation_level": None, "cached_statements": 48},
    )

    def make_file(*_: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file holds digests of keys; SQLite gives its log files the same mode. One that exists is never opened
        # here: closing it again would drop every lock this process has on it (sqlite.org, "How To Corrupt", 2.2).
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))

    def prepare(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        pragmas = [f"busy_timeout={busy_ms}", "foreign_keys=ON"]
        if writing:
            pragmas += ["journal_mode=WAL", "synchronous=FULL", "journal_size_limit=67108864"]
            # What it writes it hardly ever reads again: the usual 2 MB of pages would only stay with an idle worker.
            pragmas += ["cache_size=-500"]
        else:
            pragmas += ["query_only=ON", "wal_autocheckpoint=0"]
        driver: Any = connection
        driver.create_function(THREAD, 0, threading.get_ident)
        cursor = connection.cursor()
        for pragma in pragmas:
            # A new file becomes one with a log by the first who opens it; SQLite lets nobody wait for that.
            _PATIENTLY(cursor.execute, f"PRAGMA {pragma}")
        cursor.execute(f"SELECT {THREAD}()")
        row = cursor.fetchone()
        record.info[THREAD] = row[0] if row else None
        cursor.close()

    def reset(connection: DBAPIConnection, record: ConnectionPoolEntry, state: PoolResetState) -> None:
        # A call that was cancelled may still be on its way, so the driver cannot say whether a transaction is open.
        ended = record.info.pop(ENDED, False)
        if state.asyncio_safe and not state.transaction_was_reset and not ended:
            connection.rollback()

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    event.listen(engine.sync_engine, "do_connect", make_file)
    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "begin", begin)
    event.listen(engine.sync_engine, "reset", reset)
    return engine
