"""Prices as callers meet them: a real gateway, its API, its ledger."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.db.engine import Database
from gateway.sim import SimConfig, SimFleet, Timing
from gateway.tariff.allocation import Allocator
from gateway.types.keys import NewKey
from tests.harness import SECRET, Backend, Stage, configuration, over, staged
from tests.unit.tariff.files import written

SLOW = Timing(itl=0.06)
MACHINES = {"gpu-a": 'usd_per_hour: "1"', "gpu-b": 'usd_per_hour: "4.60"', "gpu-c": ""}
TIERED = """
  - id: qwen/qwen3-32b
    context_length: 40960
    price:
      prompt: "1"
      completion: "2"
      tiers: [{above: 200, prompt: "3", completion: "4"}]
      service_tiers: {flex: {prompt: "0.5", completion: "1", tiers: []}}
    endpoints: [{backend: acme, model: big-1, cost: {prompt: "1", completion: "1"}}]
"""


def query(home: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of ``sql`` from the ledger in ``home``."""
    with closing(sqlite3.connect(f"file:{home / 'weir.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


@asynccontextmanager
async def one(config: SimConfig, home: Path) -> AsyncIterator[Stage]:
    """Run a gateway over one engine."""
    async with SimFleet([config]) as sims, staged(home, configuration(over(*sims))) as stage:
        yield stage


async def post(stage: Stage, **version: Any) -> dict[str, Any]:
    """Make a version by the API."""
    answer = await stage.http.post(f"{stage.url}/api/v1/prices", json=version, headers=stage.admin)
    assert answer.status_code == 201, answer.text
    return dict(answer.json()["data"])


async def served(stage: Stage, price: int) -> None:
    """Wait until the big model is sold at ``price`` pico-USD per token of prompt."""
    async with asyncio.timeout(10):
        while stage.gateway.registry.fleet.models["qwen/qwen3-32b"].endpoints[0].price.prompt != price:
            await asyncio.sleep(0.01)


async def test_a_request_in_flight_keeps_its_price(tmp_path: Path) -> None:
    """A version that is made while an answer streams counts from the next request on, without a restart."""
    async with one(SimConfig(name="gpu-a", timing=SLOW, answer_tokens=100, prompt_cache=False), tmp_path) as stage:
        await stage.http.get(f"{stage.url}/api/v1/prices", headers=stage.admin)  # imports what serves it
        running = asyncio.create_task(stage.chat())
        load = stage.gateway.registry.fleet.replicas["gpu-a"].load
        async with asyncio.timeout(10):
            while not load.in_flight:
                await asyncio.sleep(0.01)
        made = await post(
            stage, kind="sell", model="qwen/qwen3-32b", price={"prompt": "7", "completion": "9"}, why="dearer"
        )
        assert (made["price"], made["source"]) == ({"prompt": "7", "completion": "9"}, "api")
        await served(stage, 7_000_000)
        assert not running.done(), "the price changed while the answer ran"
        old, new = (await running).json()["usage"], (await stage.chat()).json()["usage"]
        assert round(old["cost"] * 1e9) == old["prompt_tokens"] * 100 + old["completion_tokens"] * 300
        assert round(new["cost"] * 1e9) == new["prompt_tokens"] * 7_000 + new["completion_tokens"] * 9_000
        await stage.settled(2)
        ids = query(stage.home, "SELECT DISTINCT price_id FROM label_set")
        known = query(stage.home, "SELECT content_id FROM price_version WHERE kind = 'sell' AND content <> ''")
        assert {row[0] for row in ids} == {row[0] for row in known}, "a version points to the rates of its rows"
        assert (await stage.keeper.audit()).ok


async def test_a_date_is_kept(tmp_path: Path) -> None:
    """A version of the future is listed and not charged before its moment."""
    async with one(SimConfig(name="gpu-a", prompt_cache=False), tmp_path) as stage:
        price = {"prompt": "7", "completion": "9"}
        await post(stage, kind="sell", model="qwen/qwen3-32b", price=price, valid_from="2100-01-01")
        usage = (await stage.chat()).json()["usage"]
        assert round(usage["cost"] * 1e9) == usage["prompt_tokens"] * 100 + usage["completion_tokens"] * 300
        listed = (await stage.http.get(f"{stage.url}/api/v1/prices", headers=stage.admin)).json()["data"]
        coming = [each for each in listed if each["valid_from"] == "2100-01-01T00:00:00.000Z"]
        assert [each["price"] for each in coming] == [price]
        past = {"kind": "sell", "model": "qwen/qwen3-32b", "price": price, "valid_from": "2020-01-01"}
        answer = await stage.http.post(f"{stage.url}/api/v1/prices", json=past, headers=stage.admin)
        assert answer.status_code == 400
        assert "past" in answer.json()["error"]["message"]
        for never in ("9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"):
            answer = await stage.http.post(
                f"{stage.url}/api/v1/prices", json=past | {"valid_from": never}, headers=stage.admin
            )
            assert (answer.status_code, "1970 to 9998" in answer.text) == (400, True)
        for headers, status in (({}, 401), (stage.headers, 403)):
            answer = await stage.http.get(f"{stage.url}/api/v1/prices", headers=headers)
            assert answer.status_code == status


async def test_a_machine_taken_out_of_the_file(tmp_path: Path) -> None:
    """It costs nothing any more once a gateway runs on the new file; a price that only the API set, the API ends."""
    machines = [Backend(name, "http://127.0.0.1:9", more=more) for name, more in MACHINES.items()]
    async with staged(tmp_path, configuration(machines), following=True) as stage:
        await post(stage, kind="hour", place="gpu-c", usd_per_hour="3")
    async with staged(tmp_path, configuration(machines[:1]), following=True) as stage:
        listed = (await stage.http.get(f"{stage.url}/api/v1/prices?place=gpu-b", headers=stage.admin)).json()["data"]
        newest = max(listed, key=lambda version: version["version"])
        assert (newest.get("withdrawn"), newest["source"]) == (True, "file")
        ended = await post(stage, kind="hour", place="gpu-c", withdraw=True, why="given back")
        assert (ended["withdrawn"], ended["source"]) == (True, "api")
        database = Database(f"sqlite+aiosqlite:///{tmp_path / 'weir.db'}")
        await Allocator(database, clock=lambda: time.time_ns() + 48 * 3_600 * 10**9).turn()
        await database.close()
    since = time.time_ns() // (3_600 * 10**9) + 1
    assert query(tmp_path, f"SELECT DISTINCT backend FROM allocation_hour WHERE hour > {since}") == [("gpu-a",)]


async def test_a_team_with_terms(tmp_path: Path) -> None:
    """A discount counts from the next request on; other teams pay the list price, and their rows hold no discount.

    The ledger holds the effective charge and what that is below the list price.
    """
    async with one(SimConfig(name="gpu-a", prompt_cache=False), tmp_path) as stage:
        await stage.keeper.create_team("search", "Search")
        key = await stage.keeper.create_key(NewKey("test", "search"))
        await post(stage, kind="terms", place="search", discount_percent="12.5", markup_percent="2")
        async with asyncio.timeout(10):
            while not stage.gateway.registry.fleet.models["qwen/qwen3-32b"].endpoints[0].team_prices:
                await asyncio.sleep(0.01)
        bearer = {"authorization": f"Bearer {key.key}"}
        body = {"model": "qwen/qwen3-32b", "messages": [{"role": "user", "content": "Tell me about weirs."}]}
        usage = (await stage.http.post(f"{stage.url}/v1/chat/completions", json=body, headers=bearer)).json()["usage"]
        full = [usage["prompt_tokens"] * 100, usage["completion_tokens"] * 300]
        paid = [round(amount * 0.875 * 1.02) for amount in full]
        assert round(usage["cost"] * 1e9) == sum(paid)
        await stage.chat()
        await stage.settled(2)
        rows = query(
            stage.home,
            "SELECT team, charge_nano, discount_nano, discount_prompt, charge_prompt FROM ledger "
            "JOIN label_set USING (label_id) ORDER BY request_id",
        )
        assert rows[0] == ("search", sum(paid), sum(full) - sum(paid), full[0] - paid[0], paid[0])
        assert rows[1][0] == "default"
        assert not rows[1][2]
        sums = query(stage.home, "SELECT SUM(charge_nano + discount_nano) FROM usage_day")
        assert sums == [(2 * sum(full),)], "the list price of both, from the rollups"
        report = await stage.keeper.audit()
        assert report.ok, report.mismatches


async def test_tiers_of_service_and_length(tmp_path: Path) -> None:
    """The service tier that is sold is sent, charged and labelled; one that is not sold is neither.

    A long input has the rates of a long input.
    """
    config = SimConfig("openai", name="acme", models=("big-1",), prompt_cache=False)
    async with SimFleet([config]) as sims, staged(tmp_path, configuration(over(*sims), models=TIERED)) as stage:
        (sim,) = sims
        short = (await stage.chat()).json()["usage"]
        flex = (await stage.chat(service_tier="flex")).json()["usage"]
        other = (await stage.chat(service_tier="priority")).json()["usage"]
        long = (await stage.chat(messages=[{"role": "user", "content": "weir " * 900}])).json()["usage"]
        assert long["prompt_tokens"] > 200 > short["prompt_tokens"]
        for usage, prompt, completion in ((short, 1, 2), (flex, 0.5, 1), (other, 1, 2), (long, 3, 4)):
            due = usage["prompt_tokens"] * prompt * 1_000 + usage["completion_tokens"] * completion * 1_000
            assert round(usage["cost"] * 1e9) == due
        sent = [entry.body.get("service_tier") for entry in sim.books if isinstance(entry.body, dict)]
        assert sent == [None, "flex", None, None]
        await stage.settled(4)
        rows = query(stage.home, "SELECT tier FROM ledger JOIN label_set USING (label_id) ORDER BY request_id")
        assert [row[0] for row in rows] == ["default", "flex", "default", "default"]
        listed = (await stage.http.get(f"{stage.url}/api/v1/prices?kind=sell", headers=stage.admin)).json()["data"]
        assert listed[0]["price"]["service_tiers"]["flex"] == {"prompt": "0.5", "completion": "1", "tiers": []}
        stored = query(stage.home, "SELECT tiers, service_tiers FROM price WHERE tiers <> ''")
        assert len(stored) == 1
        assert json.loads(stored[0][0])[0][0] == 200
        assert (await stage.keeper.audit()).ok


async def test_margin_by_the_api(tmp_path: Path) -> None:
    """Today's lines and their total; a span that is too long is refused."""
    config = SimConfig("openai", name="acme", models=("big-1",), prompt_cache=False)
    async with SimFleet([config]) as sims, staged(tmp_path, configuration(over(*sims), models=TIERED)) as stage:
        usage = (await stage.chat()).json()["usage"]
        await stage.settled(1)
        today = time.strftime("%Y-%m-%d", time.gmtime())
        url = f"{stage.url}/api/v1/prices/margin"
        answer = await stage.http.get(url, params={"from": today, "to": today}, headers=stage.admin)
        found = answer.json()
        (line,) = found["data"]
        cost = (usage["prompt_tokens"] + usage["completion_tokens"]) * 1_000
        assert round(float(line["cost_usd"]) * 1e9) == cost
        assert round(float(line["margin_usd"]) * 1e9) == round(usage["cost"] * 1e9) - cost
        assert line["tokens_per_usd_of_cost"] == "1000000"
        assert found["total"]["charged_usd"] == line["charged_usd"]
        answer = await stage.http.get(url, params={"from": "2020-01-01", "to": today}, headers=stage.admin)
        assert answer.status_code == 400
        hours = await stage.http.get(
            f"{stage.url}/api/v1/prices/allocation", params={"from": today, "to": today}, headers=stage.admin
        )
        assert hours.json() == {"data": []}


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command line in a state folder of its own, with a configuration."""
    (tmp_path / "weir.yaml").write_text(
        written().replace("qwen/big", "openai/gpt-5").replace("model: big-1", "model: gpt-5")
    )
    monkeypatch.setenv("WEIR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WEIR_CONFIG", str(tmp_path / "weir.yaml"))
    monkeypatch.setenv("WEIR_SECRET", SECRET)
    return CliRunner()


def told(runner: CliRunner, *arguments: str) -> Any:
    """Run ``weir prices`` with ``--json`` and return what it printed."""
    done = runner.invoke(app, ["prices", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_what_cannot_be_written_is_one_sentence(runner: CliRunner, tmp_path: Path) -> None:
    """Not a trace."""
    place = tmp_path / "nowhere" / "offers.json"
    done = runner.invoke(app, ["prices", "import", "genai-prices", "--out", str(place)])
    assert done.exit_code == 1
    assert f"{place} cannot be written: No such file or directory" in " ".join(done.stderr.split())


def test_from_source_to_version(runner: CliRunner, tmp_path: Path) -> None:
    """Import writes offers and applies nothing; diff shows them against what is valid; accept makes versions.

    Only of what differs, with a date: a second accept has nothing to do.
    """
    offers = tmp_path / "offers.json"
    found = told(runner, "import", "genai-prices", "--out", str(offers), "--map", "openai/gpt-5=openai/gpt-5")
    assert [(each["model"], each["place"]) for each in found["offers"]] == [("openai/gpt-5", "acme")]
    assert told(runner, "list") == []
    changes = told(runner, "diff", str(offers))["changes"]
    first = changes[0]
    assert (first["class"], first["old"], first["percent"]) == ("prompt", None, None)
    made = told(runner, "accept", str(offers), "--why", "autumn list")
    assert [(each["kind"], each["source"], each["why"]) for each in made] == [("cost", "genai-prices", "autumn list")]
    assert told(runner, "diff", str(offers))["changes"] == []
    assert told(runner, "accept", str(offers)) == []
    assert [each["version"] for each in told(runner, "list", "--history")] == [made[0]["version"]]
    document = json.loads(offers.read_text())
    document["offers"][0]["price"]["prompt"] = "2.5"
    offers.write_text(json.dumps(document))
    changes = told(runner, "diff", str(offers))["changes"]
    assert {(each["class"], each["old"], each["new"], each["percent"]) for each in changes} >= {
        ("prompt", "1.25", "2.5", "100")
    }
    later = told(runner, "accept", str(offers), "--valid-from", "2100-01-01")
    assert later[0]["valid_from"] == "2100-01-01T00:00:00.000Z"


def test_terms_and_reports_of_the_command_line(runner: CliRunner, tmp_path: Path) -> None:
    """Terms are set in percent and withdrawn; margin and hours of an empty ledger are empty.

    An invoice of a provider that never served is refused.
    """
    assert runner.invoke(app, ["teams", "create", "search"]).exit_code == 0
    refused = runner.invoke(app, ["prices", "set", "terms", "--place", "serach", "--discount", "12.5"])
    assert "there is no team 'serach': did you mean \"search\"?" in str(refused.exception)
    made = told(runner, "set", "terms", "--place", "search", "--discount", "12.5", "--why", "contract")
    assert (made[0]["discount_percent"], made[0]["markup_percent"]) == ("12.5", "0")
    assert told(runner, "set", "terms", "--place", "search", "--withdraw")[0]["withdrawn"] is True
    margin = told(runner, "margin", "--from", "2026-11-01", "--to", "2026-11-30")
    assert (margin["data"], margin["total"]["margin_usd"]) == ([], "0")
    assert told(runner, "allocation", "--from", "2026-11-01", "--to", "2026-11-02") == []
    invoice = tmp_path / "invoice.csv"
    invoice.write_text("day,model,cost_usd\n2026-11-01,gpt-5,1\n")
    done = runner.invoke(app, ["prices", "reconcile", "--provider", "acme", "--file", str(invoice)])
    assert done.exit_code != 0
    assert "nothing of a provider" in str(done.exception)
    for arguments in (["margin", "--from", "2026-11-01", "--to", "2026-11-30"], ["list"]):
        assert runner.invoke(app, ["prices", *arguments]).exit_code == 0


async def test_an_invoice_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a running gateway: the difference is posted once, the margin shows it, and no charge changes."""
    monkeypatch.setenv("WEIR_HOME", str(tmp_path))
    monkeypatch.setenv("WEIR_SECRET", SECRET)
    config = SimConfig("openai", name="acme", models=("big-1",), prompt_cache=False)
    async with SimFleet([config]) as sims, staged(tmp_path, configuration(over(*sims), models=TIERED)) as stage:
        usage = (await stage.chat()).json()["usage"]
        await stage.settled(1)
        today = time.strftime("%Y-%m-%d", time.gmtime())
        invoice = tmp_path / "invoice.csv"
        invoice.write_text(f"day,model,cost_usd,tokens\n{today},big-1,0.5,{usage['total_tokens']}\n")
        runner = CliRunner()
        arguments = ("reconcile", "--provider", "own", "--file", str(invoice))
        (line,) = (await asyncio.to_thread(told, runner, *arguments))["lines"]
        assert (line["outcome"], line["model"], line["invoiced_usd"]) == ("corrected", "qwen/qwen3-32b", "0.5")
        assert line["invoiced_tokens"] == line["recorded_tokens"]
        (line,) = (await asyncio.to_thread(told, runner, *arguments))["lines"]
        assert (line["outcome"], line["recorded_usd"]) == ("equal", "0.5")
        found = await asyncio.to_thread(told, runner, "margin", "--from", today, "--to", today)
        assert found["total"]["cost_usd"] == "0.5"
        assert round(float(found["total"]["charged_usd"]) * 1e9) == round(usage["cost"] * 1e9)
        assert (await stage.keeper.audit()).ok
