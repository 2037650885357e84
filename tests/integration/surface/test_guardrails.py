"""Guardrails: what they say is what requests of a key may use and spend, from the answer of the change on."""

from __future__ import annotations

from collections.abc import Callable
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


async def team(stage: Stage, slug: str) -> str:
    """Make a workspace and return the text of a key of it, made through the API."""
    await ok(stage, "POST", "/workspaces", json={"name": slug, "slug": slug})
    return str((await ok(stage, "POST", "/keys", json={"name": "k", "workspace_id": slug}))["key"])


async def hash_of(stage: Stage, slug: str) -> str:
    """Return the hash of the newest key of a workspace."""
    return str((await ok(stage, "GET", f"/keys?workspace_id={slug}"))["data"][0]["hash"])


async def chat(stage: Stage, key: str, **more: Any) -> tuple[int, Any]:
    """Ask something; return the status and the body."""
    answer = await call(stage, "POST", "/chat/completions", key, json=chat_body() | more)
    return answer.status_code, answer.json()


async def test_a_guardrail_lives_as_the_official_client_has_it(stage: Stage, sdk: Sdk) -> None:
    """Made, listed, shown, changed field by field, deleted, every value as it was said."""
    await team(stage, "rails")
    async with sdk() as client:
        made = (
            await client.guardrails.create_async(
                name="Frugal",
                workspace_id="rails",
                description="cheap and quiet",
                allowed_models=[QWEN],
                ignored_providers=["Acme"],
                enforce_zdr=True,
                enforce_zdr_openai=False,
                enable_paid_model_training=False,
                limit_usd=0.5,
                reset_interval="daily",
            )
        ).data
        assert (made.name, made.workspace_id, made.description) == ("Frugal", "rails", "cheap and quiet")
        assert (made.allowed_models, made.ignored_models) == ([QWEN], None)
        assert (made.allowed_providers, made.ignored_providers) == (None, ["acme"])
        assert (made.enforce_zdr, made.enforce_zdr_openai, made.enforce_zdr_other) == (False, False, True)
        assert (made.enable_paid_model_training, made.limit_usd, made.reset_interval) == (False, 0.5, "daily")
        changed = (
            await client.guardrails.update_async(id=made.id, limit_usd=None, reset_interval=None, enforce_zdr=False)
        ).data
        assert (changed.limit_usd, changed.reset_interval, changed.enforce_zdr_other) == (None, None, False)
        assert (changed.name, changed.allowed_models, changed.ignored_providers) == ("Frugal", [QWEN], ["acme"])
        assert (await client.guardrails.get_async(id=made.id)).data == changed
        listed = await client.guardrails.list_async(workspace_id="rails")
        assert listed is not None
        assert [each.name for each in listed.result.data] == ["Default of rails", "Frugal"]
        assert listed.result.total_count == 2
        await client.guardrails.delete_async(id=made.id)
    assert (await call(stage, "GET", f"/guardrails/{made.id}")).status_code == 404


async def test_what_a_guardrail_could_not_hold_is_refused(stage: Stage) -> None:
    """Unknown names, filters of contents, a limit without its interval: 400 that names the field."""
    for fields, param in (
        ({"allowed_models": ["qwen/qwen3-23b"]}, "allowed_models"),
        ({"ignored_providers": ["acne"]}, "ignored_providers"),
        ({"limit_usd": 1}, "reset_interval"),
        ({"content_filters": [{"action": "block", "pattern": "x"}]}, "content_filters"),
        ({"allowed_data_regions": ["europe"]}, "allowed_data_regions"),
        ({"enable_paid_model_training": True, "enable_free_model_training": False}, "enable_free_model_training"),
        ({"limit_usd": -1, "reset_interval": "daily"}, "limit_usd"),
    ):
        answer = await call(stage, "POST", "/guardrails", json={"name": "no"} | fields)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


async def test_the_default_guardrail_holds_for_every_key_of_its_workspace(stage: Stage) -> None:
    """Models it does not allow are 403 and not listed; keys of other workspaces are as before."""
    key = await team(stage, "strict")
    other = await team(stage, "loose")
    rail = (await ok(stage, "GET", "/workspaces/strict"))["data"]["default_guardrail_id"]
    shown = await ok(stage, "GET", f"/guardrails/{rail}")
    assert components.GetGuardrailResponse.model_validate(shown).data.name == "Default of strict"
    await ok(stage, "PATCH", f"/guardrails/{rail}", json={"allowed_models": [MINI]})
    status, body = await chat(stage, key)
    assert (status, body["error"]["metadata"]["error_type"]) == (403, "permission_denied")
    assert "Default of strict" in body["error"]["message"]
    assert (await chat(stage, key, model=MINI))[0] == 200
    # A fallback that is allowed serves, one that is not never does.
    status, body = await chat(stage, key, models=[QWEN, MINI])
    assert (status, body["model"]) == (200, MINI)
    assert [each["id"] for each in (await ok(stage, "GET", "/models/user", key))["data"]] == [MINI]
    assert (await call(stage, "GET", f"/model/{QWEN}", key)).status_code == 404
    assert (await chat(stage, other))[0] == 200
    later = str((await ok(stage, "POST", "/keys", json={"name": "later", "workspace_id": "strict"}))["key"])
    assert (await chat(stage, later))[0] == 403
    await ok(stage, "PATCH", f"/guardrails/{rail}", json={"allowed_models": None})
    assert (await chat(stage, key))[0] == 200
    assert (await call(stage, "DELETE", f"/guardrails/{rail}")).status_code == 400


async def test_providers_retention_and_collection_are_enforced_whatever_the_caller_asks(stage: Stage) -> None:
    """A guardrail narrows what the caller's own `provider` object leaves, and is never widened by it."""
    key = await team(stage, "quiet")
    rail = (await ok(stage, "GET", "/workspaces/quiet"))["data"]["default_guardrail_id"]
    wish = {"provider": {"order": ["acme"]}}
    assert (await chat(stage, key, **wish))[1]["provider"] == "acme"
    for terms in (
        {"allowed_providers": ["own"]},
        {"ignored_providers": ["acme"]},
        {"enforce_zdr": True},
        {"enforce_zdr_other": True},
        {"enable_paid_model_training": False},
    ):
        await ok(stage, "PATCH", f"/guardrails/{rail}", json=terms)
        status, body = await chat(stage, key, **wish)
        assert (status, body.get("provider")) == (200, "own"), (terms, body)
        status, body = await chat(stage, key, provider={"only": ["acme"]})
        assert status in (403, 404), (terms, body)
        await ok(stage, "PATCH", f"/guardrails/{rail}", json=dict.fromkeys(terms))
        assert (await chat(stage, key, **wish))[1]["provider"] == "acme", terms
    await ok(stage, "PATCH", f"/guardrails/{rail}", json={"enforce_zdr_anthropic": True})
    assert (await chat(stage, key, **wish))[1]["provider"] == "acme"


async def test_zero_retention_holds_for_the_gateway_too(stage: Stage) -> None:
    """Where a guardrail wants nothing kept, responses are not, and no answer is cached; where none does, both are."""
    key = await team(stage, "amnesia")
    rail = (await ok(stage, "GET", "/workspaces/amnesia"))["data"]["default_guardrail_id"]
    asked = {"model": QWEN, "input": "Hello", "store": True}
    headers = {"authorization": f"Bearer {key}", "x-openrouter-cache": "true"}

    async def cached() -> list[str | None]:
        url = f"{stage.url}/api/v1/chat/completions"
        answers = [await stage.http.post(url, json=chat_body(), headers=headers) for _ in range(2)]
        return [each.headers.get("x-openrouter-cache-status") for each in answers]

    kept = await ok(stage, "POST", "/responses", key, json=asked)
    assert (await call(stage, "GET", f"/responses/{kept['id']}", key)).status_code == 200
    await ok(stage, "PATCH", f"/guardrails/{rail}", json={"enforce_zdr": True})
    gone = await ok(stage, "POST", "/responses", key, json=asked)
    assert gone["store"] is False
    assert (await call(stage, "GET", f"/responses/{gone['id']}", key)).status_code == 404
    for members in ({"previous_response_id": kept["id"]}, {"background": True}):
        refused = await call(stage, "POST", "/responses", key, json=asked | members)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, next(iter(members)))
        assert "zero data retention" in refused.json()["error"]["message"]
    assert await cached() == [None, None]


async def test_a_cached_answer_is_none_once_a_guardrail_forbids_it(stage: Stage) -> None:
    """The cache never answers what would be refused now."""
    key = await team(stage, "cached")
    rail = (await ok(stage, "GET", "/workspaces/cached"))["data"]["default_guardrail_id"]
    headers = {"authorization": f"Bearer {key}", "x-openrouter-cache": "true"}
    url = f"{stage.url}/api/v1/chat/completions"
    for status in ("MISS", "HIT"):
        answer = await stage.http.post(url, json=chat_body(), headers=headers)
        assert (answer.status_code, answer.headers["x-openrouter-cache-status"]) == (200, status)
        await stage.keeper.catch_up()
    await ok(stage, "PATCH", f"/guardrails/{rail}", json={"allowed_models": [MINI]})
    assert (await stage.http.post(url, json=chat_body(), headers=headers)).status_code == 403


async def test_assigned_guardrails_hold_for_their_keys_and_members_alone(stage: Stage, sdk: Sdk) -> None:
    """A key of the team is free until it is assigned; a member's keys are those made for it; taking back frees them."""
    free = await team(stage, "mixed")
    first = await hash_of(stage, "mixed")
    await ok(stage, "POST", "/workspaces/mixed/members/add", json={"user_ids": ["ann@example.com"]})
    anns = await ok(
        stage, "POST", "/keys", json={"name": "a", "workspace_id": "mixed", "creator_user_id": "Ann@example.com"}
    )
    assert anns["data"]["creator_user_id"] == "ann@example.com"
    nobody = {"name": "b", "workspace_id": "mixed", "creator_user_id": "bo@example.com"}
    refused = await call(stage, "POST", "/keys", json=nobody)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "creator_user_id")
    async with sdk() as client:
        rail = (await client.guardrails.create_async(name="R", workspace_id="mixed", allowed_models=[MINI])).data.id
        assert ((await chat(stage, free))[0], (await chat(stage, anns["key"]))[0]) == (200, 200)
        assigned = await client.guardrails.bulk_assign_members_async(id=rail, member_user_ids=["ann@example.com"])
        assert assigned.assigned_count == 1
        assert ((await chat(stage, free))[0], (await chat(stage, anns["key"]))[0]) == (200, 403)
        assert (await client.guardrails.bulk_assign_keys_async(id=rail, key_hashes=[first])).assigned_count == 1
        assert (await client.guardrails.bulk_assign_keys_async(id=rail, key_hashes=[first])).assigned_count == 0
        assert (await chat(stage, free))[0] == 403
        keys = await client.guardrails.list_guardrail_key_assignments_async(id=rail)
        assert keys is not None
        assert [(each.key_hash, each.key_name, each.guardrail_id) for each in keys.result.data] == [(first, "k", rail)]
        members = await client.guardrails.list_member_assignments_async()
        assert members is not None
        assert [(each.user_id, each.guardrail_id) for each in members.result.data] == [("ann@example.com", rail)]
        assert (await client.guardrails.bulk_unassign_keys_async(id=rail, key_hashes=[first])).unassigned_count == 1
        assert ((await chat(stage, free))[0], (await chat(stage, anns["key"]))[0]) == (200, 403)
        await ok(stage, "POST", "/workspaces/mixed/members/remove", json={"user_ids": ["ann@example.com"]})
        assert (await chat(stage, anns["key"]))[0] == 200
    wrong = await call(stage, "POST", f"/guardrails/{rail}/assignments/keys", json={"key_hashes": ["0" * 64]})
    assert wrong.status_code == 404
    foreign = await hash_of(stage, "default")
    wrong2 = await call(stage, "POST", f"/guardrails/{rail}/assignments/keys", json={"key_hashes": [foreign]})
    assert (wrong2.status_code, wrong2.json()["error"]["message"]) == (404, wrong.json()["error"]["message"])


async def test_a_guardrails_limit_is_a_hard_budget_of_each_key_beside_the_keys_own(stage: Stage) -> None:
    """Each key has its own; a key made later has it from its first request; the key's own limit stays what it was."""
    key = await team(stage, "meter")
    first = await hash_of(stage, "meter")
    await ok(stage, "PATCH", f"/keys/{first}", json={"limit": 5, "limit_reset": "daily"})
    rail = (await ok(stage, "GET", "/workspaces/meter"))["data"]["default_guardrail_id"]
    await ok(stage, "PATCH", f"/guardrails/{rail}", json={"limit_usd": 0.00000001, "reset_interval": "daily"})
    later = await ok(stage, "POST", "/keys", json={"name": "later", "workspace_id": "meter"})
    for text in (key, later["key"]):
        status, body = await chat(stage, text)
        assert (status, body["error"]["metadata"]["limit_usd"]) == (402, 0.00000001), body
    own = components_key(await ok(stage, "GET", "/key", key))
    assert own["limit"] == 5
    shown = {(each["scope"], each["limit_usd"], each["guardrail_id"]) for each in own["budgets"]}
    assert shown == {("workspace_default_key", 0.00000001, rail), ("key_limit", 5, None)}
    made = next(each for each in (await ok(stage, "GET", "/budgets"))["data"] if each["source"] == f"guardrail:{rail}")
    kept = await call(stage, "DELETE", f"/budgets/{made['id']}")
    assert kept.status_code == 400, "a guardrail's budget goes with the guardrail alone"
    await ok(stage, "PATCH", f"/guardrails/{rail}", json={"limit_usd": None, "reset_interval": None})
    assert (await chat(stage, key))[0] == 200
    assert (await ok(stage, "GET", f"/keys/{first}"))["data"]["limit"] == 5


def components_key(answer: Any) -> Any:
    """Return the data of `GET /key`, checked by the official client's model."""
    operations.GetCurrentKeyResponse.model_validate(answer)
    return answer["data"]


async def test_a_members_limit_is_one_for_all_keys_of_the_member(stage: Stage) -> None:
    """What one key spends is gone for the member's others, later ones too; other keys of the team have no limit."""
    free = await team(stage, "crowd")
    cat = {"user_ids": ["cat@example.com"]}
    await ok(stage, "POST", "/workspaces/crowd/members/add", json=cat)
    new = {"name": "c", "workspace_id": "crowd", "creator_user_id": "cat@example.com"}
    one, other = [(await ok(stage, "POST", "/keys", json=new))["key"] for _ in range(2)]
    limit = {"name": "L", "workspace_id": "crowd", "limit_usd": 0.0001, "reset_interval": "monthly"}
    rail = (await ok(stage, "POST", "/guardrails", json=limit))["data"]["id"]
    members = {"member_user_ids": cat["user_ids"]}
    await ok(stage, "POST", f"/guardrails/{rail}/assignments/members", json=members)
    for _ in range(60):  # until what is left is less than what a request may cost
        await chat(stage, one, max_tokens=5)
        [budget] = components_key(await ok(stage, "GET", "/key", one))["budgets"]
        if budget["remaining_usd"] < 0.000079:
            break
    assert 0 < budget["remaining_usd"] < 0.000079
    later = (await ok(stage, "POST", "/keys", json=new))["key"]
    for key in (one, other, later):
        status, body = await chat(stage, key, max_tokens=5)
        assert (status, body["error"]["metadata"]["limit_usd"]) == (402, 0.0001), body
        [budget] = components_key(await ok(stage, "GET", "/key", key))["budgets"]
        assert (budget["scope"], budget["guardrail_id"]) == ("member", rail)
        assert 0 < budget["spend_usd"] <= 0.0001
    assert (await chat(stage, free, max_tokens=5))[0] == 200
    assert components_key(await ok(stage, "GET", "/key", free))["budgets"] == []
    await ok(stage, "POST", f"/guardrails/{rail}/assignments/members/remove", json=members)
    assert (await chat(stage, other, max_tokens=5))[0] == 200
    await ok(stage, "POST", f"/guardrails/{rail}/assignments/members", json=members)
    assert (await chat(stage, other, max_tokens=5))[0] == 402
    await ok(stage, "POST", "/workspaces/crowd/members/remove", json=cat)
    mine = [each for each in (await ok(stage, "GET", "/budgets?team=crowd"))["data"] if each["source"].endswith(rail)]
    assert mine == []
    assert (await chat(stage, other, max_tokens=5))[0] == 200
