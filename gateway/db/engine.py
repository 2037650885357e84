"""The ledger database: an SQLite file of one host, or a PostgreSQL server that several hosts share.

What is asked of either is the same: units of work that write run one after the other and are on disk when they end;
units that read see one state throughout. Dialects stop in this package and in the repositories.

Failure behaviour: an unusable URL raises ``UnsupportedDatabase`` when the object is made; everything later surfaces
in the unit of work. A password is in no message.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.db.bulletin import QUIET_S, Bulletin
from gateway.db.postgresql import postgresql_engine
from gateway.db.sqlite import THREAD, sqlite_engine

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry

SQLITE: Final = "sqlite+aiosqlite"
POSTGRESQL: Final = "postgresql+asyncpg"
_ALIASES: Final = {"postgresql": POSTGRESQL, "postgres": POSTGRESQL}
_MEND: Final = f"write {SQLITE}:///path/to/weir.db or {POSTGRESQL}://user:password@host/database"
_LAST_STATEMENT_S: Final = 5.0
"""Seconds that a cancelled statement gets to end, when its database is closed."""
_LOOK_S: Final = 0.001
_NUMBERS: Final = text("SELECT topic, number FROM change_number")
_QUERY: Final = frozenset({"host", "port", "user", "password", "sslmode", "ssl"})


class UnsupportedDatabase(ValueError):
    """The database URL names something Weir cannot use; the message says what would do."""


class Database:
    """The ledger database: where units of work get their connections.

    Attributes:
        bulletin: the numbers of changes, as those who look for changes share them.
        links: how many connections for writing were made to a server so far. Behind a new one may be a server that has
            forgotten what was committed on the last: an older standby that took over, or a backup that was put back.
        reading_links: the same of connections for reading.
        partitioned: whether the ledger is cut into a table for each day: PostgreSQL.
        writer: engine of the writing units; one of its transactions runs at a time, on all hosts.
        reader: engine whose connections cannot write; each transaction sees one state of the database.
    """

    __slots__ = (
        "_threads",
        "_url",
        "_written",
        "bulletin",
        "links",
        "partitioned",
        "reader",
        "reading_links",
        "writer",
    )

    def __init__(self, url: str, *, patient: bool = False) -> None:
        """Prepare connections to ``url``; none is opened yet.

        Args:
            url: of the database.
            patient: whether to wait long for locks, as for a change of the schema.

        Raises:
            UnsupportedDatabase: neither ``sqlite+aiosqlite:///<file>`` nor ``postgresql+asyncpg://…``.
        """
        self._url = _checked(url)
        self.partitioned = self._url.drivername == POSTGRESQL
        make = postgresql_engine if self.partitioned else sqlite_engine
        self.writer = make(self._url, writing=True, patient=patient)
        self.reader = make(self._url, writing=False)
        # One process at a time has an SQLite file: whoever has the lock of the state folder (gateway.keeper.address).
        self.bulletin = Bulletin(self._numbers, alone=not self.partitioned)
        self._written = self.links = self.reading_links = 0
        if self.partitioned:
            event.listen(self.writer.sync_engine, "connect", self._note_link)
            event.listen(self.reader.sync_engine, "connect", self._note_reading_link)
        else:
            event.listen(self.writer.sync_engine, "checkin", self._note_writing)
            self._threads: WeakSet[threading.Thread] = WeakSet()
            for engine in (self.writer, self.reader):
                event.listen(engine.sync_engine, "connect", self._note_thread)

    @property
    def url(self) -> str:
        """The URL with any password masked, for messages."""
        return self._url.render_as_string(hide_password=True)

    @property
    def edition(self) -> object:
        """What equals that of another moment only if nothing was written in between: never where other hosts write.

        It ends after ``QUIET_S`` at the latest, see there.
        """
        return object() if self.partitioned else (self._written, monotonic() // QUIET_S)

    def _note_thread(self, _connection: object, record: ConnectionPoolEntry) -> None:
        """Take note of the thread that serves a new connection to a file."""
        ident = record.info.get(THREAD)
        self._threads.update(thread for thread in threading.enumerate() if thread.ident == ident)

    def _note_writing(self, *_: object) -> None:
        """Take note that the writing connection is given back: whatever wrote has ended."""
        self._written += 1
        self.bulletin.outdate()

    def _note_link(self, *_: object) -> None:
        """Take note of a new connection for writing."""
        self.links += 1

    def _note_reading_link(self, *_: object) -> None:
        """Take note of a new connection for reading."""
        self.reading_links += 1

    async def _numbers(self) -> Mapping[str, int]:
        """Return the number of the last change of every topic; errors are the toolkit's."""
        async with self.reader.connect() as connection:
            return {row.topic: row.number for row in await connection.execute(_NUMBERS)}

    async def close(self) -> None:
        """Close all connections; the writer's last, because it folds SQLite's write-ahead log into the file.

        A connection whose user was cancelled ends with its statement, in a thread that needs the loop to the last.
        """
        await self.reader.dispose()
        await self.writer.dispose()
        if not self.partitioned:
            ends = monotonic() + _LAST_STATEMENT_S
            while any(thread.is_alive() for thread in self._threads) and monotonic() < ends:  # noqa: ASYNC110 - threads
                await asyncio.sleep(_LOOK_S)


def thread_seconds(connection: AsyncConnection) -> float:
    """Return the CPU seconds that the thread serving ``connection`` has used so far.

    0.0 where there is no such thread, or the platform has no clock for another thread. The connection must be checked
    out, because the clock of a thread that has ended must not be read.
    """
    sync = connection.sync_connection
    ident = sync.info.get(THREAD) if sync is not None else None
    if ident is None or not hasattr(time, "pthread_getcpuclockid"):
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(ident))


def _checked(url: str) -> URL:
    """Return ``url`` parsed, or raise ``UnsupportedDatabase``."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The cause is cut off: it may quote the URL, and the URL may hold a password.
        raise UnsupportedDatabase(f"The database URL cannot be read: {_MEND}.") from None
    driver = _ALIASES.get(parsed.drivername, parsed.drivername)
    if driver == SQLITE:
        if not parsed.database or parsed.database == ":memory:" or parsed.query:
            raise UnsupportedDatabase(f"SQLite needs a plain file, because several connections share it: {_MEND}.")
        return parsed
    if driver != POSTGRESQL:
        raise UnsupportedDatabase(f"The database {parsed.drivername!r} is not supported: {_MEND}.")
    return _postgresql(parsed.set(drivername=driver))


def _postgresql(url: URL) -> URL:
    """Return the URL of a server with what its query says put where the driver looks for it."""
    unknown = sorted(url.query.keys() - _QUERY)
    if unknown:
        raise UnsupportedDatabase(f"The database URL has unknown options ({', '.join(unknown)}): {_MEND}.")
    query = {name: value if isinstance(value, str) else value[-1] for name, value in url.query.items()}
    if not url.database:
        raise UnsupportedDatabase(f"The database URL names no database: {_MEND}.")
    # In the query a password would be shown where the URL is.
    url = url.set(username=query.pop("user", url.username), password=query.pop("password", url.password))
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    if "port" in query:
        try:
            url = url.set(port=int(query.pop("port")))
        except ValueError:
            raise UnsupportedDatabase(f"The port of the database URL is no number: {_MEND}.") from None
    host = query.get("host")
    if host is not None and not host.startswith("/"):
        url = url.set(host=query.pop("host"))
    return url.set(query=query)
