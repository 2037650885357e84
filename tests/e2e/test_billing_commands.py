"""`weir billing` and `weir export` on a state folder, as an operator uses them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.db.engine import Database
from tests.harness import Backend, configuration
from tests.integration.billing.books import day, people, post, some


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """A state folder with usage of January 2026."""
    home = tmp_path_factory.mktemp("h")
    shutil.copy(sqlite_template, home / "weir.db")

    async def fill() -> None:
        database = Database(f"sqlite+aiosqlite:///{home / 'weir.db'}")
        await people(database)
        await post(database, some(60, day("2026-01-03"), day("2026-01-06"), 9))
        await database.close()

    asyncio.run(fill())
    return home


@dataclass(frozen=True, slots=True)
class Done:
    """What a command printed, and its exit status."""

    returncode: int
    stdout: str
    stderr: str


class Commands:
    """The command line over a state folder, in this process: a new one for each command would take most of the time."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        for name in list(os.environ):
            if name.startswith("WEIR_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("WEIR_HOME", str(folder))
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.chdir(folder)

    def configure(self, more: str) -> None:
        """Write a configuration file."""
        path = self.folder / "weir.yaml"
        path.write_text(configuration([Backend("gpu-a", "http://127.0.0.1:9")], more=more))
        self._monkeypatch.setenv("WEIR_CONFIG", str(path))

    def run(self, *arguments: str) -> Done:
        """Run a command."""
        self._monkeypatch.setattr(sys, "argv", ["weir", *arguments])
        self._capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        return Done(status, *self._capsys.readouterr())

    def document(self, *arguments: str) -> Any:
        """Return what a command prints with ``--json``."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def weir(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    """The command line."""
    return Commands(folder, monkeypatch, capsys)


def test_close_export_and_check(folder: Path, weir: Commands) -> None:
    """A month is closed, exported and checked; sums of list, statement and file agree; a broken file is found."""
    weir.configure("billing: {issuer: Example Ltd}")
    before = weir.document("billing", "list")
    assert [(each["period"], each["state"]) for each in before] == [("2026-01", "open")]
    closed = weir.document("billing", "close", "--period", "2026-01")
    assert (closed["state"], closed["effective"]) == ("closed", before[0]["effective"])
    made = weir.document("export", "focus", "--period", "2026-01", "--out", "f.csv")
    assert made["sums"]["BilledCost"] == closed["effective"]
    assert made["closed"] is True
    done = weir.run("export", "check", "f.csv")
    assert done.returncode == 0, done.stdout
    assert "keep all" in done.stdout
    broken = (folder / "f.csv").read_text().replace("Usage-Based", "Sometimes", 1)
    (folder / "broken.csv").write_text(broken)
    done = weir.run("export", "check", "broken.csv")
    assert done.returncode == 1
    assert "allowed-values" in done.stdout
    statement = json.loads(weir.run("billing", "statement", "--period", "2026-01", "--team", "ads").stdout)
    assert (statement["state"], statement["issuer"]) == ("closed", "Example Ltd")
    done = weir.run(
        "export", "usage", "--team", "ads", "--from", "2026-01-01", "--to", "2026-01-31", "--format", "parquet"
    )
    assert done.returncode == 0, done.stderr
    name = "usage-ads-2026-01-01_2026-01-31.parquet"
    manifest = json.loads((folder / f"{name}.manifest.json").read_text())
    assert manifest["bytes"] == (folder / name).stat().st_size
    assert not list(folder.glob(".*"))


def test_mistakes_are_one_sentence(folder: Path, weir: Commands) -> None:
    """What cannot be done is said with its reason and exit status 1, and leaves no file."""
    for arguments, reason in (
        (("billing", "close", "--period", "2999-01"), "ends with"),
        (("export", "focus", "--out", "x.csv"), "name a period"),
        (("export", "focus", "--period", "2026-01", "--format", "xls", "--out", "x.csv"), "the format is one of"),
        (("export", "focus", "--period", "2026-01", "--team", "nobody", "--out", "x.csv"), "no such team"),
        (("export", "focus", "--period", "2026-01", "--out", "no/such/x.csv"), "is no folder"),
        (("export", "focus", "--period", "2026-01", "--sink", "nowhere"), "there is no sink"),
        (("billing", "sinks", "--retry", "nothing"), "has no item"),
        (("export", "check", "missing.csv"), "cannot be read"),
    ):
        done = weir.run(*arguments)
        assert done.returncode == 1, (arguments, done.stdout)
        assert reason in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
    assert not (folder / "x.csv").exists()
