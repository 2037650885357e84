"""Keys, credits, models and generations as OpenRouter's own client reads them, every value asserted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from openrouter import OpenRouter, components, operations

from tests.harness import Stage, chat_body
from tests.integration.surface.conftest import MINI, QWEN, call, ok

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # The client warns of its own deprecated fields whenever it reads an answer that has them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
Sdk = Callable[..., OpenRouter]


async def spent(stage: Stage, key: str, **more: Any) -> tuple[str, float]:
    """Ask something; return the id of the answer and what it cost, once it is in the ledger."""
    answer = await ok(stage, "POST", "/chat/completions", key, json=chat_body() | more)
    await stage.keeper.catch_up()
    return answer["id"], answer["usage"]["cost"]


async def streamed(stage: Stage, key: str) -> float:
    """Ask for a stream of five tokens; return what it cost, once it is in the ledger."""
    answer = await call(stage, "POST", "/chat/completions", key, json=chat_body() | {"stream": True, "max_tokens": 5})
    await stage.keeper.catch_up()
    last = [line for line in answer.text.split("\n") if line.startswith("data: {")][-1]
    return float(json.loads(last.removeprefix("data: "))["usage"]["cost"])


async def test_a_key_lives_as_the_official_client_has_it(stage: Stage, sdk: Sdk) -> None:
    """Made with a limit, used, listed, changed, switched off, deleted: what is left is what was not spent."""
    async with sdk() as client:
        until = datetime.now(UTC) + timedelta(days=1)
        made = await client.api_keys.create_async(name="Bot", limit=0.5, limit_reset="monthly", expires_at=until)
        data = made.data
        assert re.fullmatch(r"[0-9a-f]{64}", data.hash)
        assert (data.name, data.limit, data.limit_remaining, data.limit_reset) == ("Bot", 0.5, 0.5, "monthly")
        assert (data.usage, data.disabled, data.workspace_id, data.include_byok_in_limit) == (
            0,
            False,
            "default",
            False,
        )
        assert data.expires_at == until
        _, cost = await spent(stage, made.key)
        assert cost > 0
        shown = (await client.api_keys.get_async(hash=data.hash)).data
        assert (shown.usage, shown.usage_daily, shown.usage_weekly, shown.usage_monthly) == (cost,) * 4
        assert shown.limit_remaining == pytest.approx(0.5 - cost, abs=1e-15)
        assert (shown.byok_usage, shown.byok_usage_monthly) == (0, 0)
        async with sdk(made.key) as own:
            mine = (await own.api_keys.get_current_key_metadata_async()).data
            assert (mine.usage, mine.limit, mine.limit_reset, mine.is_management_key) == (cost, 0.5, "monthly", False)
            assert mine.limit_remaining == shown.limit_remaining
            assert [(each.scope, each.limit_usd, each.spend_usd) for each in mine.budgets] == [("key_limit", 0.5, cost)]
        older = await ok(stage, "GET", "/auth/key", made.key)
        assert older == await ok(stage, "GET", "/key", made.key)
        await client.api_keys.update_async(hash=data.hash, name="Robot", disabled=True, limit=None)
        listed = (await client.api_keys.list_async()).data
        assert data.hash not in {each.hash for each in listed}
        hidden = {each.hash: each for each in (await client.api_keys.list_async(include_disabled=True)).data}
        assert (hidden[data.hash].name, hidden[data.hash].disabled, hidden[data.hash].limit) == ("Robot", True, None)
        assert (await call(stage, "GET", "/key", made.key)).status_code == 401
        await client.api_keys.delete_async(hash=data.hash)
    assert (await call(stage, "GET", f"/keys/{data.hash}")).status_code == 404


async def test_credits_are_what_was_spent_and_what_may_be(stage: Stage, sdk: Sdk) -> None:
    """Without a budget there is no limit; with several the tightest; all together are limited when each team is."""
    await ok(stage, "POST", "/workspaces", json={"name": "c", "slug": "credited"})
    key = (await stage.new_key("credited")).key
    _, cost = await spent(stage, key)
    found = (await ok(stage, "GET", "/credits", key))["data"]
    assert (found["total_usage"], found["weir"]) == (cost, {"team": "credited", "limited": False})
    assert found["total_credits"] - cost == pytest.approx(2e9)
    await ok(stage, "PUT", "/workspaces/credited/budgets/lifetime", json={"limit_usd": 3})
    await ok(stage, "PUT", "/workspaces/credited/budgets/daily", json={"limit_usd": 2})
    async with sdk(key) as client:
        data = (await client.credits.get_credits_async()).data
        assert (data.total_usage, data.total_credits) == (cost, pytest.approx(2.0, abs=1e-12))
    async with sdk() as client:
        everything = (await client.credits.get_credits_async()).data
        assert everything.total_usage >= cost
        assert everything.total_credits > 1e9
    one = (await ok(stage, "GET", "/credits?workspace_id=credited"))["data"]
    assert (one["total_usage"], one["weir"]["limited"]) == (cost, True)


async def test_a_generation_has_every_member_that_the_client_wants(stage: Stage, sdk: Sdk) -> None:
    """Cost, tokens and who answered, as the answer itself said."""
    identity, cost = await spent(stage, stage.key, user="end-user-7", max_tokens=4)
    raw = await ok(stage, "GET", f"/generation?id={identity}", stage.key)
    missing = {name for name, field in components.GenerationResponseData.model_fields.items() if field.is_required()}
    assert missing <= set(raw["data"]), missing - set(raw["data"])
    async with sdk(stage.key) as client:
        data = (await client.generations.get_generation_async(id=identity)).data
    assert (data.id, data.model, data.total_cost, data.usage) == (identity, QWEN, cost, cost)
    assert (data.tokens_completion, data.native_tokens_completion, data.finish_reason) == (4, 4, "length")
    assert (data.streamed, data.cancelled, data.external_user, data.workspace_id) == (
        False,
        False,
        "end-user-7",
        "default",
    )
    assert data.provider_responses is not None
    assert [each.status for each in data.provider_responses] == [200]


async def test_models_and_who_serves_them(stage: Stage, sdk: Sdk) -> None:
    """Listed, counted, one by one, with endpoints; pages link to the next one."""
    async with sdk(stage.key) as client:
        page = await client.models.list_async()
        assert page is not None
        found = {each.id: each for each in page.result.data}
        assert set(found) == {QWEN, MINI, "house-default"}
        assert (found[QWEN].pricing.prompt, found[QWEN].context_length) == ("0.0000001", 40960)
        assert (await client.models.count_async()).data.count == 2
        one = (await client.models.get_async(author="qwen", slug="qwen3-32b:nitro")).data
        assert (one.id, one.name) == (QWEN, "Qwen3 32B")
        endpoints = (await client.endpoints.list_async(author="qwen", slug="qwen3-32b")).data.endpoints
        assert [(each.provider_name, each.quantization) for each in endpoints] == [("own", "fp8"), ("acme", None)]
        assert {each.slug for each in (await client.providers.list_async()).data} == {"own", "acme"}
        assert {each.provider_name for each in (await client.endpoints.list_zdr_endpoints_async()).data} == {"own"}
    first = await ok(stage, "GET", "/models?limit=1&sort=newest", stage.key)
    assert first["links"]["next"] == "/api/v1/models?sort=newest&offset=1&limit=1"
    rest = await ok(stage, "GET", first["links"]["next"].removeprefix("/api/v1"), stage.key)
    assert (len(rest["data"]), rest["links"]["next"], rest["total_count"]) == (1, None, 2)
    assert (await ok(stage, "GET", "/embeddings/models", stage.key))["data"] == []


async def test_models_are_sorted_by_how_much_they_are_used(stage: Stage) -> None:
    """By the tokens of the last seven days, which the boards show, too."""
    for model, tokens in ((QWEN, 3), (MINI, 40)):
        for _ in range(3 if model == MINI else 1):
            await spent(stage, stage.key, model=model, max_tokens=tokens)
    before = (await ok(stage, "GET", "/analytics/meta"))["data"]
    assert "tokens_total" in {each["name"] for each in before["metrics"]}
    query = {"metrics": ["tokens_total"], "dimensions": ["model"]}
    rows = (await ok(stage, "POST", "/analytics/query", json=query))["data"]["data"]
    wanted = [row["model"] for row in rows]
    for sort in ("top-weekly", "most-popular"):
        listed = await ok(stage, "GET", f"/models?sort={sort}", stage.key)
        assert [each["id"] for each in listed["data"]] == wanted
    bad = await call(stage, "GET", "/models?sort=prettiest", stage.key)
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "sort")


@pytest.mark.usefixtures("whole_day")
async def test_analytics_add_up_to_what_callers_were_told(stage: Stage, sdk: Sdk) -> None:
    """By key and by workspace, exactly; latencies from the rollups; filters, order and limits as asked."""
    await ok(stage, "POST", "/workspaces", json={"name": "a", "slug": "analysed"})
    keys = [(await ok(stage, "POST", "/keys", json={"name": n, "workspace_id": "analysed"})) for n in ("a", "b")]
    costs = {}
    for key, times in zip(keys, (1, 2), strict=True):
        costs[key["data"]["hash"]] = sum([await streamed(stage, key["key"]) for _ in range(times)])
    ours = {"field": "workspace", "operator": "eq", "value": "analysed"}
    query = {
        "metrics": ["total_usage", "request_count", "tokens_completion", "p50_latency", "p90_throughput"],
        "dimensions": ["api_key_id", "model"],
        "filters": [ours],
        "granularity": "day",
    }
    async with sdk() as client:
        meta = (await client.analytics.get_analytics_meta_async()).data
        assert {"hour", "day", "week", "month"} == {each.name for each in meta.granularities}
        told = await client.analytics.query_analytics_async(**query)
        assert (told.data.metadata.row_count, told.data.metadata.truncated) == (2, False)
    raw = await ok(stage, "POST", "/analytics/query", json=query)
    operations.QueryAnalyticsResponse.model_validate(raw)
    rows = raw["data"]["data"]
    today = datetime.now(UTC).date().isoformat()
    assert {row["date__day"] for row in rows} == {today}
    assert {row["api_key_id"]: row["total_usage"] for row in rows} == pytest.approx(costs, abs=1e-15)
    assert [(row["request_count"], row["tokens_completion"]) for row in rows] == [(2, 10), (1, 5)], "most first"
    assert all(row["p50_latency"] > 0 for row in rows)
    assert all(row["p90_throughput"] > 0 for row in rows)
    top = await ok(stage, "POST", "/analytics/query", json=query | {"limit": 1})
    assert top["data"]["metadata"] | {"query_time_ms": 0} == {"query_time_ms": 0, "row_count": 1, "truncated": True}
    most = await ok(stage, "POST", "/analytics/query", json=query | {"dimensions": ["api_key_id"], "group_limit": 1})
    assert [row["request_count"] for row in most["data"]["data"]] == [2]
    only = {"field": "api_key_id", "operator": "not_in", "value": [keys[1]["data"]["hash"]]}
    other = await ok(stage, "POST", "/analytics/query", json=query | {"filters": [ours, only]})
    assert [row["request_count"] for row in other["data"]["data"]] == [1]
    for wrong, param in (
        ({"metrics": ["happiness"]}, "metrics"),
        ({"dimensions": ["country"]}, "dimensions"),
        ({"granularity": "minute"}, "granularity"),
        ({"filters": [ours | {"operator": "in"}]}, "filters.value"),
        ({"time_range": {"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}}, "time_range"),
        ({"order_by": {"field": "model2", "direction": "asc"}}, "order_by.field"),
    ):
        answer = await call(stage, "POST", "/analytics/query", json=query | wrong)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
