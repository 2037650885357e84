"""Leaderboards over HTTP, on a gateway that serves and meters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.sim import SimConfig, SimServer
from tests.harness import Stage, chat_body, configuration, over, staged

RULES = "boards: {keyless: true, endpoint: team, team: team, new_apps_per_day: 2, per_minute: 40}"
MODEL = "qwen/qwen3-32b"

pytestmark = pytest.mark.usefixtures("whole_day")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A gateway with one backend and public boards."""
    async with (
        SimServer(SimConfig("vllm", ("Qwen/Qwen3-32B",), "gpu-a")) as sim,
        staged(tmp_path, configuration(over(sim), more=RULES)) as running,
    ):
        yield running


async def ask(stage: Stage, path: str, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
    """Ask for a board."""
    return await stage.http.get(f"{stage.url}/api/v1/{path}", params=query, headers=headers or {})


async def say(stage: Stage, key: str, **headers: str) -> None:
    """Send a chat request with more headers."""
    sent = {"authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await stage.http.post(f"{stage.url}/v1/chat/completions", json=chat_body(), headers=sent)
    assert answer.status_code == 200, answer.text
    await asyncio.sleep(0)


def today() -> str:
    """Return the UTC day as the API writes it."""
    return time.strftime("%Y-%m-%d", time.gmtime())


async def test_boards_show_what_was_used(stage: Stage) -> None:
    """Rows, totals and shares are those of the ledger; a caller without a key sees no cost."""
    await stage.keeper.create_team("search", "Search")
    other = await stage.new_key("search")
    for key in (stage.key, stage.key, other.key):
        await say(stage, key)
    records = await stage.settled(3)
    tokens = sum(attempt.usage.total for record in records for attempt in record.attempts)
    charge = sum(attempt.charge_nano for record in records for attempt in record.attempts)
    board = (await ask(stage, "rankings")).json()
    assert [(row["rank"], row["name"], row["value"], row["share"]) for row in board["data"]] == [
        (1, MODEL, str(tokens), 1.0)
    ]
    row = board["data"][0]
    assert row["requests"] == 3
    assert "cost" not in row
    assert row["series"][-1] == str(tokens)
    assert board["totals"]["tokens"] == str(tokens)
    assert (board["meta"]["to"], board["meta"]["points"], "note" in board["meta"]) == (today(), 30, False)
    spent = (await ask(stage, "rankings", stage.admin, by="author", measure="spend")).json()
    assert round(float(spent["data"][0]["value"]) * 1e9) == charge
    assert "cost" in spent["data"][0]
    hours = (await ask(stage, "rankings", measure="requests", granularity="hour")).json()
    assert sum(map(int, hours["data"][0]["series"])) == 3
    milestones = (await ask(stage, "rankings/milestones")).json()
    assert milestones["data"] == []
    records_of = (await ask(stage, "rankings/records")).json()["data"]
    assert records_of["current_lead"] == {"name": MODEL, "from": today(), "to": today(), "days": 1}


async def test_a_team_never_sees_another(stage: Stage) -> None:
    """A team's key sees its own row of team boards and is refused any other; without a key there is nothing."""
    await stage.keeper.create_team("search", "Search")
    other = await stage.new_key("search")
    await say(stage, stage.key)
    await say(stage, other.key)
    await stage.settled(2)
    holder = {"authorization": f"Bearer {other.key}"}
    teams = (await ask(stage, "rankings", holder, by="team")).json()
    assert [row["name"] for row in teams["data"]] == ["search"]
    assert teams["meta"]["team"] == "search"
    own = (await ask(stage, "rankings", holder, by="endpoint")).json()
    assert own["data"][0]["requests"] == 1
    assert (await ask(stage, "rankings", holder, team="search")).json()["data"][0]["requests"] == 1
    assert "default" not in teams["totals"]
    assert (await ask(stage, "rankings", holder, team="default")).status_code == 403
    assert (await ask(stage, "rankings", holder, dollar="cost")).status_code == 403
    for query in ({"by": "team"}, {"by": "endpoint"}, {"team": "search"}):
        assert (await ask(stage, "rankings", None, **query)).status_code == 401
    assert (await ask(stage, "rankings", {"authorization": "Bearer sk-weir-aaaaaaaa-00"})).status_code == 401
    everything = (await ask(stage, "rankings", stage.admin, by="team")).json()
    assert {row["name"] for row in everything["data"]} == {"default", "search"}


async def test_datasets_in_openrouters_form(stage: Stage) -> None:
    """Any key is enough, totals are strings, the window is echoed; what cannot be answered is a 400 with the reason."""
    await say(stage, stage.key)
    (record,) = await stage.settled(1)
    tokens = sum(attempt.usage.total for attempt in record.attempts)
    found = (await ask(stage, "datasets/rankings-daily", stage.headers, end_date=today())).json()
    assert found["data"] == [{"date": today(), "model_permaslug": MODEL, "total_tokens": str(tokens)}]
    assert found["meta"].keys() == {"as_of", "version", "start_date", "end_date"}
    assert (found["meta"]["version"], found["meta"]["end_date"]) == ("v1", today())
    assert (await ask(stage, "datasets/rankings-daily", stage.headers)).json()["data"] == []
    for query in (
        {"start_date": "2026-02-30"},
        {"end_date": "2020-01-01"},
        {"start_date": "2025-01-01", "end_date": "2026-06-01"},
        {"period": "year"},
        {"modality": "image"},
        {"category": "coding"},
    ):
        refused = await ask(stage, "datasets/rankings-daily", stage.headers, **query)
        assert refused.status_code == 400, query
        assert refused.json()["error"]["code"] == 400
    for query in ({"sort": "best"}, {"limit": "101"}, {"offset": "-1"}, {"category": "coding", "subcategory": "game"}):
        assert (await ask(stage, "datasets/app-rankings", stage.headers, **query)).status_code == 400, query
    assert (await ask(stage, "datasets/app-rankings", stage.headers)).json()["data"] == []


async def test_an_app_is_capped_registered_and_public_once_approved(stage: Stage) -> None:
    """A key that names many apps makes few rows; nobody but the owner sees a name that was not approved."""
    await say(
        stage, stage.key, http_referer="https://one.example/x", x_title="One", x_openrouter_categories="cli-agent"
    )
    await registered(stage, 1)
    await say(stage, stage.key, http_referer="https://two.example/", x_openrouter_title="<b>Two</b>")
    await registered(stage, 2)
    for number in range(4):
        await say(stage, stage.key, http_referer=f"https://more{number}.example")
        await asyncio.sleep(0.05)
    await say(stage, stage.key, http_referer="https://one.example/y")
    await say(stage, stage.key, http_referer="https://user@evil.example/")
    records = await stage.settled(8)
    apps = [record.attempts[-1].app for record in reversed(records)]
    assert apps[:2] == ["one.example", "two.example"]
    assert apps[2] in {"more0.example", "other"}
    assert apps[3:] == ["other", "other", "other", "one.example", ""]
    listed = (await ask(stage, "apps", stage.admin)).json()["data"]
    assert {app["app"]: (app["title"], app["status"], app["categories"]) for app in listed} == {
        "one.example": ("One", "pending", ["cli-agent"]),
        "two.example": (None, "pending", []),
    }
    public = (await ask(stage, "rankings", by="app")).json()
    assert public["data"] == []
    assert int(public["other"]["tokens"]) > 0
    answer = await stage.http.post(f"{stage.url}/api/v1/apps/one.example/approve", headers=stage.admin)
    assert answer.json()["data"]["status"] == "approved"
    assert [row["title"] for row in (await ask(stage, "rankings", by="app")).json()["data"]] == ["One"]
    ranked = (await ask(stage, "datasets/app-rankings", end_date=today())).json()["data"]
    assert [(row["rank"], row["app_name"], row["total_requests"]) for row in ranked] == [(1, "One", 2)]
    assert isinstance(ranked[0]["app_id"], int)
    await stage.http.post(f"{stage.url}/api/v1/apps/one.example/hide", headers=stage.admin)
    assert (await ask(stage, "rankings", by="app")).json()["data"] == []
    bad = await stage.http.post(
        f"{stage.url}/api/v1/apps/one.example/approve", params={"title": "<i>"}, headers=stage.admin
    )
    assert bad.status_code == 400
    unknown = await stage.http.post(f"{stage.url}/api/v1/apps/nobody.example/hide", headers=stage.admin)
    assert unknown.status_code == 404
    for headers in ({}, stage.headers):
        assert (await ask(stage, "apps", headers)).status_code in {401, 403}


async def registered(stage: Stage, count: int) -> None:
    """Wait until the register has so many apps."""
    async with asyncio.timeout(20):
        while len((await ask(stage, "apps", stage.admin)).json()["data"]) < count:
            await asyncio.sleep(0.02)


async def test_who_asks_too_often_is_told_to_wait(stage: Stage) -> None:
    """A key has its share a minute; others and the owner are not concerned."""
    answers = [await ask(stage, "datasets/rankings-daily", stage.headers) for _ in range(41)]
    assert [answer.status_code for answer in answers] == [200] * 40 + [429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    assert (await ask(stage, "rankings")).status_code == 200
    assert (await ask(stage, "rankings", stage.admin)).status_code == 200


async def test_boards_want_a_key_unless_the_owner_says_otherwise(tmp_path: Path) -> None:
    """By default nobody sees anything without a key, and what is private needs the management key."""
    async with (
        SimServer(SimConfig("vllm", ("Qwen/Qwen3-32B",), "gpu-a")) as sim,
        staged(tmp_path, configuration(over(sim), more="boards: {app: private}")) as stage,
    ):
        for path in ("rankings", "rankings/records", "rankings/milestones", "datasets/rankings-daily"):
            assert (await ask(stage, path)).status_code == 401
            assert (await ask(stage, path, stage.headers)).status_code == 200
        assert (await ask(stage, "datasets/app-rankings", stage.headers)).status_code == 403
        assert (await ask(stage, "datasets/app-rankings", stage.admin)).status_code == 200
