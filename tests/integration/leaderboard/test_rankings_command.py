"""``weir rankings`` and ``weir apps`` on a ledger with a past."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.keeper.process import serving
from gateway.sim.history.cast import STARS
from gateway.sim.history.fill import fill

DAYS = 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a past of two days."""
    home = tmp_path_factory.mktemp("rankings")

    async def make() -> None:
        async with serving(home, f"sqlite+aiosqlite:///{home / 'weir.db'}", b"the pepper of the tests") as keeper:
            await fill(keeper, home, DAYS)

    asyncio.run(make())
    return home


@pytest.fixture
def weir(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command that succeeds and returns what it printed."""
    monkeypatch.setenv("WEIR_HOME", str(home))
    monkeypatch.setenv("WEIR_SECRET", "the pepper of the tests")

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    return run


def test_a_board_is_a_table_or_json(weir: Any) -> None:
    """Programs get what the API tells the owner; people a table that says that the past is made up."""
    board = json.loads(weir("rankings", "--limit", "2", "--json"))
    assert [row["rank"] for row in board["data"]] == [1, 2]
    assert board["meta"]["names"] == len(STARS)
    assert "cost" in board["data"][0]
    assert "made up" in board["meta"]["note"]
    table = weir("rankings", "--by", "author", "--measure", "spend", "--granularity", "hour")
    assert "USD" in table
    table = weir("rankings", "--by", "team", "--measure", "tokens_per_dollar", "--dollar", "cost")
    assert "demo-coding" in table
    assert "It is no real traffic." in table


def test_records_and_milestones(weir: Any) -> None:
    """The other two sides of a board, for people and programs."""
    records = json.loads(weir("rankings", "--records", "--json"))
    assert len(records["data"]["biggest_days"]) == 10
    assert "longest lead: qwen/qwen3-32b, 2 days" in weir("rankings", "--records")
    milestones = json.loads(weir("rankings", "--milestones", "--json"))["data"]
    assert {each["tokens_in_a_day"] for each in milestones} >= {"1000000000", "100000000000"}
    assert "first of all" in weir("rankings", "--milestones")


def test_apps_are_listed_hidden_and_approved(weir: Any) -> None:
    """The owner decides who is named."""
    assert "tavern.example" in weir("apps", "list")
    assert "is hidden" in weir("apps", "hide", "tavern.example")
    assert [each["app"] for each in json.loads(weir("apps", "list", "--status", "hidden", "--json"))] == [
        "tavern.example"
    ]
    assert "approved as The Tavern" in weir("apps", "approve", "tavern.example", "--title", "The Tavern")


@pytest.mark.parametrize(
    "arguments",
    [
        ("rankings", "--from", "yesterday"),
        ("rankings", "--from", "2020-01-01", "--to", "2026-01-01"),
        ("apps", "approve", "nobody.example"),
        ("apps", "approve", "tavern.example", "--title", "<b>"),
        ("apps", "list", "--status", "odd"),
        ("demo", "--history", "soon"),
        ("demo", "--history", "400d"),
    ],
    ids=["no day", "too long", "unknown app", "markup", "no status", "no length", "long history"],
)
def test_what_cannot_be_done_is_an_error(
    home: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """A wrong option or name ends the command with an error, not with an empty table."""
    monkeypatch.setenv("WEIR_HOME", str(home))
    monkeypatch.setenv("WEIR_SECRET", "the pepper of the tests")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code != 0
    assert "Traceback" not in done.output
