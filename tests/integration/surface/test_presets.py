"""Presets: defaults of requests by name, in versions, of one team alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from openrouter import OpenRouter, components

from gateway.edge.presets import merge
from gateway.types.presets import PresetVersion
from tests.harness import Stage, chat_body
from tests.integration.surface.conftest import MINI, QWEN, call, ok

pytestmark = pytest.mark.asyncio(loop_scope="module")
Sdk = Callable[..., OpenRouter]
ASKED = [{"role": "user", "content": "Hello"}]


async def put(stage: Stage, slug: str, key: str, **body: Any) -> Any:
    """Make a version of a preset of a chat request."""
    return (await ok(stage, "POST", f"/presets/{slug}/chat/completions", key, json={"messages": ASKED} | body))["data"]


async def test_a_preset_lives_as_the_official_client_has_it(stage: Stage, sdk: Sdk) -> None:
    """A request's body becomes version 1, another one version 2, which is used; both can be read."""
    system = {"role": "system", "content": "Be brief."}
    async with sdk(stage.key) as client:
        made = await client.presets.create_presets_chat_completions_async(
            slug="brief", model=QWEN, messages=[system, *ASKED], max_tokens=7, temperature=0.5
        )
        version = made.data.designated_version
        assert version is not None
        assert (made.data.slug, made.data.workspace_id, made.data.status) == ("brief", "default", "active")
        assert (version.version, version.system_prompt) == (1, "Be brief.")
        assert version.config == {"model": QWEN, "max_tokens": 7, "temperature": 0.5}
        await put(stage, "brief", stage.key, model=MINI, max_tokens=9)
        shown = (await client.presets.get_async(slug="brief")).data
        assert shown.designated_version is not None
        assert shown.designated_version.config == {"model": MINI, "max_tokens": 9}
        listed = await client.presets.list_async()
        assert listed is not None
        assert [(each.slug, each.designated_version_id) for each in listed.result.data] == [
            ("brief", shown.designated_version_id)
        ]
        versions = await client.presets.list_versions_async(slug="brief")
        assert versions is not None
        assert [each.version for each in versions.result.data if each] == [2, 1]
        first = (await client.presets.get_version_async(slug="brief", version="1")).data
        assert first is not None
        assert first.config["max_tokens"] == 7
    assert (await call(stage, "GET", "/presets/brief/versions/3", stage.key)).status_code == 404


async def test_requests_use_a_preset_by_its_name(stage: Stage) -> None:
    """As the model, behind a model, or in `preset`; what the request says itself goes first."""
    await put(stage, "short", stage.key, model=MINI, max_tokens=3, provider={"only": ["own"]})
    for named in ({"model": "@preset/short"}, {"model": f"{QWEN}@preset/short"}, {"model": QWEN, "preset": "short"}):
        answer = await ok(stage, "POST", "/chat/completions", stage.key, json={"messages": ASKED} | named)
        assert answer["model"] == (QWEN if named["model"].startswith("qwen") else MINI)
        assert answer["usage"]["completion_tokens"] == 3
        assert answer["provider"] == "own"
    body = {"messages": ASKED, "model": "@preset/short", "max_tokens": 2}
    answer = await ok(stage, "POST", "/chat/completions", stage.key, json=body)
    assert answer["usage"]["completion_tokens"] == 2
    # A policy of routing is still meant where no preset has its name.
    await ok(stage, "POST", "/chat/completions", stage.key, json=chat_body() | {"preset": "balanced"})
    taken = await call(stage, "POST", "/presets/balanced/chat/completions", stage.key, json=chat_body())
    assert (taken.status_code, taken.json()["error"]["param"]) == (400, "slug")


async def test_the_system_prompt_comes_first_and_tools_are_joined() -> None:
    """Per dialect where it is said; a tool of the same name is the request's."""

    def tool(name: str, of: str) -> dict[str, Any]:
        return {"type": "function", "function": {"name": name, "description": of}}

    version = PresetVersion(1, {"tools": [tool("a", "preset"), tool("b", "preset")], "top_p": 0.5}, "Obey.", "", 0)
    body: dict[str, Any] = {"messages": list(ASKED), "tools": [tool("a", "request")], "top_p": 0.9}
    merge(body, version, b"/api/v1/chat/completions")
    assert body["messages"] == [{"role": "system", "content": "Obey."}, *ASKED]
    assert body["tools"] == [tool("a", "request"), tool("b", "preset")]
    assert body["top_p"] == 0.9
    for path, place in ((b"/v1/messages", "system"), (b"/v1/responses", "instructions")):
        body = {"messages": list(ASKED)}
        merge(body, version, path)
        assert (body[place], body["messages"]) == ("Obey.", ASKED)
    body["tools"].append(tool("c", "request"))
    assert len(version.config["tools"]) == 2, "a request never changes what is kept for the next one"


async def test_presets_are_of_one_team_and_unknown_ones_are_404(stage: Stage) -> None:
    """Another team's preset is as unknown as one that nobody has, by every way to name it."""
    await put(stage, "secret", stage.key, model=MINI)
    await ok(stage, "POST", "/workspaces", json={"name": "others", "slug": "others"})
    other = (await stage.new_key("others")).key
    await put(stage, "mine", other, model=MINI)
    for slug in ("secret", "nothing"):
        found = await call(
            stage, "POST", "/chat/completions", other, json={"messages": ASKED, "model": f"@preset/{slug}"}
        )
        error = found.json()["error"]
        assert (found.status_code, error["message"]) == (404, f"there is no preset {slug!r}")
        assert (await call(stage, "GET", f"/presets/{slug}", other)).status_code == 404
        assert (await call(stage, "GET", f"/presets/{slug}?workspace_id=default", other)).status_code == 404
    assert [each["slug"] for each in (await ok(stage, "GET", "/presets", other))["data"]] == ["mine"]
    everything = components.ListPresetsResponse.model_validate(await ok(stage, "GET", "/presets?limit=100"))
    assert {"secret", "mine"} <= {each.slug for each in everything.data}
    assert await ok(stage, "DELETE", "/presets/mine", other) == {"deleted": True}
    gone = await call(stage, "POST", "/chat/completions", other, json={"messages": ASKED, "model": "@preset/mine"})
    assert gone.status_code == 404


async def test_a_preset_cannot_hold_what_no_request_could(stage: Stage) -> None:
    """Wrong types, another preset, a bad slug: refused with the field."""
    for slug, body, param in (
        ("bad", chat_body() | {"max_tokens": "many"}, "max_tokens"),
        ("bad", chat_body() | {"model": "@preset/short"}, "model"),
        ("bad", chat_body() | {"provider": {"onyl": []}}, "provider.onyl"),
        ("Bad!", chat_body(), "slug"),
        ("bad", {"model": QWEN}, None),
    ):
        answer = await call(stage, "POST", f"/presets/{slug}/chat/completions", stage.key, json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert (await call(stage, "GET", "/presets/bad", stage.key)).status_code == 404
