"""A PostgreSQL server that comes back with less than it had: an older standby took over, or a backup was put back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from gateway.access.keys import KeyRing
from gateway.keeper.service import JOURNAL_FOLDER, Keeper
from gateway.types.budgets import NewBudget, Scope, Spend, Window
from gateway.types.errors import WeirError
from gateway.types.keys import KeyLimits, NewKey
from tests.fakes.postgres import PostgresServer, query
from tests.integration.keeper.processes import PEPPER, eventually
from tests.integration.metering.samples import begin, meter

LABELLED = "SELECT COUNT(*) FROM ledger JOIN label_set USING (label_id) JOIN price USING (price_id)"
LEASED = "SELECT SUM(amount) FROM budget_lease"


class Standby:
    """A copy of a database that is some moments behind, and takes its place."""

    def __init__(self, server: PostgresServer, url: str) -> None:
        self._server = server
        self._name = str(make_url(url).database)
        self._copy = f"{self._name}_standby"

    def follow(self) -> None:
        """Copy the database as it is now; connections to it break."""
        self._alone()
        self._server.execute("postgres", f"CREATE DATABASE {self._copy} TEMPLATE {self._name}")
        self._server.execute("postgres", f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS true")

    def take_over(self) -> None:
        """Be the database from now on; what was committed since ``follow`` is lost."""
        self._alone()
        self._server.execute("postgres", f"DROP DATABASE {self._name}")
        self._server.execute("postgres", f"ALTER DATABASE {self._copy} RENAME TO {self._name}")

    def close(self) -> None:
        """Remove the copy, if it has not taken over."""
        self._server.execute("postgres", f"DROP DATABASE IF EXISTS {self._copy}")

    def _alone(self) -> None:
        self._server.execute("postgres", f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS false")
        ended = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{self._name}'"
        self._server.execute("postgres", ended)


@pytest.fixture
def standby(postgres_server: PostgresServer, postgres_url: str) -> Iterator[Standby]:
    """A standby of the database at ``postgres_url``."""
    standby = Standby(postgres_server, postgres_url)
    yield standby
    standby.close()


async def test_what_the_journal_still_has_is_shipped_again(postgres_url: str, standby: Standby, tmp_path: Path) -> None:
    """Rows, labels and prices that the server forgot come back from the journal, once; the books agree."""
    journal = begin(tmp_path / JOURNAL_FOLDER, durability="process")
    keeper = Keeper(tmp_path, postgres_url, PEPPER)
    await keeper.start()
    await keeper.catch_up()
    standby.follow()
    meter(journal, 5)
    meter(journal, 5, team="team-b")
    await keeper.catch_up()
    standby.take_over()
    meter(journal, 5, team="team-b")
    await eventually(lambda: query(postgres_url, LABELLED) == [(15,)])
    report = await keeper.audit()
    assert report.ok, report.mismatches
    await journal.close()
    await keeper.stop()


async def test_labels_are_told_again_when_their_segment_is_gone(
    postgres_url: str, standby: Standby, tmp_path: Path
) -> None:
    """What was deleted after it was shipped is lost with the server; what comes with the same labels is not."""
    folder = tmp_path / JOURNAL_FOLDER
    journal = begin(folder, durability="process")
    keeper = Keeper(tmp_path, postgres_url, PEPPER)
    await keeper.start()
    standby.follow()
    meter(journal, 5)
    await journal.close()
    await keeper.catch_up()
    standby.take_over()
    journal = begin(folder, durability="process")
    meter(journal, 5)
    await eventually(lambda: query(postgres_url, LABELLED) == [(5,)])
    report = await keeper.audit()
    assert report.ok, report.mismatches
    await journal.close()
    await keeper.stop()


async def test_what_a_host_has_leased_is_written_again(postgres_url: str, standby: Standby, tmp_path: Path) -> None:
    """No other host is lent what this one may still spend."""
    journal = begin(tmp_path / JOURNAL_FOLDER, durability="process")
    keeper = Keeper(tmp_path, postgres_url, PEPPER)
    await keeper.start()
    await keeper.treasury.set(NewBudget(Scope(model="m"), Window.TOTAL, 1_000))
    standby.follow()
    spend = Spend(time.time_ns() // 1_000_000, "default", ("m",), 600, 600)
    grant = await keeper.admit("key", KeyLimits(), 1, spend)
    assert grant.hold
    await eventually(lambda: query(postgres_url, LEASED) == [(600,)])
    standby.take_over()
    assert query(postgres_url, LEASED) == [(None,)]
    meter(journal, 1)
    await eventually(lambda: query(postgres_url, LEASED) == [(600,)])
    await journal.close()
    await keeper.stop()


async def test_what_a_host_has_given_back_is_not_leased_again(
    postgres_url: str, standby: Standby, tmp_path: Path
) -> None:
    """A lease that only the server still remembers is in nobody's way."""
    journal = begin(tmp_path / JOURNAL_FOLDER, durability="process")
    keeper = Keeper(tmp_path, postgres_url, PEPPER)
    await keeper.start()
    budget = await keeper.treasury.set(NewBudget(Scope(model="m"), Window.TOTAL, 1_000))
    spend = Spend(time.time_ns() // 1_000_000, "default", ("m",), 600, 600)
    grant = await keeper.admit("key", KeyLimits(), 1, spend)
    standby.follow()
    keeper.settle(grant.hold, 1)
    await keeper.treasury.delete(budget.budget_id)
    await eventually(lambda: query(postgres_url, LEASED) == [(None,)])
    await eventually(lambda: not keeper.treasury.escrow.pools)
    standby.take_over()
    assert query(postgres_url, LEASED) == [(600,)]
    meter(journal, 1)
    await eventually(lambda: query(postgres_url, LEASED) == [(None,)])
    await journal.close()
    await keeper.stop()


async def test_a_key_that_the_server_forgot_works_no_more(postgres_url: str, standby: Standby, tmp_path: Path) -> None:
    """Nobody could revoke it: it is in no list."""
    keeper = Keeper(tmp_path, postgres_url, PEPPER)
    await keeper.start()
    ring = KeyRing(PEPPER)
    ring.load(await keeper.subscribe(ring.apply))
    kept = await keeper.create_key(NewKey(name="kept", team="default"))
    standby.follow()
    lost = await keeper.create_key(NewKey(name="lost", team="default"))
    await eventually(lambda: len(ring) == 2)
    standby.take_over()

    def works(key: str) -> bool:
        try:
            ring.authenticate(b"Bearer " + key.encode(), 1)
        except WeirError:
            return False
        return True

    await eventually(lambda: not works(lost.key))
    assert works(kept.key)
    await keeper.stop()
