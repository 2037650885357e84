"""Several hosts on one PostgreSQL: each keeper ships its own journal; what one changes, all know."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.access.keys import KeyRing
from gateway.keeper.service import JOURNAL_FOLDER, Keeper
from gateway.types.errors import Unavailable
from gateway.types.keys import KeyRecord, NewKey
from tests.fakes.postgres import PostgresServer, query
from tests.integration.keeper.processes import PEPPER, eventually
from tests.integration.metering.samples import begin, meter

SUMS = "SELECT SUM(requests), SUM(tokens_prompt), SUM(charge_nano) FROM usage_hour"


async def test_two_hosts_ship_at_once_and_nothing_is_lost_or_doubled(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Rows of one hour and one label set come from both at the same time; sums and histograms hold all of them."""
    homes = [tmp_path_factory.mktemp("h") for _ in range(2)]
    journals = [begin(home / JOURNAL_FOLDER, durability="process") for home in homes]
    ends = [end for journal in journals for end in meter(journal, 600)]
    keepers = [Keeper(home, postgres_url, PEPPER) for home in homes]
    await asyncio.gather(*[keeper.start() for keeper in keepers])
    for _ in range(3):
        ends += [end for journal in journals for end in meter(journal, 200)]
        await asyncio.gather(*[keeper.shipper.ship() for keeper in keepers])
    assert [keeper.shipper.conflicts for keeper in keepers] == [0, 0]
    assert query(postgres_url, "SELECT COUNT(*), COUNT(DISTINCT request_id) FROM ledger") == [(2400, 2400)]
    assert [tuple(map(int, row)) for row in query(postgres_url, SUMS)] == [
        (2400, sum(end.usage.prompt for end in ends), sum(end.charge.total for end in ends))
    ]
    for keeper in keepers:
        report = await keeper.audit()
        assert report.ok, report.mismatches
    for journal in journals:
        await journal.close()
    await asyncio.gather(*[keeper.stop() for keeper in keepers])
    assert query(postgres_url, "SELECT COUNT(*) FROM journal_checkpoint WHERE NOT finished") == [(0,)]


async def test_a_key_that_one_host_revokes_stops_on_the_other(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Made, changed and revoked keys reach the other host by themselves, teams and all."""
    here, there = (Keeper(tmp_path_factory.mktemp("h"), postgres_url, PEPPER) for _ in range(2))
    await here.start()
    await there.start()
    ring = KeyRing(PEPPER)
    ring.load(await there.subscribe(ring.apply))
    await here.create_team("acme", "Acme")
    issued = await here.create_key(NewKey(name="k", team="acme"))
    text = b"Bearer " + issued.key.encode()
    await eventually(lambda: len(ring) == 1)
    assert ring.authenticate(text, 1).team == "acme"
    assert [team.slug for team in await there.teams()] == ["acme", "default"]
    await here.revoke_key(issued.record.key_id)
    await eventually(lambda: len(ring) == 0)
    assert (await there.ensure_team("acme", "Acme")).name == "Acme"
    await here.stop()
    await there.stop()


async def test_a_server_that_goes_and_comes_is_waited_for(
    postgres_server: PostgresServer, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """While the server is away keys stay as last known and the journal waits; afterwards all of it is there, once."""
    home = tmp_path_factory.mktemp("h")
    journal = begin(home / JOURNAL_FOLDER)
    keeper = Keeper(home, postgres_url, PEPPER)
    await keeper.start()
    ring = KeyRing(PEPPER)
    told: list[KeyRecord] = []

    def tell(records: Sequence[KeyRecord]) -> None:
        told.extend(records)
        ring.apply(records)

    ring.load(await keeper.subscribe(tell))
    issued = await keeper.create_key(NewKey(name="k", team="default"))
    text = b"Bearer " + issued.key.encode()
    meter(journal, 20)
    await keeper.shipper.ship()
    postgres_server.stop(crash=True)
    try:
        meter(journal, 30)
        with pytest.raises(Unavailable):
            await keeper.shipper.ship()
        with pytest.raises(Unavailable):
            await keeper.create_key(NewKey(name="late", team="default"))
        assert keeper.shipper.lag_bytes > 0
        assert ring.authenticate(text, 1).key_id == issued.record.key_id
        meter(journal, 30)
    finally:
        postgres_server.start()
    await eventually(lambda: query(postgres_url, "SELECT COUNT(*) FROM ledger") == [(80,)])
    await keeper.revoke_key(issued.record.key_id)
    assert told[-1].revoked_at is not None
    assert (await keeper.audit()).ok
    await journal.close()
    await keeper.stop()


async def test_a_host_with_another_secret_is_told_of(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keys of one do not work on the other, which no caller could tell from a wrong key: the log says why."""

    async def begin_and_end(home: Path, pepper: bytes) -> list[str]:
        with capture_logs() as logs:
            keeper = Keeper(home, postgres_url, pepper)
            await keeper.start()
            await keeper.stop()
        return [entry["event"] for entry in logs]

    here, there, elsewhere = (tmp_path_factory.mktemp("h") for _ in range(3))
    assert await begin_and_end(here, PEPPER) == []
    assert await begin_and_end(here, PEPPER) == []
    assert await begin_and_end(there, PEPPER) == []
    assert await begin_and_end(elsewhere, b"made here, because none was given") == ["secret_differs"]
    marks = query(postgres_url, "SELECT mark FROM secret_mark")
    assert len(marks) == 1
    assert PEPPER not in marks[0][0]
