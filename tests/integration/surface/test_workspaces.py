"""Workspaces over HTTP as OpenRouter's own client has them: settings, members, budgets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from openrouter import OpenRouter, components

from tests.harness import Stage, chat_body
from tests.integration.surface.conftest import QWEN, call, ok

pytestmark = pytest.mark.asyncio(loop_scope="module")
Sdk = Callable[..., OpenRouter]


async def test_a_workspace_lives_as_the_official_client_has_it(stage: Stage, sdk: Sdk) -> None:
    """Made, listed, shown, changed, deleted; a slug that is taken is 400, one that is gone is 404."""
    async with sdk() as client:
        made = (await client.workspaces.create_async(name="Research", slug="research", description="Papers")).data
        assert (made.id, made.slug, made.name, made.description) == ("research", "research", "Research", "Papers")
        assert (made.default_text_model, made.default_provider_sort, made.updated_at is None) == (None, None, False)
        listed = await client.workspaces.list_async()
        assert listed is not None
        assert {each.slug for each in listed.result.data} >= {"default", "research"}
        assert listed.result.total_count == len(listed.result.data)
        changed = await client.workspaces.update_async(
            id="research", name="Lab", description=None, default_text_model=QWEN, default_provider_sort="price"
        )
        assert (changed.data.name, changed.data.description) == ("Lab", None)
        shown = (await client.workspaces.get_async(id="research")).data
        assert (shown.default_text_model, shown.default_provider_sort) == (QWEN, "price")
        assert shown.created_at == made.created_at
    again = await call(stage, "POST", "/workspaces", json={"name": "x", "slug": "research"})
    assert (again.status_code, again.json()["error"]["param"]) == (400, "slug")
    assert (await ok(stage, "DELETE", "/workspaces/research")) == {"deleted": True}
    assert (await call(stage, "GET", "/workspaces/research")).status_code == 404


async def test_what_weir_does_not_have_is_refused_by_name(stage: Stage) -> None:
    """A setting that would hold nothing is not taken."""
    for field, value in (
        ("default_image_model", "x"),
        ("is_observability_broadcast_enabled", True),
        ("default_provider_sort", "luck"),
        ("disabled_server_tools", ["openrouter:bash"]),
        ("default_text_model", "no/such-model"),
        ("slug", "Not A Slug"),
        ("colour", "red"),
    ):
        answer = await call(stage, "POST", "/workspaces", json={"name": "n", "slug": "refused", field: value})
        assert (answer.status_code, answer.json()["error"]["param"].partition(".")[0]) == (400, field), answer.text
    assert (await call(stage, "GET", "/workspaces/refused")).status_code == 404


async def test_a_workspace_with_a_key_stays(stage: Stage) -> None:
    """The ledger names a team for ever; the default one stays, too."""
    await ok(stage, "POST", "/workspaces", json={"name": "Kept", "slug": "kept"})
    await stage.new_key("kept")
    for slug in ("kept", "default"):
        answer = await call(stage, "DELETE", f"/workspaces/{slug}")
        assert answer.status_code == 400, answer.text


async def test_members_come_and_go_and_are_the_organization(stage: Stage, sdk: Sdk) -> None:
    """Adding twice adds once; addresses are folded; the organization lists everybody once."""
    await ok(stage, "POST", "/workspaces", json={"name": "Crew", "slug": "crew"})
    async with sdk() as client:
        added = await client.workspaces.bulk_add_members_async(
            id="crew", user_ids=["Ann@Example.com", "bo@example.com"]
        )
        assert added.added_count == 2
        assert [(each.user_id, each.role, each.workspace_id) for each in added.data] == [
            ("ann@example.com", "member", "crew"),
            ("bo@example.com", "member", "crew"),
        ]
        again = await client.workspaces.bulk_add_members_async(id="crew", user_ids=["ann@example.com"])
        assert (again.added_count, again.data) == (0, [])
        people = await client.organization.list_members_async()
        assert people is not None
        found = {each.email: each.role for each in people.result.data}
        assert found == {"ann@example.com": "org:member", "bo@example.com": "org:member"}
        boss = {"user_ids": ["cy@example.com"], "role": "admin"}
        assert (await ok(stage, "POST", "/workspaces/crew/members/add", json=boss))["data"][0]["role"] == "admin"
        gone = await client.workspaces.bulk_remove_members_async(
            id="crew", user_ids=["bo@example.com", "x@example.com"]
        )
        assert gone.removed_count == 1
        left = await client.workspaces.list_members_async(id="crew")
        assert left is not None
        assert [(each.user_id, each.role) for each in left.result.data] == [
            ("ann@example.com", "member"),
            ("cy@example.com", "admin"),
        ]
    bad = await call(stage, "POST", "/workspaces/crew/members/add", json={"user_ids": ["nobody"]})
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "user_ids")


async def test_a_workspace_budget_is_a_limit_and_intervals_nest(stage: Stage, sdk: Sdk) -> None:
    """Set, shown, listed from the longest; a day may not be worth more than a month; requests beyond it get a 402."""
    await ok(stage, "POST", "/workspaces", json={"name": "Thrift", "slug": "thrift"})
    key = (await stage.new_key("thrift")).key
    put = await ok(stage, "PUT", "/workspaces/thrift/budgets/monthly", json={"limit_usd": 12.345678901})
    assert (put["data"]["limit_usd"], put["data"]["reset_interval"]) == (12.345678901, "monthly")
    refused = await call(stage, "PUT", "/workspaces/thrift/budgets/daily", json={"limit_usd": 12.5})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "limit_usd")
    await ok(stage, "PUT", "/workspaces/thrift/budgets/lifetime", json={"limit_usd": 100})
    await ok(stage, "PUT", "/workspaces/thrift/budgets/daily", json={"limit_usd": 0.000000001})
    raw = await ok(stage, "GET", "/workspaces/thrift/budgets")
    parsed = components.ListWorkspaceBudgetsResponse.model_validate(raw)
    assert [(each.reset_interval, each.limit_usd) for each in parsed.data] == [
        (None, 100.0),
        ("monthly", 12.345678901),
        ("daily", 1e-9),
    ]
    answer = await call(stage, "POST", "/chat/completions", key, json=chat_body())
    assert (answer.status_code, answer.json()["error"]["metadata"]["window"]) == (402, "daily")
    assert await ok(stage, "DELETE", "/workspaces/thrift/budgets/daily") == {"deleted": True}
    assert (await call(stage, "GET", "/workspaces/thrift/budgets/daily")).status_code == 404
    await ok(stage, "POST", "/chat/completions", key, json=chat_body())
    assert (await call(stage, "PUT", "/workspaces/thrift/budgets/hourly", json={"limit_usd": 1})).status_code == 400
    async with sdk(key) as client:
        found = (await client.credits.get_credits_async()).data
        left = 12.345678901 - found.total_usage
        assert found.total_usage > 0
        assert found.total_credits - found.total_usage == pytest.approx(left, abs=1e-12)


async def test_requests_without_a_model_mean_the_default_one(stage: Stage) -> None:
    """And its order of endpoints holds unless the request says another one."""
    settings = {"name": "D", "slug": "d", "default_text_model": "house-default", "default_provider_sort": "price"}
    await ok(stage, "POST", "/workspaces", json=settings)
    key = (await stage.new_key("d")).key
    body = chat_body()
    del body["model"]
    answer = await ok(stage, "POST", "/chat/completions", key, json=body)
    assert (answer["model"], answer["provider"]) == (QWEN, "own")
    # By throughput, or in an order of its own, the dearer one may come first; by price it never does.
    first = {(await ok(stage, "POST", "/chat/completions", key, json=body))["provider"] for _ in range(5)}
    assert first == {"own"}
    body["provider"] = {"order": ["acme"]}
    assert (await ok(stage, "POST", "/chat/completions", key, json=body))["provider"] == "acme"
    await ok(stage, "PATCH", "/workspaces/d", json={"default_text_model": None})
    answer2 = await call(stage, "POST", "/chat/completions", key, json=body)
    assert (answer2.status_code, answer2.json()["error"]["param"]) == (400, "model")
