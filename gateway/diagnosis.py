"""What is wrong with an installation: what `weir doctor` looks at, one finding after the other.

Everything is only looked at; nothing is changed, no keeper is started and the database of a running keeper is not
opened. A check that cannot be made is a finding like any other. Nothing here raises.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import stat
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from gateway.app import presets
from gateway.config.load import load
from gateway.config.problem import ConfigError
from gateway.config.snapshot import ConfigSnapshot
from gateway.engines.profiles import engine_of
from gateway.fleet.client import NoAnswer, ProbeClient
from gateway.fleet.egress import EgressError, EgressGuard
from gateway.keeper.address import KeeperError, is_kept
from gateway.keeper.client import KeeperClient
from gateway.metering.segments import QUARANTINE
from gateway.settings import Settings, SettingsError
from gateway.types.errors import WeirError

LEAST_FREE: Final = 1 << 30
"""Bytes that should be free in the state folder: hours of journal, should the database be away."""
LEAST_FILES: Final = 4096
"""Descriptors a worker should be allowed: two connections for each request."""
PATIENCE_S: Final = 5.0
JOURNAL: Final = "journal"


_DATABASE_MENDS: Final = (
    "look at WEIR_DATABASE_URL and whether the server is up",
    "let this user write the file and its folder; what is damaged is put back from a backup (docs/ledger.md)",
)
"""For one on a server and for one in a file."""


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


class Finding(msgspec.Struct, frozen=True):
    """What one check found.

    Attributes:
        check: what was looked at.
        state: how bad it is.
        detail: what was seen.
        mend: what to do, ``""`` when there is nothing to do.
    """

    check: str
    state: State
    detail: str
    mend: str = ""


class _Models(msgspec.Struct):
    class Card(msgspec.Struct):
        id: str

    data: list[Card]


_models: Final = msgspec.json.Decoder(_Models)


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Look at everything, the parts that others rest on first."""
    snapshot, found = _configuration(settings)
    yield found
    yield _secret(settings)
    yield _folder(settings.home)
    yield _descriptors()
    yield _interpreter()
    async for found in _keeper(settings):
        yield found
    yield await _redis(settings)
    yield await _collector(settings)
    if snapshot is not None:
        guard = EgressGuard(snapshot.egress)
        for name in snapshot.backends:
            yield await _backend(snapshot, name, guard)


def _configuration(settings: Settings) -> tuple[ConfigSnapshot | None, Finding]:
    if settings.config is None:
        return None, Finding("configuration", State.BAD, "there is none", "set WEIR_CONFIG or give --config FILE")
    try:
        snapshot = load(settings.config, presets=presets())
    except ConfigError as error:
        count = len(error.problems)
        detail = f"{settings.config} is refused: {count} problem{'s' if count > 1 else ''}"
        return None, Finding("configuration", State.BAD, detail, "weir config check says which and how to mend them")
    detail = f"{settings.config}: {len(snapshot.backends)} backends, {len(snapshot.models)} models"
    return snapshot, Finding("configuration", State.OK, detail)


def _secret(settings: Settings) -> Finding:
    if settings.secret is not None:
        return Finding("secret", State.OK, "WEIR_SECRET")
    path = settings.home / "secret"
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return Finding("secret", State.OK, "none yet: the first start makes one in the state folder")
    except OSError as error:
        return Finding("secret", State.BAD, f"{path}: {error.strerror}", "let the user that runs Weir read it")
    if mode & 0o077:
        return Finding("secret", State.BAD, f"{path} may be read by others (mode {mode:o})", f"chmod 600 {path}")
    return Finding("secret", State.OK, f"{path}; several hosts must share it")


def _pepper(settings: Settings) -> bytes | None:
    """Return the secret, None where there is none yet, or one that is not to be used."""
    try:
        there = settings.secret is not None or (settings.home / "secret").exists()
        return settings.obtain_secret().get_secret_value().encode() if there else None
    except (SettingsError, OSError):
        return None


def _folder(home: Path) -> Finding:
    if not home.exists():
        return Finding("state folder", State.WARNING, f"{home} is not there yet", "WEIR_HOME names another")
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return Finding("state folder", State.BAD, f"{home} cannot be written", "give it to the user that runs Weir")
    try:
        free = shutil.disk_usage(home).free
    except OSError as error:
        return Finding("state folder", State.BAD, f"{home}: {error.strerror}")
    detail = f"{home}: {free / 1e9:.1f} GB free"
    if free < LEAST_FREE:
        return Finding("state folder", State.WARNING, detail, "the journal grows while the database is away: make room")
    return Finding("state folder", State.OK, detail)


def _descriptors() -> Finding:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # a server takes what it may have
    detail = f"a process may open {'any number of' if most == resource.RLIM_INFINITY else most} files"
    if most != resource.RLIM_INFINITY and most < LEAST_FILES:
        return Finding("open files", State.WARNING, detail, f"raise it to {LEAST_FILES} or more (ulimit -Hn)")
    return Finding("open files", State.OK, detail)


def is_optimised() -> bool:
    """Return whether the interpreter was built with its own optimisations, as all that are handed out ready-made are.

    Not so what `pyenv install` and a plain `./configure` make. Systems build theirs (prefix `/usr`) by rules that the
    configuration does not tell; where none is known, as on Windows, it is a ready-made one.
    """
    arguments = sysconfig.get_config_var("CONFIG_ARGS")
    return arguments is None or sys.base_prefix == "/usr" or "--enable-optimizations" in str(arguments)


def _interpreter() -> Finding:
    detail = f"{sys.implementation.name} {sys.version.partition(' ')[0]}"
    if is_optimised():
        return Finding("interpreter", State.OK, detail)
    detail += ", built without optimisations: a request costs a fifth more CPU"
    mend = "use the system's Python, an image's, or one configured with --enable-optimizations"
    return Finding("interpreter", State.WARNING, detail, mend)


async def _keeper(settings: Settings) -> AsyncIterator[Finding]:
    """Look at the keeper and what it keeps, or at the database itself when there is no keeper."""
    try:
        kept = settings.home.exists() and is_kept(settings.home)
    except (KeeperError, OSError) as error:
        yield Finding("keeper", State.BAD, str(error))
        return
    if not kept:
        yield Finding("keeper", State.OK, "none runs here")
        yield await _database(settings)
        yield _journal(settings.home, running=False)
        return
    client = KeeperClient(settings.home)
    try:
        await client.start(PATIENCE_S)
        await client.recent(1)
    except WeirError as error:
        yield Finding("keeper", State.BAD, f"one runs and does not serve: {error.message}", "its log says why")
    else:
        yield Finding("keeper", State.OK, "runs, and its database answers")
    finally:
        await client.stop()
    yield _journal(settings.home, running=True)


async def _database(settings: Settings) -> Finding:
    from gateway.keeper import schema, secret  # noqa: PLC0415 - SQLAlchemy is for who looks into the database

    url = settings.ledger_url.get_secret_value()
    if _is_to_be_made(url):
        return Finding("database", State.OK, "no file yet: the first start makes it")
    try:
        async with asyncio.timeout(PATIENCE_S):
            found, pepper, differs = await schema.revision(url), _pepper(settings), False
            if found == schema.newest() and pepper is not None:
                differs = await secret.differs(url, pepper)
    except (WeirError, KeeperError) as error:
        return Finding("database", State.BAD, str(error), _DATABASE_MENDS[url.startswith("sqlite")])
    except TimeoutError:
        return Finding("database", State.BAD, f"no answer within {PATIENCE_S:.0f} s", "look whether the server is up")
    if found is not None and not schema.is_known(found):
        mend = "start that version, or put back a backup from before it (docs/ledger.md)"
        return Finding("database", State.BAD, f"of a newer version of Weir ({found})", mend)
    if found != schema.newest():
        return Finding(
            "database", State.WARNING, "of an older version", "the next start migrates it; or: weir db migrate"
        )
    if differs:
        detail = "the last gateway over it had another WEIR_SECRET: keys made there do not work here"
        mend = "unless it was changed on purpose, give all hosts over one database the same WEIR_SECRET"
        return Finding("database", State.WARNING, detail, mend)
    return Finding("database", State.OK, "answers and is of this version")


def _is_to_be_made(url: str) -> bool:
    """Whether the URL names a file of SQLite that is not there."""
    return url.startswith("sqlite") and not Path(url.partition(":///")[2]).exists()


def _journal(home: Path, *, running: bool) -> Finding:
    """Look at what waits to be shipped."""
    folder = home / JOURNAL
    try:
        entries = list(_files(folder)) if folder.exists() else []
    except OSError as error:
        return Finding("journal", State.BAD, f"{folder}: {error.strerror}", "give it to the user that runs Weir")
    if not entries:
        return Finding("journal", State.OK, "empty")
    aside = [path for path, _ in entries if QUARANTINE in path.parts]
    if aside:
        return Finding(
            "journal", State.BAD, f"{len(aside)} files in quarantine", "weir meter audit says what is in them"
        )
    size = sum(about.st_size for _, about in entries)
    oldest = max((time.time() - about.st_mtime for _, about in entries if about.st_size), default=0.0)
    detail = f"{size / 1e6:.1f} MB, last written {oldest:.0f} s ago at the oldest"
    if running and size > LEAST_FREE:
        return Finding("journal", State.WARNING, detail, "the shipper is behind: look at the database")
    return Finding("journal", State.OK, detail)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield each file below ``folder`` that stays while it is looked at. Raises ``OSError``."""
    for entry in os.scandir(folder):  # Path.rglob says nothing of a folder that cannot be read
        if entry.is_dir():
            yield from _files(Path(entry.path))
            continue
        with suppress(FileNotFoundError):  # shipped and deleted meanwhile
            yield Path(entry.path), entry.stat()


async def _redis(settings: Settings) -> Finding:
    if settings.redis_url is None:
        return Finding("redis", State.OK, "not used: limits are kept on each host")
    from redis.asyncio import Redis  # noqa: PLC0415 - for who uses it
    from redis.exceptions import RedisError  # noqa: PLC0415 - see above

    client = Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=PATIENCE_S)
    try:
        await client.ping()
    except (RedisError, OSError, ValueError) as error:
        mend = "while it is away each host keeps the limits alone: look whether it is up"
        return Finding("redis", State.BAD, f"no answer: {type(error).__name__}", mend)
    finally:
        await client.aclose()
    return Finding("redis", State.OK, "answers")


async def _collector(settings: Settings) -> Finding:
    if settings.otlp_endpoint is None:
        return Finding("traces", State.OK, "off")
    from gateway.telemetry.spans import takes_spans  # noqa: PLC0415 - for who traces

    if await asyncio.to_thread(takes_spans, settings.otlp_endpoint, PATIENCE_S):
        return Finding("traces", State.OK, f"{settings.otlp_endpoint} takes spans")
    detail = f"{settings.otlp_endpoint} takes no spans: requests go on, theirs are lost"
    return Finding("traces", State.WARNING, detail, "look whether an OTLP/HTTP collector is there and what it wants")


async def _backend(snapshot: ConfigSnapshot, name: str, guard: EgressGuard) -> Finding:
    """Ask a backend what a gateway would ask it."""
    backend = snapshot.backends[name]
    engine, check = engine_of(backend.kind, backend.profile), f"backend {name}"
    if not engine.models_path:
        return Finding(check, State.OK, f"{backend.url}: reached through a library, so it is not asked")
    client = ProbeClient(backend, guard, connect_limit=PATIENCE_S)
    began = time.monotonic()
    try:
        page = await client.get(engine.ready_path or engine.models_path, PATIENCE_S)
        took = time.monotonic() - began
        if page.status in {401, 403}:
            return Finding(check, State.BAD, f"it answers {page.status}", "look at its api_key")
        if page.status >= 500:
            return Finding(
                check, State.BAD, f"it answers {page.status}", "the engine is not ready: its own log says why"
            )
        listed = await client.get(engine.models_path, PATIENCE_S)
        if engine.ready_path is not None and page.status == listed.status == 404:
            detail = f"{backend.url}: knows neither {engine.ready_path} nor {engine.models_path}"
            return Finding(check, State.BAD, detail, f"look at its url and kind: no {backend.kind} answers there")
        measured = engine.metrics_path is None or (await client.get(engine.metrics_path, PATIENCE_S)).status == 200
    except NoAnswer as error:
        return Finding(check, State.BAD, f"{backend.url}: {error}", "look whether it runs and listens there")
    except EgressError as error:
        return Finding(check, State.BAD, error.message, error.detail or "look at egress in the configuration")
    finally:
        await client.close()
    missing = _missing(_asked_for(snapshot, name), listed.body if listed.status == 200 else b"")
    detail = f"{backend.url}: answers in {took * 1000:.0f} ms"
    if missing:
        mend = "start it with these names, or name what it serves"
        return Finding(check, State.BAD, f"{detail}, but does not list {', '.join(missing)}", mend)
    if not measured:
        return Finding(check, State.WARNING, f"{detail}, without metrics", "routing goes by its own books alone")
    return Finding(check, State.OK, detail)


def _asked_for(snapshot: ConfigSnapshot, name: str) -> list[str]:
    """Return the names under which the backend should serve models."""
    endpoints = (endpoint for model in snapshot.models.values() for endpoint in model.endpoints)
    return sorted({endpoint.upstream_model for endpoint in endpoints if endpoint.backend == name})


def _missing(wanted: Sequence[str], body: bytes) -> list[str]:
    """Return the names that a model list lacks; nothing when there is no list to read."""
    try:
        served = {card.id for card in _models.decode(body).data}
    except msgspec.DecodeError:
        return []
    return [each for each in wanted if each not in served]
