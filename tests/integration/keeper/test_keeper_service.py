"""The keeper in one process: keys, usage, the ledger, and being the only one."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.access.keys import KeyRing
from gateway.access.store import AccessStore
from gateway.db import sqlite as engine
from gateway.keeper import housekeeping, usage
from gateway.keeper.address import KeeperError
from gateway.keeper.process import reaching
from gateway.keeper.service import JOURNAL_FOLDER, Keeper
from gateway.metering.journal import Journal
from gateway.metering.record import Close, Dimensions, Open, RowKind, Status, frame
from gateway.metering.segments import SegmentWriter, new_writer_id
from gateway.types.charge import Charge
from gateway.types.errors import BadRequest, Unauthorized, Unavailable
from gateway.types.generation import KeyUsage
from gateway.types.ids import RequestId, RequestIds
from gateway.types.keys import KeyLimits, KeyPatch, KeyRecord, NewKey
from gateway.types.tokens import Usage, UsageSource
from tests.integration.keeper.processes import PEPPER, url_of


def dimensions(key_id: str) -> Dimensions:
    """Return what a request of ``key_id`` is counted by."""
    return Dimensions(
        team="default",
        key_id=key_id,
        model="m/one",
        endpoint="own",
        backend="gpu-a",
        provider="own",
        app="",
        tier="default",
        operation="chat",
        requested_model="m/one",
        upstream_model="one",
        user="",
        streamed=False,
        price_id=0,
        cost_id=0,
    )


def at(moment: datetime) -> RequestId:
    """Return a request id of ``moment``."""
    stamp = int(moment.timestamp() * 1000).to_bytes(6, "big")
    return RequestId(stamp + RequestIds().new()[6:])


async def meter(
    home: Path,
    key_id: str,
    request_id: RequestId,
    nano: int = 0,
    attempts: Sequence[Status] = (Status.OK,),
) -> None:
    """Write the attempts of a request to the journal, as a worker does; the last one is charged ``nano``."""
    journal = Journal.create(home / JOURNAL_FOLDER)
    now = time.time_ns() // 1000
    for number, status in enumerate(attempts, 1):
        journal.append(Open(request_id, number, dimensions(key_id), now, 3))
        charge = Charge(completion=nano) if number == len(attempts) else Charge()
        journal.append(
            Close(
                request_id,
                number,
                RowKind.USAGE,
                dimensions(key_id),
                now,
                status,
                usage=Usage(3, 5),
                source=UsageSource.UPSTREAM,
                charge=charge,
            )
        )
    await journal.commit()
    await journal.close()


async def test_a_key_works_from_its_making_to_its_revocation(keeper: Keeper) -> None:
    """A ring that follows the keeper accepts a key at once, feels each change, and forgets it when it is revoked."""
    ring = KeyRing(PEPPER)
    ring.load(await keeper.subscribe(ring.apply))
    issued = await keeper.create_key(NewKey(name="k", team="default"))
    header = b"Bearer " + issued.key.encode()
    assert ring.authenticate(header, 1).key_id == issued.record.key_id
    await keeper.update_key(issued.record.key_id, KeyPatch(limits=KeyLimits(rpm=5)))
    assert ring.authenticate(header, 1).limits == KeyLimits(rpm=5)
    rotated = await keeper.rotate_key(issued.record.key_id, 60)
    assert ring.authenticate(header, time.time_ns() // 1000).key_id == issued.record.key_id
    assert ring.authenticate(b"Bearer " + rotated.key.encode(), 1).key_id == issued.record.key_id
    await keeper.revoke_key(issued.record.key_id)
    for text in (issued.key, rotated.key):
        with pytest.raises(Unauthorized):
            ring.authenticate(b"Bearer " + text.encode(), 1)


async def test_changes_are_told_in_the_order_of_their_commits(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long each of many at once takes, the last thing a subscriber hears is what the database says."""
    store = AccessStore.update_key

    async def slower_and_faster(self: AccessStore, key_id: str, patch: KeyPatch) -> KeyRecord:
        record = await store(self, key_id, patch)
        await asyncio.sleep(0.3 if record.name.endswith("0") else 0)
        return record

    monkeypatch.setattr(AccessStore, "update_key", slower_and_faster)
    key_id = (await keeper.create_key(NewKey(name="k", team="default"))).record.key_id
    heard: list[KeyRecord] = []
    await keeper.subscribe(heard.extend)
    await asyncio.gather(*(keeper.update_key(key_id, KeyPatch(name=f"name {n}")) for n in range(20)))
    assert len(heard) == 20
    assert heard[-1] == await keeper.key(key_id)


async def test_a_change_is_told_even_if_nobody_waits_for_it_any_more(keeper: Keeper) -> None:
    """A caller that hangs up in the middle leaves no key that the database has and the processes do not."""
    heard: list[KeyRecord] = []
    await keeper.subscribe(heard.extend)
    call = asyncio.create_task(keeper.create_key(NewKey(name="k", team="default")))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(20):
        while not heard:
            await asyncio.sleep(0.01)
    assert [record.key_id for record in await keeper.keys()] == [heard[0].key_id]


async def test_the_first_audit_after_a_death_knows_the_orphan(home: Path) -> None:
    """What a killed process left is in the ledger before the books are compared, not in the next audit."""
    lost = Open(RequestIds().new(), 1, dimensions("abcd1234"), time.time_ns() // 1000, 3)
    (home / JOURNAL_FOLDER).mkdir(parents=True)
    SegmentWriter.create(home / JOURNAL_FOLDER, new_writer_id(), 1, [frame(lost)]).close()
    for _ in range(2):
        async with reaching(home, url_of(home), PEPPER) as keeper:
            report = await keeper.audit()
        assert report.ok
        assert (report.ledger["rows_orphaned"], report.journal["unshipped_bytes"]) == (1, 0)


async def test_a_fresh_keeper_of_a_command_has_shipped_first(home: Path) -> None:
    """A command that reads sums where no keeper runs lacks nothing of what is in the journal."""
    await meter(home, "abcd1234", RequestIds().new(), nano=7)
    async with reaching(home, url_of(home), PEPPER, fresh=True) as keeper:
        assert (await keeper.key_usage(["abcd1234"]))["abcd1234"].total == 7


async def test_keys_survive_the_keeper(home: Path) -> None:
    """A keeper that starts again knows every key, revoked ones too."""
    first = Keeper(home, url_of(home), PEPPER)
    await first.start()
    kept = (await first.create_key(NewKey(name="kept", team="default"))).record
    revoked = (await first.create_key(NewKey(name="gone", team="default"))).record
    await first.revoke_key(revoked.key_id)
    await first.stop()
    second = Keeper(home, url_of(home), PEPPER)
    await second.start()
    known = {record.key_id: record for record in await second.subscribe(lambda _: None)}
    await second.stop()
    assert known[kept.key_id] == kept
    assert known[revoked.key_id].revoked_at is not None


async def test_a_folder_has_one_keeper(keeper: Keeper, home: Path) -> None:
    """A second one refuses to start and leaves the first alone."""
    with pytest.raises(KeeperError, match="already"):
        await Keeper(home, url_of(home), PEPPER).start()
    assert [team.slug for team in await keeper.teams()] == ["default"]


async def test_a_database_of_no_use_is_said_at_the_start(home: Path) -> None:
    """The start fails with a message, and gives the folder back."""
    with pytest.raises(KeeperError, match="not supported"):
        await Keeper(home, "mysql://localhost/x", PEPPER).start()
    (home / "weir.db").mkdir()
    with pytest.raises(Unavailable):
        await Keeper(home, url_of(home), PEPPER).start()
    (home / "weir.db").rmdir()
    keeper = Keeper(home, url_of(home), PEPPER)
    await keeper.start()
    await keeper.stop()


async def test_while_the_database_is_away_keys_and_limits_go_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A locked database makes changes Unavailable and nothing else; what was metered meanwhile is there afterwards."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 50)
    keeper = Keeper(home, url_of(home), PEPPER)
    await keeper.start()
    ring = KeyRing(PEPPER)
    ring.load(await keeper.subscribe(ring.apply))
    issued = await keeper.create_key(NewKey(name="k", team="default"))
    key_id = issued.record.key_id
    other = sqlite3.connect(home / "weir.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as caught:
            await keeper.revoke_key(key_id)
        assert caught.value.retry_after
        assert ring.authenticate(b"Bearer " + issued.key.encode(), 1).key_id == key_id
        grant = await keeper.admit(key_id, KeyLimits(concurrent=1), 5)
        assert (await keeper.admit(key_id, KeyLimits(concurrent=1), 5)).refused == "concurrent"
        keeper.settle(grant.hold, 5)
        await meter(home, key_id, RequestIds().new(), 11)
    finally:
        other.rollback()
        other.close()
    await keeper.revoke_key(key_id)
    assert len(ring) == 0
    await keeper.shipper.ship()
    assert (await keeper.key_usage([key_id]))[key_id].total == 11
    await keeper.stop()


async def test_a_stopped_keeper_says_so(home: Path) -> None:
    """Calls before the start and after the stop are Unavailable, not a crash."""
    keeper = Keeper(home, url_of(home), PEPPER)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await keeper.keys()
        await keeper.start()
        await keeper.stop()


async def test_the_demo_key_is_made_once(keeper: Keeper) -> None:
    """Making sure of a key twice gives the same key; a revoked one stays revoked."""
    new = NewKey(name="demo", team="default")
    text = "the-demo-key-of-this-house"
    first = await keeper.ensure_key(new, text)
    assert await keeper.ensure_key(new, text) == first
    await keeper.revoke_key(first.key_id)
    assert (await keeper.ensure_key(new, text)).revoked_at is not None
    assert (await keeper.ensure_team("t", "T")) == (await keeper.ensure_team("t", "other name"))


async def test_a_key_of_another_secret_is_not_taken_for_this_one(home: Path) -> None:
    """When the gateway's secret changed, the operator is told rather than left with a key that does not work."""
    text = "the-demo-key-of-this-house"
    for pepper in (PEPPER, b"another"):
        keeper = Keeper(home, url_of(home), pepper)
        await keeper.start()
        try:
            if pepper == PEPPER:
                await keeper.ensure_key(NewKey(name="demo", team="default"), text)
            else:
                with pytest.raises(BadRequest, match="another secret") as caught:
                    await keeper.ensure_key(NewKey(name="demo", team="default"), text)
                assert text not in caught.value.message
        finally:
            await keeper.stop()


async def test_a_request_that_ended_a_moment_ago_is_found(keeper: Keeper, home: Path) -> None:
    """What is durable in the journal is found by its id at once, not only after the next round of shipping."""
    request_id = RequestIds().new()
    await meter(home, "abcd1234", request_id, 1234)
    found = await keeper.generation(request_id)
    assert found is not None
    assert found.attempts[0].charge_nano == 1234
    assert await keeper.generation(RequestIds().new()) is None
    assert [record.request_id for record in await keeper.recent(5)] == [request_id]
    report = await keeper.audit()
    assert report.ok, report.mismatches


async def test_the_attempt_that_answered_is_found_behind_the_failed_ones(keeper: Keeper, home: Path) -> None:
    """A request whose first attempt is in the ledger already is told whole."""
    request_id = RequestIds().new()
    await meter(home, "abcd1234", request_id, attempts=(Status.FAILED,))
    first = await keeper.generation(request_id)
    assert first is not None
    assert [attempt.status for attempt in first.attempts] == ["failed"]
    await meter(home, "abcd1234", request_id, attempts=(Status.FAILED, Status.OK))
    second = await keeper.generation(request_id)
    assert second is not None
    assert [attempt.status for attempt in second.attempts] == ["failed", "ok"]


async def test_the_last_use_of_a_key_is_kept(keeper: Keeper, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metered request shows up as the key's last use, without any call of the key's holder to the database."""
    monkeypatch.setattr(housekeeping, "HOUSEKEEPING_S", 0.05)
    key_id = (await keeper.create_key(NewKey(name="k", team="default"))).record.key_id
    before = time.time_ns() // 1000
    await meter(home, key_id, RequestIds().new())
    async with asyncio.timeout(20):
        while (used := (await keeper.key(key_id)).last_used_at) is None:
            await asyncio.sleep(0.02)
    assert used >= before


async def test_stopping_ships_what_is_in_the_journal(home: Path) -> None:
    """A keeper that is stopped leaves the ledger complete, the last use of keys included."""
    keeper = Keeper(home, url_of(home), PEPPER)
    await keeper.start()
    key_id = (await keeper.create_key(NewKey(name="k", team="default"))).record.key_id
    for _ in range(20):
        await meter(home, key_id, RequestIds().new(), 7)
    await keeper.stop()
    await keeper.start()
    assert (await keeper.key_usage([key_id]))[key_id].total == 140
    assert (await keeper.key(key_id)).last_used_at is not None
    await keeper.stop()


async def test_usage_is_counted_by_utc_day_week_and_month(keeper: Keeper, home: Path) -> None:
    """Weeks begin on Monday; a key that was never used has zeros; keys are kept apart."""
    wednesday = datetime(2026, 9, 30, 23, 30, tzinfo=UTC)
    charged = {
        wednesday: 1,
        wednesday - timedelta(days=1): 10,
        wednesday - timedelta(days=2): 100,  # Monday
        wednesday - timedelta(days=3): 1_000,  # Sunday before
        datetime(2026, 9, 1, tzinfo=UTC): 10_000,
        datetime(2026, 8, 31, 23, 59, 59, tzinfo=UTC): 100_000,
    }
    for moment, nano in charged.items():
        await meter(home, "abcd1234", at(moment), nano)
    await meter(home, "other000", at(wednesday), 5)
    await keeper.shipper.ship()
    database = keeper._database
    assert database is not None
    used = await usage.key_usage(database, ["abcd1234", "other000", "unused00"], wednesday)
    assert used == {
        "abcd1234": KeyUsage(total=111_111, day=1, week=111, month=11_111),
        "other000": KeyUsage(5, 5, 5, 5),
        "unused00": KeyUsage(),
    }
    next_day = await usage.key_usage(database, ["other000"], wednesday + timedelta(hours=1))
    assert next_day == {"other000": KeyUsage(total=5, day=0, week=5, month=0)}


async def test_usage_of_very_many_keys_is_read_in_portions(keeper: Keeper, home: Path) -> None:
    """The number of keys asked about is not limited by what one statement can hold."""
    await meter(home, "key01234", RequestIds().new(), 9)
    await keeper.shipper.ship()
    used = await keeper.key_usage([f"key{number:05}" for number in range(1500)])
    assert len(used) == 1500
    assert used["key01234"].total == 9
    assert sum(each.total for each in used.values()) == 9
