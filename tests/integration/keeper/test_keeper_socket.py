"""Clients of a keeper over its real socket: the same answers, the same errors, nothing held for the dead."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import Any, Self

import pytest

from gateway.access.keys import KeyRing
from gateway.keeper import protocol, server
from gateway.keeper.address import socket_path
from gateway.keeper.client import KeeperClient
from gateway.keeper.process import reaching, serving
from gateway.keeper.protocol import Failure, FrameReader, Message, Reply, Request, frame, raw
from gateway.keeper.service import Keeper
from gateway.types.errors import BadRequest, NotFound, RateLimited, Unauthorized, Unavailable
from gateway.types.ids import RequestIds
from gateway.types.keys import Grant, KeyFeed, KeyLimits, KeyPatch, KeyRecord, NewKey
from tests.integration.keeper.processes import PEPPER, Connect, eventually, url_of


async def test_a_client_does_what_the_keeper_does(keeper: Keeper, client: KeeperClient) -> None:
    """Every call gives through the socket what it gives next to the database."""
    assert (await client.create_team("research", "Research")).slug == "research"
    issued = await client.create_key(NewKey(name="k", team="research", models=("m/one",), limits=KeyLimits(tpm=9)))
    key_id = issued.record.key_id
    assert await keeper.key(key_id) == issued.record == await client.key(key_id)
    assert await client.teams() == await keeper.teams()
    assert await client.keys() == await client.keys("research") == await keeper.keys()
    changed = await client.update_key(key_id, KeyPatch(models=None))
    assert (changed.models, changed.limits) == (None, KeyLimits(tpm=9))
    rotated = await client.rotate_key(key_id, 5)
    assert rotated.record.previous_digest == issued.record.digest
    assert (await client.revoke_key(key_id)).revoked_at is not None
    assert await client.keys() == ()
    assert await client.key_usage([key_id]) == await keeper.key_usage([key_id])
    assert await client.generation(RequestIds().new()) is None
    assert await client.recent(3) == ()
    assert (await client.audit()).ok


async def test_errors_keep_their_class_and_their_field(client: KeeperClient) -> None:
    """A caller of the client can tell what went wrong as well as one of the keeper."""
    with pytest.raises(NotFound):
        await client.key("zzzzzzzz")
    with pytest.raises(BadRequest) as caught:
        await client.create_key(NewKey(name="", team="default"))
    assert caught.value.param == "name"
    with pytest.raises(RateLimited, match="can never fit"):
        await client.admit("k", KeyLimits(tpm=1), 2)


async def test_what_the_wire_cannot_carry_is_a_bad_request(client: KeeperClient) -> None:
    """Numbers and texts beyond what the protocol has are refused with a reason, and the session goes on."""
    issued = await client.create_key(NewKey(name="k", team="default"))
    for limits in (KeyLimits(rpm=2**70), KeyLimits(tpm=2**64), KeyLimits(concurrent=-(2**70))):
        with pytest.raises(BadRequest, match="a limit is a whole number") as caught:
            await client.create_key(NewKey(name="k", team="default", limits=limits))
        assert caught.value.param in {"limits.rpm", "limits.tpm", "limits.concurrent"}
        with pytest.raises(BadRequest, match="a limit is a whole number"):
            await client.update_key(issued.record.key_id, KeyPatch(limits=limits))
    with pytest.raises(BadRequest, match="not valid Unicode"):
        await client.create_key(NewKey(name="\udcff", team="default"))
    with pytest.raises(BadRequest, match="too large"):
        await client.admit("k", KeyLimits(rpm=1), 2**70)
    assert list(await client.keys()) == [issued.record]


async def test_a_revoked_key_stops_working_in_every_process(keeper: Keeper, connect: Connect) -> None:
    """A change by one client reaches the rings of all others, and of the keeper's own process."""
    rings = [KeyRing(PEPPER) for _ in range(3)]
    async with connect() as first, connect() as second:
        feeds: tuple[KeyFeed, ...] = (keeper, first, second)
        for ring, feed in zip(rings, feeds, strict=True):
            ring.load(await feed.subscribe(ring.apply))
        issued = await first.create_key(NewKey(name="k", team="default"))
        header = b"Bearer " + issued.key.encode()
        await eventually(lambda: all(len(ring) == 1 for ring in rings))
        assert {ring.authenticate(header, 1).key_id for ring in rings} == {issued.record.key_id}
        await second.revoke_key(issued.record.key_id)
        # The word about it goes out before anything else is answered, so an answer proves that it has arrived.
        await first.teams()
        for ring in rings:
            with pytest.raises(Unauthorized):
                ring.authenticate(header, 1)


async def test_limits_count_over_all_workers(keeper: Keeper, connect: Connect) -> None:
    """Two workers share the limits of a key; settling in one makes room in the other."""
    limits = KeyLimits(concurrent=2)
    async with connect() as first, connect() as second:
        one, two = await first.admit("k", limits, 1), await second.admit("k", limits, 1)
        assert one.hold
        assert two.hold
        assert (await first.admit("k", limits, 1)).refused == "concurrent"
        second.settle(two.hold, 1)
        assert (await second.admit("k", limits, 1)).refused is None
        assert (await first.admit("k", limits, 1)).refused == "concurrent"


async def test_reserved_tokens_are_replaced_through_the_socket(client: KeeperClient) -> None:
    """A settlement corrects the minute's tokens."""
    limits = KeyLimits(tpm=100)
    grant = await client.admit("k", limits, 90)
    assert (await client.admit("k", limits, 20)).refused == "tpm"
    client.settle(grant.hold, 10)
    assert (await client.admit("k", limits, 90)).refused is None


async def test_keys_without_limits_do_not_ask_the_keeper(home: Path) -> None:
    """They work even when there is no keeper."""
    assert await KeeperClient(home).admit("k", KeyLimits(), 10**9) == Grant(0)


async def test_a_client_that_goes_releases_what_it_held(keeper: Keeper, connect: Connect) -> None:
    """Stopping a client frees its requests, and only its own."""
    limits = KeyLimits(concurrent=4)
    async with connect() as stays:
        await stays.admit("k", limits, 1)
        async with connect() as goes:
            for _ in range(3):
                assert (await goes.admit("k", limits, 1)).hold
            assert (await stays.admit("k", limits, 1)).refused == "concurrent"
        await eventually(lambda: keeper.limits.running == 1)


async def test_an_admission_nobody_waits_for_any_more_is_given_back(keeper: Keeper, client: KeeperClient) -> None:
    """A caller that leaves while its admission is under way leaks no slot, whenever exactly it leaves."""
    limits = KeyLimits(concurrent=1000)
    for delay in (0.0, 0.0, 0.0001, 0.0003, 0.001, 0.003) * 10:
        call = asyncio.create_task(client.admit("k", limits, 1))
        await asyncio.sleep(delay)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            client.settle((await call).hold, 1)
    await eventually(lambda: keeper.limits.running == 0)
    assert client.running == 0


async def test_an_admission_that_comes_in_the_moment_of_leaving_is_given_back(
    keeper: Keeper, client: KeeperClient
) -> None:
    """The grant has arrived, and its caller is cancelled before it can take it: nothing leaks."""
    loop = asyncio.get_running_loop()

    class Watched(dict[int, Any]):
        def __setitem__(self, hold: int, admission: Any) -> None:
            super().__setitem__(hold, admission)
            loop.call_soon(call.cancel)

    client._running = Watched()
    call = asyncio.create_task(client.admit("k", KeyLimits(concurrent=1), 1))
    with pytest.raises(asyncio.CancelledError):
        await call
    assert client.running == 0
    await eventually(lambda: keeper.limits.running == 0)


async def test_nobody_ends_what_another_client_runs(keeper: Keeper, client: KeeperClient, home: Path) -> None:
    """A settlement of a hold that the connection does not have is ignored, even when its number is right."""
    grant = await client.admit("k", KeyLimits(concurrent=1), 1)
    async with Wire(home) as wire, asyncio.timeout(20):
        await wire.send(frame(Request(0, "settle", raw((grant.hold, 1)))))
        await wire.send(frame(Request(1, "hello", raw((protocol.VERSION,)))))
        assert isinstance(await wire.receive(), Reply)
    assert keeper.limits.running == 1


async def test_without_a_keeper_limited_keys_fail_closed(home: Path) -> None:
    """Admission is Unavailable with Retry-After, management too; starting says so but goes on trying."""
    client = KeeperClient(home, patience=0.05)
    with pytest.raises(Unavailable):
        await client.start(wait=0.05)
    with pytest.raises(Unavailable) as caught:
        await client.admit("k", KeyLimits(rpm=1), 1)
    assert caught.value.retry_after
    with pytest.raises(Unavailable):
        await client.keys()
    client.settle(7, 7)
    async with serving(home, url_of(home), PEPPER):
        await eventually(lambda: client.connected)
        assert (await client.admit("k", KeyLimits(rpm=1), 1)).refused is None
    await client.stop()


async def test_a_keeper_that_hangs_is_unavailable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper that accepts and never answers does not hold requests up for ever."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(socket_path(home)))
    listener.listen()
    client = KeeperClient(home, patience=0.1)
    with pytest.raises(Unavailable):
        await client.start(wait=0.1)
    with pytest.raises(Unavailable):
        await client.admit("k", KeyLimits(rpm=1), 1)
    await client.stop()
    listener.close()


async def test_a_client_survives_its_keeper(home: Path) -> None:
    """After a restart: missed changes are told, running requests are counted, ended ones are settled."""
    limits = KeyLimits(concurrent=2, tpm=100)
    heard: dict[str, KeyRecord] = {}

    def hear(records: object) -> None:
        assert isinstance(records, list | tuple)
        heard.update((record.key_id, record) for record in records)

    client = KeeperClient(home)
    async with serving(home, url_of(home), PEPPER) as keeper:
        await client.start()
        hear(await client.subscribe(hear))
        key_id = (await client.create_key(NewKey(name="before", team="default"))).record.key_id
        running = await client.admit(key_id, limits, 30)
        ended = await client.admit(key_id, limits, 30)
    await eventually(lambda: not client.connected)
    client.settle(ended.hold, 50)
    assert heard[key_id].name == "before"
    # Somebody changes the key while this client has no connection.
    between = Keeper(home, url_of(home), PEPPER)
    await between.start()
    await between.update_key(key_id, KeyPatch(name="after"))
    await between.stop()
    async with serving(home, url_of(home), PEPPER) as keeper:
        await eventually(lambda: client.connected)
        await eventually(lambda: heard[key_id].name == "after")
        await eventually(lambda: keeper.limits.running == 1)
        assert (await client.admit(key_id, limits, 21)).refused == "tpm"
        assert (await client.admit(key_id, limits, 20)).hold
        assert (await client.admit(key_id, limits, 0)).refused == "concurrent"
        client.settle(running.hold, 30)
        assert (await client.admit(key_id, limits, 0)).hold
    await client.stop()


async def test_a_change_that_was_under_way_says_that_its_outcome_is_open(home: Path) -> None:
    """What cannot be repeated without harm is not repeated; the message tells to look first."""
    client = KeeperClient(home)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(socket_path(home)))
    listener.listen()
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    starting = asyncio.create_task(client.start())
    connection, _ = await loop.sock_accept(listener)
    await loop.sock_recv(connection, 4096)
    await loop.sock_sendall(connection, frame(Reply(1, raw(protocol.VERSION))))
    await starting
    call = asyncio.create_task(client.create_key(NewKey(name="k", team="default")))
    await loop.sock_recv(connection, 4096)
    connection.close()
    with pytest.raises(Unavailable, match="look whether the change was made"):
        await call
    await client.stop()
    listener.close()


class Wire:
    """A connection to the keeper at the level of bytes."""

    def __init__(self, home: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._path = os.fspath(socket_path(home))
        self._frames = FrameReader()
        self._received: list[Message] = []

    async def __aenter__(self) -> Self:
        await asyncio.get_running_loop().sock_connect(self._socket, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._socket.close()

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def receive(self) -> Message | None:
        """Return the next message, None when the keeper closed the connection."""
        while not self._received:
            try:
                data = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
            except ConnectionError:
                return None
            if not data:
                return None
            self._received.extend(self._frames.feed(data))
        return self._received.pop(0)


async def test_noise_closes_only_its_own_connection(keeper: Keeper, home: Path, client: KeeperClient) -> None:
    """Whatever a process sends, the keeper and its other clients go on."""
    for noise in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        struct.pack("<I", 2**32 - 1),
        struct.pack("<I", 3) + b"\xff\xff\xff",
        frame(Reply(1, raw(None))),
    ):
        async with Wire(home) as wire:
            await wire.send(noise)
            async with asyncio.timeout(20):
                assert await wire.receive() is None
    assert len(await client.teams()) == 1


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("no_such_method", ()),
        ("_store", ()),
        ("stop", ()),
        ("key", ()),
        ("key", (5,)),
        ("admit", ("k", {"rpm": "many"}, 1)),
        ("hello", (99,)),
    ],
)
async def test_wrong_calls_are_refused_and_the_connection_goes_on(
    keeper: Keeper, home: Path, method: str, arguments: tuple[object, ...]
) -> None:
    """Only what the table names can be called, with the types it names."""
    async with Wire(home) as wire, asyncio.timeout(20):
        await wire.send(frame(Request(1, method, raw(arguments))))
        message = await wire.receive()
        assert isinstance(message, Failure)
        assert message.error.name == "BadRequest"
        await wire.send(frame(Request(2, "hello", raw((protocol.VERSION,)))))
        assert isinstance(await wire.receive(), Reply)


async def test_a_failure_inside_the_keeper_is_told_without_its_text(
    keeper: Keeper, client: KeeperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect ends the call with 500 and nothing else; the next call works."""

    async def broken() -> None:
        raise ValueError("a secret detail")

    monkeypatch.setattr(keeper, "teams", broken)
    with pytest.raises(Exception, match="keeper failed") as caught:
        await client.teams()
    assert "secret detail" not in str(caught.value)
    monkeypatch.undo()
    assert len(await client.teams()) == 1


async def test_a_client_that_does_not_read_is_cut_off_and_holds_nobody_up(
    keeper: Keeper, client: KeeperClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not read piles up only so far; the others hear everything."""
    monkeypatch.setattr(server, "MAX_UNREAD", 10_000)
    heard: list[KeyRecord] = []
    await client.subscribe(heard.extend)
    async with Wire(home) as wire:
        await wire.send(frame(Request(1, "subscribe", raw(()))))
        assert isinstance(await wire.receive(), Reply)
        record = (await keeper.create_key(NewKey(name="k", team="default"))).record
        for _ in range(5_000):
            # The keeper tells each of its watchers; two of them are connections.
            for tell in tuple(keeper._watchers):
                tell([record])
            await asyncio.sleep(0)
        await eventually(lambda: len(keeper._watchers) == 1)
    await eventually(lambda: len(heard) == 5_001)


async def test_stopping_does_not_wait_for_a_client_that_does_not_read(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the keeper does not depend on the good will of others."""
    monkeypatch.setattr(server, "STOP_SECONDS", 0.1)
    async with serving(home, url_of(home), PEPPER) as keeper, asyncio.timeout(60):
        wire = await Wire(home).__aenter__()
        await wire.send(frame(Request(1, "subscribe", raw(()))))
        assert isinstance(await wire.receive(), Reply)
        record = (await keeper.create_key(NewKey(name="n" * 200, team="default"))).record
        for _ in range(5_000):
            keeper._watchers[0]([record])
    await wire.__aexit__()


async def test_a_command_talks_to_the_keeper_that_runs_else_becomes_it(home: Path) -> None:
    """Both ways see the same keys, and the folder is free again afterwards."""
    async with reaching(home, url_of(home), PEPPER) as alone:
        assert isinstance(alone, Keeper)
        key_id = (await alone.create_key(NewKey(name="k", team="default"))).record.key_id
    async with serving(home, url_of(home), PEPPER), reaching(home, url_of(home), PEPPER) as through:
        assert isinstance(through, KeeperClient)
        assert (await through.key(key_id)).name == "k"
    async with reaching(home, url_of(home), PEPPER) as again:
        assert isinstance(again, Keeper)


async def test_many_calls_at_once_get_their_own_answers(client: KeeperClient) -> None:
    """Answers find their callers however they overtake each other."""
    ids = [(await client.create_key(NewKey(name=f"k{n}", team="default"))).record.key_id for n in range(10)]
    records = await asyncio.gather(*(client.key(key_id) for key_id in ids * 20))
    assert [record.key_id for record in records] == ids * 20


async def test_a_folder_with_a_long_path_works_too(tmp_path: Path) -> None:
    """The socket lies elsewhere, and clients find it."""
    home = tmp_path / ("long" * 25)
    async with serving(home, url_of(home), PEPPER):
        client = KeeperClient(home)
        await client.start()
        assert len(await client.teams()) == 1
        await client.stop()


async def test_commands_side_by_side_take_turns(home: Path) -> None:
    """Each is the keeper for a moment, and none of the others is told that the keeper is away."""

    async def make(name: str) -> None:
        async with reaching(home, url_of(home), PEPPER) as keeper:
            await keeper.create_key(NewKey(name=name, team="default"))

    await asyncio.gather(*(make(f"k{number}") for number in range(4)))
    async with reaching(home, url_of(home), PEPPER) as keeper:
        assert {record.name for record in await keeper.keys()} == {"k0", "k1", "k2", "k3"}
