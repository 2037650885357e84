"""Keys that teams bring along: who is asked with them, what that costs, and that nobody sees them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openrouter import OpenRouter

from gateway.types.upstream_keys import ADD_UPSTREAM_KEY, REVOKE_UPSTREAM_KEY, UPSTREAM_KEYS, NewUpstreamKey
from tests.fakes.backend import Visit, hand_backend, usage_chunk, whole
from tests.harness import Backend, Stage, chat_body, configuration, staged

OWN = "sk-theirs-0123456789abcdef"
OWNERS = "sk-owners-key"
KEY = 'api_key: "${WEIR_TEST_OWNERS_KEY}"'


class Api:
    """An API that refuses some keys.

    Attributes:
        used: the keys of the requests that came.
        refusals: status lines by key.
    """

    def __init__(self) -> None:
        self.used: list[str] = []
        self.refusals: dict[str, str] = {}

    async def serve(self, visit: Visit) -> None:
        """Answer one request with 1,000 prompt and 2,000 completion tokens."""
        [line] = [line for line in visit.head.split(b"\r\n") if line.lower().startswith(b"authorization:")]
        key = line.split()[-1].decode()
        self.used.append(key)
        if key in self.refusals:
            await visit.answer({"error": {"message": "no"}}, self.refusals[key])
        else:
            await visit.answer({**whole(), "usage": usage_chunk(2_000, 1_000)["usage"]})


@asynccontextmanager
async def stage_of(
    tmp_path: Path, more: str = 'byok: {fee: "0.05"}', provider: str = "acme"
) -> AsyncIterator[tuple[Api, Stage]]:
    """Run a gateway before such an API, at 0.10 and 0.30 USD per million tokens."""
    api = Api()
    async with hand_backend(api.serve) as backend:
        config = configuration([Backend("api", backend.url, "openai", provider=provider, more=KEY)], more=more)
        async with staged(tmp_path, config) as stage:
            yield api, stage


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIR_TEST_OWNERS_KEY", OWNERS)


async def byok(stage: Stage, method: str, path: str = "", **body: Any) -> httpx.Response:
    """Call the management API."""
    url = f"{stage.url}/api/v1/byok{path}"
    return await stage.http.request(method, url, json=body or None, headers=stage.admin)


async def added(stage: Stage, **more: Any) -> dict[str, Any]:
    """Add the team's key."""
    answer = await byok(stage, "POST", provider="acme", key=OWN, **more)
    assert answer.status_code == 201, answer.text
    return dict(answer.json()["data"])


def active(stage: Stage) -> bool:
    """Whether the gateway knows of any key."""
    return stage.gateway.own_keys.active


async def asked(stage: Stage, **more: Any) -> httpx.Response:
    """Ask under OpenRouter's path."""
    url = f"{stage.url}/api/v1/chat/completions"
    return await stage.http.post(url, json=chat_body() | more, headers=stage.headers)


async def test_requests_go_with_the_teams_key_and_are_charged_the_fee(tmp_path: Path) -> None:
    """The team's key goes first; the charge is the fee, the owner has no cost, and both are told and on record."""
    async with stage_of(tmp_path) as (api, stage):
        await added(stage)
        answer = await asked(stage)
        assert answer.status_code == 200, answer.text
        assert api.used == [OWN]
        usage = answer.json()["usage"]
        assert usage["is_byok"] is True
        assert usage["cost"] == pytest.approx(0.0007 * 0.05)
        assert usage["cost_details"]["upstream_inference_cost"] == pytest.approx(0.0007)
        data = await stage.generation(answer.json()["id"])
        assert data["is_byok"] is True
        assert data["total_cost"] == pytest.approx(0.000035)
        assert data["upstream_inference_cost"] == pytest.approx(0.0007)
        assert data["provider_responses"][0]["is_byok"] is True
        [record] = await stage.settled()
        assert (record.attempts[0].charge_nano, record.attempts[0].cost_nano) == (35_000, 0)


async def test_what_went_with_own_keys_is_told_apart(tmp_path: Path) -> None:
    """Keys, activity and analytics say the list price of it; the fee is usage like any; the books agree."""
    async with stage_of(tmp_path) as (api, stage):
        assert (await asked(stage)).status_code == 200  # with the owner's key: 0.0007 USD
        await added(stage)
        for _ in range(2):
            assert (await asked(stage)).status_code == 200
        assert api.used == [OWNERS, OWN, OWN]
        await stage.settled(3)
        assert (await stage.keeper.audit()).ok

        async def got(path: str, headers: dict[str, str], **body: Any) -> Any:
            method = "POST" if body else "GET"
            answer = await stage.http.request(method, f"{stage.url}{path}", json=body or None, headers=headers)
            assert answer.status_code == 200, answer.text
            return answer.json()["data"]

        names = ("byok_usage", "byok_usage_daily", "byok_usage_weekly", "byok_usage_monthly")
        key = await got("/api/v1/key", stage.headers)
        listed = [each for each in await got("/api/v1/keys", stage.admin) if each["byok_usage"]]
        for each in (key, *listed):
            assert [each[name] for name in names] == [0.0014] * 4
            assert each["usage"] == 0.00077
        assert len(listed) == 1
        [day] = await got("/api/v1/activity", stage.headers)
        assert (day["usage"], day["byok_usage_inference"], day["requests"]) == (0.00077, 0.0014, 3)
        metrics = ["request_count", "byok_request_count", "byok_usage", "byok_fees", "total_usage"]
        found = await got("/api/v1/analytics/query", stage.admin, metrics=metrics)
        assert [found["data"][0][name] for name in metrics] == [3, 2, 0.0014, 0.00007, 0.00077]


async def test_another_team_is_served_with_the_owners_key(tmp_path: Path) -> None:
    """A team's key serves that team alone; without a fee its requests are free."""
    async with stage_of(tmp_path, more="teams: [{slug: others, name: Others}]") as (api, stage):
        await stage.keeper.ensure_team("others", "Others")
        await added(stage)
        key = (await stage.new_key("others")).key
        theirs = await stage.http.post(
            f"{stage.url}/api/v1/chat/completions", json=chat_body(), headers={"authorization": f"Bearer {key}"}
        )
        ours = await asked(stage)
    assert api.used == [OWNERS, OWN]
    assert (theirs.json()["usage"]["is_byok"], ours.json()["usage"]["is_byok"]) == (False, True)
    assert theirs.json()["usage"]["cost"] == pytest.approx(0.0007)
    assert ours.json()["usage"]["cost"] == 0


@pytest.mark.parametrize("status", ["401 Unauthorized", "429 Too Many Requests\r\nretry-after: 60"])
async def test_a_refused_key_falls_back_to_the_owners_only_where_it_may(status: str, tmp_path: Path) -> None:
    """Unless the team's key is required the owner's answers, at the list price; then the team's rests for a while."""
    async with stage_of(tmp_path) as (api, stage):
        found = await added(stage)
        api.refusals[OWN] = status
        answer = await asked(stage)
        assert answer.status_code == 200
        assert answer.json()["usage"]["is_byok"] is False
        assert answer.json()["usage"]["cost"] == pytest.approx(0.0007)
        assert api.used == [OWN, OWNERS]
        assert (await asked(stage)).status_code == 200
        assert api.used == [OWN, OWNERS, OWNERS]
        changed = await byok(stage, "PATCH", f"/{found['id']}", is_required=True, key=OWN + "2")
        assert changed.status_code == 200, changed.text
        api.refusals[OWN + "2"] = status
        refused = await asked(stage)
        assert refused.status_code in {502, 503}
        assert api.used[3:] == [OWN + "2"]
        assert (await asked(stage)).status_code == 503
        assert len(api.used) == 4
        load = stage.gateway.registry.fleet.replicas["api"].load
        assert load.failures == 0


async def test_the_owners_trouble_is_not_the_teams(tmp_path: Path) -> None:
    """A backend that is full for the owner's key still serves a team's own."""
    async with stage_of(tmp_path) as (api, stage):
        api.refusals[OWNERS] = "429 Too Many Requests\r\nretry-after: 60"
        assert (await asked(stage)).status_code == 503
        assert (await asked(stage)).status_code == 503
        await added(stage)
        assert (await asked(stage)).status_code == 200
        assert api.used == [OWNERS, OWN]


async def test_a_key_is_used_only_for_what_it_is_for(tmp_path: Path) -> None:
    """Models, inference keys and a rest narrow it down; a fallback comes last; unknown names are refused."""
    async with stage_of(tmp_path) as (api, stage):
        stranger = await stage.new_key()
        hashes = (await stage.http.get(f"{stage.url}/api/v1/keys", headers=stage.admin)).json()["data"]
        by_label = {each["label"]: each["hash"] for each in hashes}
        assert len(by_label) == 2
        mine = (await stage.http.get(f"{stage.url}/api/v1/key", headers=stage.headers)).json()["data"]["label"]
        found = await added(stage, allowed_models=[])
        assert (await asked(stage)).status_code == 200
        changes: list[tuple[dict[str, Any], str]] = [
            ({"allowed_models": ["qwen/qwen3-32b"]}, OWN),
            ({"allowed_api_key_hashes": [value for label, value in by_label.items() if label != mine]}, OWNERS),
            ({"allowed_api_key_hashes": None}, OWN),
            ({"disabled": True}, OWNERS),
            ({"disabled": False, "is_fallback": True}, OWNERS),
            ({"is_fallback": False, "is_byok_only": True, "allowed_models": []}, ""),
        ]
        for change, used in changes:
            changed = await byok(stage, "PATCH", f"/{found['id']}", **change)
            assert changed.status_code == 200, changed.text
            before = len(api.used)
            answer = await asked(stage)
            assert answer.status_code == (200 if used else 503), (change, answer.text)
            assert api.used[before:] == ([used] if used else []), change
        mistakes: list[tuple[dict[str, Any], str]] = [
            ({"allowed_api_key_hashes": ["00"]}, "allowed_api_key_hashes[0]"),
            ({"key": "with blank"}, "key"),
            ({"is_fallback": True}, "is_byok_only"),
            ({"declared_zdr": True}, "declared_zdr"),
        ]
        for bad, param in mistakes:
            refused = await byok(stage, "PATCH", f"/{found['id']}", **bad)
            assert refused.status_code == 400, refused.text
            assert refused.json()["error"]["param"] == param
        assert (await byok(stage, "POST", provider="acme", key=OWN, workspace_id="nobody")).status_code == 404
        assert (await byok(stage, "GET", "/upk-unknown")).status_code == 404
        assert stranger.record.team == "default"


async def test_a_revoked_key_is_not_used_again(tmp_path: Path) -> None:
    """At once through this process, and within a second when another one revoked it."""
    async with stage_of(tmp_path) as (api, stage):
        found = await added(stage)
        assert (await asked(stage)).status_code == 200
        gone = await byok(stage, "DELETE", f"/{found['id']}")
        assert gone.json() == {"deleted": True}
        assert (await asked(stage)).status_code == 200
        assert api.used == [OWN, OWNERS]
        assert await stage.keeper.ask(UPSTREAM_KEYS, (None, None)) == ()
        # As a process beside this one would: past the follower of this one.
        made = await stage.keeper.ask(ADD_UPSTREAM_KEY, (NewUpstreamKey("default", "acme", OWN),))
        async with asyncio.timeout(20):
            while not active(stage):
                await asyncio.sleep(0.02)
        await stage.keeper.ask(REVOKE_UPSTREAM_KEY, (made.key_id,))
        began = time.monotonic()
        async with asyncio.timeout(20):
            while active(stage):
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < 10.0


async def test_nobody_sees_a_key_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither the API, nor the state folder, nor logs, audit and metrics hold it; inference keys see nothing at all."""
    async with stage_of(tmp_path) as (_, stage):
        found = await added(stage, name="theirs")
        assert found["label"] == "sk-t…cdef"
        pages = [
            (await byok(stage, "GET")).text,
            (await byok(stage, "GET", f"/{found['id']}")).text,
            (await stage.http.get(f"{stage.url}/metrics", headers=stage.admin)).text,
        ]
        assert (await asked(stage)).status_code == 200
        for method in ("GET", "POST"):
            answer = await stage.http.request(method, f"{stage.url}/api/v1/byok", headers=stage.headers)
            assert answer.status_code == 403
    logged = capfd.readouterr()
    for text in (*pages, logged.out, logged.err):
        assert OWN not in text
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert OWN.encode() not in path.read_bytes(), path


async def test_budgets_count_the_fee_only(tmp_path: Path) -> None:
    """A budget that could not pay the list price pays the fee; with it spent, nothing goes past it."""
    async with stage_of(tmp_path) as (api, stage):
        budget = {"team": "default", "window": "daily", "limit_usd": "0.001", "hard": True}
        made = await stage.http.post(f"{stage.url}/api/v1/budgets", json=budget, headers=stage.admin)
        assert made.status_code == 200, made.text
        async with asyncio.timeout(20):
            while (await asked(stage, max_tokens=40_000)).status_code != 402:
                await asyncio.sleep(0.05)
        api.used.clear()
        await added(stage)
        answer = await asked(stage, max_tokens=40_000)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["cost"] == pytest.approx(0.000035)
        assert api.used == [OWN]
        api.refusals[OWN] = "401 Unauthorized"
        assert (await asked(stage, max_tokens=40_000)).status_code in {502, 503}
        assert OWNERS not in api.used


async def test_openrouters_own_client_manages_keys(tmp_path: Path) -> None:
    """The official client's validators accept every answer."""
    async with stage_of(tmp_path, provider="mistral") as (_, stage):
        admin = stage.admin["authorization"].removeprefix("Bearer ")
        async with OpenRouter(api_key=admin, server_url=f"{stage.url}/api/v1") as client:
            made = await client.byok.create_async(provider="mistral", key=OWN, name="ours")
            listed = await client.byok.list_async()
            changed = await client.byok.update_async(id=made.data.id, disabled=True)
            seen = await client.byok.get_async(id=made.data.id)
            await client.byok.delete_async(id=made.data.id)
            left = await client.byok.list_async()
    assert [key.id for key in listed.result.data] == [made.data.id]
    assert (made.data.disabled, changed.data.disabled, seen.data.disabled) == (False, True, True)
    assert left.result.data == []


@pytest.mark.parametrize("told", [False, True])
async def test_a_full_key_of_the_owner_keeps_nobody_waiting_who_has_another(told: bool, tmp_path: Path) -> None:
    """Neither the backend's limits nor what the API said of the owner's key: the team's key passes the queue."""
    held = asyncio.Event()

    async def serve(visit: Visit) -> None:
        left = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 60s\r\n" if told else ""
        if OWNERS.encode() in visit.head and not told:
            await held.wait()
        await visit.answer(whole(), more=left if OWNERS.encode() in visit.head else "")

    async with hand_backend(serve) as backend:
        limits = KEY if told else f"{KEY}, limits: {{concurrent: 1}}"
        config = configuration([Backend("api", backend.url, "openai", provider="acme", more=limits)])
        async with staged(tmp_path, config) as stage:
            await stage.http.post(f"{stage.url}/api/v1/teams", json={"slug": "b", "name": "B"}, headers=stage.admin)
            other = {"authorization": f"Bearer {(await stage.new_key('b')).key}"}
            url = f"{stage.url}/v1/chat/completions"
            first = asyncio.create_task(stage.http.post(url, json=chat_body(), headers=other))
            await backend.visit()
            if told:
                await first
            await added(stage)
            await asyncio.sleep(0.1)  # a look at the replicas is believed for a moment
            async with asyncio.timeout(10):
                assert (await asked(stage)).status_code == 200
            assert OWN.encode() in backend.visits[-1].head
            held.set()
            assert (await first).status_code == 200
