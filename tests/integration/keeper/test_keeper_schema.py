"""Bringing the ledger database to this version, here and in a process of its own."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.db import migrations
from gateway.keeper import schema
from gateway.keeper.address import KeeperError, KeeperLock, is_kept
from gateway.types.errors import Unavailable
from tests.integration.keeper.processes import url_of

WAYS = pytest.mark.parametrize("migrate", [schema.migrate_here, schema.migrate_apart])


def test_the_newest_revision_is_the_one_that_migrations_lead_to() -> None:
    """The cheap look and the migrations speak of the same revision."""
    assert schema.newest() == migrations.head()


@WAYS
async def test_a_new_database_is_migrated_and_then_current(home: Path, migrate: schema.Migrate) -> None:
    """Before it is not of this version, afterwards it is, and doing it again changes nothing."""
    lock = KeeperLock(home).acquire()
    try:
        assert not await schema.is_current(url_of(home))
        for _ in range(2):
            await migrate(url_of(home), lock.descriptor)
            assert await schema.is_current(url_of(home))
        assert is_kept(home)
    finally:
        lock.release()
    assert not is_kept(home)


@WAYS
async def test_a_database_of_a_newer_version_is_refused(home: Path, migrate: schema.Migrate) -> None:
    """It is not of this version, and migrating says why it cannot be."""
    lock = KeeperLock(home).acquire()
    try:
        await schema.migrate_here(url_of(home), lock.descriptor)
        with closing(sqlite3.connect(home / "weir.db")) as database:
            database.execute("UPDATE alembic_version SET version_num = '9999_future'")
            database.commit()
        assert not await schema.is_current(url_of(home))
        with pytest.raises(KeeperError, match="9999_future"):
            await migrate(url_of(home), lock.descriptor)
    finally:
        lock.release()


@WAYS
async def test_a_database_that_cannot_be_used_is_away(home: Path, migrate: schema.Migrate) -> None:
    """What may pass is told apart from what needs the operator."""
    lock = KeeperLock(home).acquire()
    (home / "weir.db").write_bytes(b"this is no database" * 100)
    try:
        with pytest.raises(Unavailable):
            await schema.is_current(url_of(home))
        with pytest.raises(Unavailable, match="database"):
            await migrate(url_of(home), lock.descriptor)
    finally:
        lock.release()
