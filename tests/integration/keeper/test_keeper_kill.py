"""Keepers and workers as real processes, killed with SIGKILL in the middle."""

from __future__ import annotations

import signal
from pathlib import Path

from gateway.access.keys import KeyRing
from gateway.keeper.client import KeeperClient
from gateway.keeper.service import Keeper
from gateway.types.keys import KeyLimits, NewKey
from tests.integration.keeper.processes import PEPPER, Connect, Processes, eventually


async def test_the_requests_of_a_killed_worker_are_released(keeper: Keeper, processes: Processes) -> None:
    """The slots of a worker that dies are free again, without anybody waiting for a time limit."""
    worker = await processes.worker("abcd1234", 5)
    assert keeper.limits.running == 5
    assert (await keeper.admit("abcd1234", KeyLimits(concurrent=5), 1)).refused == "concurrent"
    worker.send_signal(signal.SIGKILL)
    await eventually(lambda: keeper.limits.running == 0)
    assert (await keeper.admit("abcd1234", KeyLimits(concurrent=5), 1)).refused is None


async def test_a_killed_keeper_is_replaced_and_nothing_is_forgotten(processes: Processes, connect: Connect) -> None:
    """Keys, revocations and running requests are as before after kill -9 and a new start."""
    limits = KeyLimits(concurrent=1)
    first = processes.keeper()
    async with connect(patience=30.0) as client:
        ring = KeyRing(PEPPER)
        ring.load(await client.subscribe(ring.apply))
        kept = await client.create_key(NewKey(name="kept", team="default", limits=limits))
        revoked = await client.create_key(NewKey(name="revoked", team="default"))
        await client.revoke_key(revoked.record.key_id)
        grant = await client.admit(kept.record.key_id, limits, 1)
        await eventually(lambda: len(ring) == 1)

        first.kill()
        first.wait()
        await eventually(lambda: not client.connected)
        assert ring.authenticate(b"Bearer " + kept.key.encode(), 1).key_id == kept.record.key_id

        processes.keeper()
        await eventually(lambda: client.connected, seconds=60)
        assert [record.key_id for record in await client.keys()] == [kept.record.key_id]
        assert (await client.key(revoked.record.key_id)).revoked_at is not None
        assert (await client.admit(kept.record.key_id, limits, 1)).refused == "concurrent"
        client.settle(grant.hold, 1)
        assert (await client.admit(kept.record.key_id, limits, 1)).refused is None
        await client.revoke_key(kept.record.key_id)
        await eventually(lambda: len(ring) == 0)


async def test_a_keeper_that_is_told_to_stop_leaves_nothing_behind(
    processes: Processes, connect: Connect, home: Path
) -> None:
    """SIGTERM ends it cleanly: exit status 0, no socket, and clients see it go."""
    process = processes.keeper()
    async with connect() as client:
        assert isinstance(client, KeeperClient)
        process.terminate()
        await eventually(lambda: process.poll() is not None)
        assert process.returncode == 0
        await eventually(lambda: not client.connected)
    assert not (home / "keeper.sock").exists()
