"""A gateway that starts while its PostgreSQL server is away: it serves from what was known last, and catches up."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.access.keys import KeyRing
from gateway.keeper.memory import FILE
from gateway.keeper.service import JOURNAL_FOLDER, Keeper
from gateway.tariff.version import ACCEPT, TARIFF, Kind, Known, Proposal
from gateway.types.budgets import SET_BUDGET, NewBudget, Scope, Spend, Window
from gateway.types.errors import Unauthorized, Unavailable
from gateway.types.keys import Grant, KeyLimits, KeyPatch, NewKey
from gateway.types.money import Rates
from tests.fakes.postgres import PostgresServer, programs, query
from tests.integration.keeper.processes import PEPPER, eventually
from tests.integration.metering.samples import begin, meter

CAPPED = Scope(team="default")
SPEND = Spend(1_700_000_000_000, "default", ("m/one",), 10, 10)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this module's own, because it is stopped."""
    server = PostgresServer(programs())
    yield server
    server.close()


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    """A fresh database; the server runs again afterwards."""
    url = server.create()
    yield url
    if server.process is None:
        server.start()
    server.drop(url)


def enduring(home: Path, url: str, pepper: bytes = PEPPER) -> Keeper:
    """Return a keeper of a process that serves."""
    return Keeper(home, url, pepper, enduring=True)


async def furnished(home: Path, url: str) -> tuple[str, str]:
    """Make a key that works, one that is revoked, a budget and a price; return the keys' texts."""
    keeper = enduring(home, url)
    await keeper.start()
    works = await keeper.create_key(NewKey(name="works", team="default"))
    revoked = await keeper.create_key(NewKey(name="revoked", team="default"))
    await keeper.ask(SET_BUDGET, (NewBudget(CAPPED, Window.TOTAL, 1_000),))
    price = Proposal(kind=Kind.SELL, model="m/one", rates=Rates(100, 300), who="tests", why="", source="tests")
    await keeper.ask(ACCEPT, ((price,),))
    await keeper.ask(TARIFF, (0,))
    await keeper.revoke_key(revoked.record.key_id)
    await keeper.stop()
    return works.key, revoked.key


async def test_it_serves_from_what_was_known_and_catches_up(home: Path, server: PostgresServer, url: str) -> None:
    """Keys, revocations and prices hold; a hard budget refuses; nothing that was metered is lost when it is back."""
    works, revoked = await furnished(home, url)
    kept = home / FILE
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert works.encode() not in kept.read_bytes()
    server.stop()
    keeper = enduring(home, url)
    await keeper.start()
    assert keeper.away

    ring = KeyRing(PEPPER)
    ring.load(await keeper.subscribe(ring.apply))
    key_id = ring.authenticate(b"Bearer " + works.encode(), 1).key_id
    with pytest.raises(Unauthorized):
        ring.authenticate(b"Bearer " + revoked.encode(), 1)
    known = await keeper.ask(TARIFF, (0,))
    assert isinstance(known, Known)
    assert [version.rates for version in known.versions] == [Rates(100, 300)]
    assert list(await keeper.follow_scopes(lambda _: None)) == [CAPPED]
    limited = await keeper.admit(key_id, KeyLimits(rpm=1), 10)
    assert (limited.refused, (await keeper.admit(key_id, KeyLimits(rpm=1), 10)).refused) == (None, "rpm")
    for impossible in (
        keeper.admit(key_id, KeyLimits(), 10, SPEND),
        keeper.create_key(NewKey(name="late", team="default")),
        keeper.update_key(key_id, KeyPatch(name="late")),
        keeper.audit(),
        keeper.recent(1),
        keeper.ask(SET_BUDGET, (NewBudget(CAPPED, Window.TOTAL, 5),)),
    ):
        with pytest.raises(Unavailable, match="away"):
            await impossible
    journal = begin(home / JOURNAL_FOLDER)
    meter(journal, 20)
    await journal.commit()
    waited: list[bool] = []

    async def work() -> None:
        waited.append(keeper.away)

    await keeper.when_there(work)
    await eventually(lambda: keeper.shipper.lag_bytes > 0)

    server.start()
    await eventually(lambda: waited == [False])
    grant = await keeper.admit(key_id, KeyLimits(), 10, SPEND)
    assert isinstance(grant, Grant)
    assert grant.refused is None
    assert (await keeper.create_key(NewKey(name="late", team="default"))).record.name == "late"
    report = await keeper.audit()
    assert report.ok
    assert report.ledger["requests"] == 20
    await journal.close()
    await keeper.stop()


async def test_what_changed_meanwhile_counts_once_the_database_is_there(
    home: Path, server: PostgresServer, url: str
) -> None:
    """Another host revoked a key that this one still knew as good: it stops when the database is back, not before."""
    works, _ = await furnished(home, url)
    query(url, "UPDATE inference_key SET revoked_at = 5 WHERE name = 'works'")
    server.stop()
    keeper = enduring(home, url)
    await keeper.start()
    ring = KeyRing(PEPPER)
    ring.load(await keeper.subscribe(ring.apply))
    key_id = ring.authenticate(b"Bearer " + works.encode(), 1).key_id
    server.start()
    await eventually(lambda: not keeper.away)
    with pytest.raises(Unauthorized):
        ring.authenticate(b"Bearer " + works.encode(), 1)
    assert (await keeper.key(key_id)).revoked_at == 5
    await keeper.stop()


async def test_it_can_be_stopped_while_it_waits(home: Path, server: PostgresServer, url: str) -> None:
    """A stop does not wait for the database, and what was known stays known for the next start."""
    await furnished(home, url)
    server.stop()
    for _ in range(2):
        keeper = enduring(home, url)
        await keeper.start()
        async with asyncio.timeout(20):
            await keeper.stop()


async def test_it_does_not_start_where_waiting_is_no_answer(home: Path, server: PostgresServer, url: str) -> None:
    """Nothing known, another secret, a damaged file, no such database, a command: each says so at once."""
    await furnished(home, url)
    gone = url.replace("weir_", "never_")
    with pytest.raises(Unavailable, match="refuses"):
        await enduring(home, gone).start()
    server.stop()
    with pytest.raises(Unavailable):
        await Keeper(home, url, PEPPER).start()
    with pytest.raises(Unavailable):
        await enduring(home, url, b"another secret").start()
    with pytest.raises(Unavailable):
        await enduring(home / "new", url).start()
    content = (home / FILE).read_bytes()
    (home / FILE).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Unavailable):
        await enduring(home, url).start()
