"""``weir doctor``: each thing that can be wrong with an installation is found, named and has a mend."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import sysconfig
from contextlib import closing
from pathlib import Path

import pytest

from gateway.diagnosis import Finding, State, examine
from gateway.keeper.address import KeeperError, KeeperLock
from gateway.keeper.process import run_keeper
from gateway.metering.segments import QUARANTINE
from gateway.settings import Settings
from gateway.sim import Fault, SimConfig, SimFleet
from gateway.types.errors import Unavailable
from tests.fakes.ledgers import furnish
from tests.harness import Backend, configuration

MACHINE = {"open files", "interpreter"}
"""What is looked at and is not Weir's: the machine of the tests decides."""


@pytest.fixture(name="place")
def place_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of its own, and an environment that names it."""
    for name in [name for name in os.environ if name.startswith("WEIR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WEIR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WEIR_CONFIG", str(tmp_path / "weir.yaml"))
    return tmp_path


async def findings(place: Path, *backends: Backend, config: str | None = None) -> dict[str, Finding]:
    """Return what is found, by what was looked at."""
    (place / "weir.yaml").write_text(configuration(backends) if config is None else config)
    return {found.check: found async for found in examine(Settings.read())}


async def test_a_sound_installation_has_nothing_to_mend(place: Path) -> None:
    """Before the first start, and with a keeper at work, every finding of a good installation is good."""
    async with SimFleet([SimConfig("vllm", name="a"), SimConfig("openai", name="b")]) as fleet:
        api = 'cost: {prompt: "1", completion: "1"}'
        backends = [Backend("a", fleet["a"].url), Backend("b", fleet["b"].url, "openai", endpoint=api)]
        before = await findings(place, *backends)
        assert {found.check for found in before.values() if found.state is State.BAD} == set()
        assert before["database"].detail.startswith("no file yet")
        stop = asyncio.Event()
        home = place / "home"
        home.mkdir()
        url = Settings.read().ledger_url.get_secret_value()
        keeping = asyncio.create_task(run_keeper(home, url, b"pepper of the tests", stop))
        async with asyncio.timeout(10):
            while (during := await findings(place, *backends))["keeper"].detail != "runs, and its database answers":
                await asyncio.sleep(0.05)
        stop.set()
        await keeping
        assert "database" not in during
        assert {found.state for name, found in during.items() if name not in MACHINE} == {State.OK}


@pytest.mark.parametrize(
    ("arguments", "prefix", "state"),
    [
        ("'--enable-shared' '--prefix=/home/me/.pyenv/versions/3.11.7'", "/home/me/.pyenv/versions/3.11.7", "warning"),
        ("'--enable-optimizations' '--with-lto'", "/usr/local", "ok"),
        ("'--enable-shared'", "/usr", "ok"),
        (None, "C:/Python", "ok"),
    ],
)
async def test_an_interpreter_without_optimisations_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: str | None, prefix: str, state: str
) -> None:
    """One that a version manager compiled on the spot; not what a system or an image brings."""
    monkeypatch.setattr(sysconfig, "get_config_var", {"CONFIG_ARGS": arguments}.get)
    monkeypatch.setattr(sys, "base_prefix", prefix)
    found = (await findings(place))["interpreter"]
    assert found.state == state
    assert ("--enable-optimizations" in found.mend) == (state == "warning")


@pytest.mark.parametrize(
    ("name", "backend", "detail", "mend"),
    [
        ("down", Backend("x", "http://127.0.0.1:9"), "refused", "look whether it runs"),
        (
            "a model it lacks",
            Backend("x", "{sim}", model="Qwen/Qwen9"),
            "does not list Qwen/Qwen9",
            "name what it serves",
        ),
        ("elsewhere", Backend("x", "{sim}/nowhere"), "knows neither /health nor /v1/models", "its url and kind"),
        ("unhealthy", Backend("x", "{sick}"), "it answers 503", "its own log"),
        ("locked", Backend("x", "{locked}"), "it answers 401", "api_key"),
    ],
)
async def test_a_backend_that_cannot_serve_is_explained(
    place: Path, name: str, backend: Backend, detail: str, mend: str
) -> None:
    """Unreachable, another model, another place, not ready, a wrong key: each has its own words."""
    configs = [
        SimConfig("vllm", name="sim"),
        SimConfig("vllm", name="sick", faults=(Fault(kind="unhealthy"),)),
        SimConfig("openai", name="locked", api_key="another"),
    ]
    async with SimFleet(configs) as fleet:
        urls = {sim.config.name: sim.url for sim in fleet}
        kind, endpoint = ("openai", 'cost: {prompt: "1", completion: "1"}') if name == "locked" else ("vllm", "")
        asked = Backend("x", backend.url.format(**urls), kind, backend.model, endpoint=endpoint)
        found = (await findings(place, asked))["backend x"]
    assert found.state is State.BAD
    assert detail in found.detail
    assert mend in found.mend


async def test_what_is_wrong_on_this_host_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused file, a secret that others can read, segments put aside, a Redis that is away, a bad database."""
    home = place / "home"
    (home / "journal" / QUARANTINE).mkdir(parents=True)
    (home / "journal" / QUARANTINE / "segment").write_bytes(b"x")
    (home / "secret").write_text("s" * 64)
    (home / "secret").chmod(0o644)
    monkeypatch.setenv("WEIR_REDIS_URL", "redis://127.0.0.1:9/0")
    monkeypatch.setenv("WEIR_DATABASE_URL", "postgresql+asyncpg://weir:hunter2@127.0.0.1:9/weir")
    found = await findings(place, config="backends: []\nmodles: []\n")
    for name in ("configuration", "secret", "journal", "redis", "database"):
        assert found[name].state is State.BAD, name
        assert found[name].mend, name
    assert not any("hunter2" in each.detail + each.mend for each in found.values())


@pytest.mark.parametrize(
    ("kept", "damage", "reason"),
    [(0, 8192, "file is not a database"), (100, 65536, "database disk image is malformed")],
)
async def test_a_damaged_ledger_file_is_called_so(place: Path, kept: int, damage: int, reason: str) -> None:
    """SQLite's own words reach the operator, by the doctor and by a start that fails; no server is spoken of."""
    home = place / "home"
    furnish(home)
    ledger = home / "weir.db"
    ledger.write_bytes(ledger.read_bytes()[:kept] + b"\xa5" * damage)
    found = (await findings(place))["database"]
    assert found.state is State.BAD
    assert reason in found.detail
    assert "server" not in found.mend
    assert "backup" in found.mend
    with pytest.raises(Unavailable, match=reason):
        await run_keeper(home, Settings.read().ledger_url.get_secret_value(), b"pepper of the tests", asyncio.Event())


async def test_a_ledger_of_a_newer_version_is_not_called_one_that_a_start_migrates(place: Path) -> None:
    """Who went back to an older Weir is told to go forward again, by the doctor and by the start that fails."""
    home = place / "home"
    furnish(home)
    with closing(sqlite3.connect(home / "weir.db")) as ledger, ledger:
        ledger.execute("UPDATE alembic_version SET version_num = '9999_future'")
    found = (await findings(place))["database"]
    assert found.state is State.BAD
    assert "newer version of Weir (9999_future)" in found.detail
    assert "start that version" in found.mend
    with pytest.raises(KeeperError, match=r"newer version of Weir .*9999_future.*: start that one"):
        await run_keeper(home, Settings.read().ledger_url.get_secret_value(), b"pepper of the tests", asyncio.Event())


async def test_another_secret_than_the_last_gateways_is_found_before_a_start(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that was not given the secret of the others would refuse half of the callers."""
    home, stop = place / "home", asyncio.Event()
    furnish(home)
    assert (await findings(place))["database"].state is State.OK, "nobody has begun"
    stop.set()
    await run_keeper(home, Settings.read().ledger_url.get_secret_value(), b"pepper of the others", stop)
    monkeypatch.setenv("WEIR_SECRET", "pepper of the others")
    assert (await findings(place))["database"].state is State.OK
    monkeypatch.setenv("WEIR_SECRET", "pepper of this one")
    for _ in range(2):  # to look changes nothing
        found = (await findings(place))["database"]
        assert found.state is State.WARNING
        assert "another WEIR_SECRET" in found.detail
        assert "pepper" not in found.detail + found.mend
    monkeypatch.delenv("WEIR_SECRET")
    (home / "secret").write_text("read by all")
    (home / "secret").chmod(0o644)
    assert (await findings(place))["database"].state is State.OK, "that finding is the secret's own"


@pytest.mark.parametrize(
    ("token", "state"), [("right", State.OK), ("wrong", State.WARNING), ("", State.WARNING)], ids=lambda value: value
)
async def test_a_collector_is_asked_as_a_tracer_asks_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, token: str, state: State
) -> None:
    """One that refuses what it is sent, for want of a header or as it is none, does not pass for one that works."""

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        taken = head.startswith(b"POST /v1/traces ") and b"token: right\r\n" in head
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % (200 if taken else 401))
        writer.close()

    server = await asyncio.start_server(collect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    if token:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"token={token}")
    async with server:
        found = (await findings(place))["traces"]
    assert found.state is state
    assert bool(found.mend) == (state is State.WARNING)


async def test_a_journal_that_cannot_be_read_is_found(place: Path) -> None:
    """It is not taken for an empty one, and a start that fails says what is in the way."""
    home = place / "home"
    furnish(home)
    (home / "journal").write_text("a file where a folder should be")
    found = (await findings(place))["journal"]
    assert found.state is State.BAD
    assert found.mend
    with pytest.raises(Unavailable, match="Not a directory"):
        await run_keeper(home, Settings.read().ledger_url.get_secret_value(), b"pepper of the tests", asyncio.Event())


async def test_a_keeper_that_does_not_serve_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper that holds the folder and does not answer is not mistaken for one that works."""
    monkeypatch.setattr("gateway.diagnosis.PATIENCE_S", 0.3)
    (place / "home").mkdir()
    lock = KeeperLock(place / "home")
    lock.acquire()
    try:
        found = await findings(place, Backend("x", "http://127.0.0.1:9"))
    finally:
        lock.release()
    assert found["keeper"].state is State.BAD
    assert "does not serve" in found["keeper"].detail
