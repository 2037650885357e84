"""Connections to a PostgreSQL server, which several hosts may share.

A writing unit begins by waiting for its turn: one advisory lock, so that of all writing units of all hosts one runs at
a time, as with SQLite's one writer, and what a unit read cannot change under it. The shipper's transactions do not take
it (``gateway.db.bulk``); what they and others would both touch is guarded by locks of its own. A connection that is
found dead is replaced; a unit that waits too long, or holds its turn too long, is ended by the server.

Failure behaviour: nothing is opened here; everything surfaces in the unit of work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import DBAPIConnection

WRITERS: Final = 4
READERS: Final = 8
CONNECT_TIMEOUT_S: Final = 5.0
COMMAND_TIMEOUT_S: Final = 60.0
"""After it a statement of a writer counts as lost with its connection."""
READ_TIMEOUT_S: Final = 600.0
"""The same of a reader: an audit goes through the whole ledger."""
LOCK_TIMEOUT_MS: Final = 15_000
IDLE_TIMEOUT_MS: Final = 30_000
"""A transaction that does nothing for so long is of a process that hangs; others wait for it."""

TURN: Final = 0x57454952_00000001
"""Advisory lock of writing units; the upper half spells the name of this program."""
ROLLUPS: Final = 0x57454952_00000002
"""Advisory lock of transactions that read histograms of the rollups, merge them and write them back."""

PARTITIONS: Final = 0x57454952_00000003
"""Advisory lock of transactions that add or drop partitions."""

UNUSABLE: Final = frozenset({"28", "3D"})
"""Classes of SQLSTATE that say the server is there and will not have us: wrong password, no such database."""
OURS: Final = frozenset({"0A", "22", "23", "42"})
"""Classes of SQLSTATE that say a statement is wrong, so that repeating it would not help."""
UNSTORABLE: Final = "22021"
"""SQLSTATE of a text with the one character that is never stored, U+0000."""
OVERTAKEN: Final = frozenset({"40001", "40P01", "55P03"})
"""SQLSTATEs of a transaction that lost against another one, so that repeating it does help."""


def postgresql_engine(url: URL, *, writing: bool, patient: bool = False) -> AsyncEngine:
    """Return an engine for the server of ``url``; a reading one sees one state of the database per transaction.

    A ``patient`` one waits ten times as long for locks and for ever for statements: it changes the schema.
    """
    server_settings = {"application_name": "weir", "jit": "off", "timezone": "UTC"}
    if writing:
        server_settings["lock_timeout"] = str(LOCK_TIMEOUT_MS * (10 if patient else 1))
        server_settings["idle_in_transaction_session_timeout"] = str(IDLE_TIMEOUT_MS)
    else:
        server_settings["default_transaction_read_only"] = "on"
        server_settings["default_transaction_isolation"] = "repeatable read"
    connect_args: dict[str, Any] = {
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": None if patient else COMMAND_TIMEOUT_S if writing else READ_TIMEOUT_S,
        "server_settings": server_settings,
    }
    engine = create_async_engine(
        url,
        pool_size=WRITERS if writing else READERS,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args=connect_args,
    )

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({TURN})")

    def refuse_begun(connection: DBAPIConnection, *_: object) -> None:
        # Whoever is cancelled while a transaction begins gives back a connection on which it may be open: what comes
        # next on it would be part of a transaction that nobody ends, and lost with it.
        driver = connection.driver_connection
        if driver.is_in_transaction() or driver._top_xact is not None:  # noqa: SLF001 - what a failed BEGIN leaves
            raise DisconnectionError("a transaction was left open")

    event.listen(engine.sync_engine, "checkout", refuse_begun)
    if writing:
        event.listen(engine.sync_engine, "begin", begin)
    return engine


def sqlstate_of(error: BaseException) -> str:
    """Return the five characters by which PostgreSQL names an error, or an empty text."""
    found = getattr(error, "sqlstate", None)
    return found if isinstance(found, str) else ""
