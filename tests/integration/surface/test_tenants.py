"""Two tenants, ids swapped: on every path that has an id, another tenant's is answered as one that nobody has.

The paths are the application's own, so none can be forgotten: one with a parameter that is not known here fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from fastapi import FastAPI

from gateway.resources import build_resources
from gateway.types.guardrails import default_id
from tests.harness import Stage, chat_body
from tests.integration.surface.conftest import MINI, QWEN, ok

pytestmark = pytest.mark.asyncio(loop_scope="module")
Ids = dict[str, tuple[str, str]]
API = ("/v1/", "/api/", "/openapi.json")
"""Paths that take keys. All others are pages for browsers: they take sessions, and have tests of their own."""
QUERIES = {
    "/api/v1/generation": {"id": "generation"},
    "/api/v1/generation/content": {"id": "generation"},
    "/api/v1/activity": {"api_key_hash": "key_hash", "workspace_id": "workspace_id"},
    "/api/v1/usage": {"team": "workspace_id"},
    "/api/v1/credits": {"workspace_id": "workspace_id"},
    "/api/v1/presets": {"workspace_id": "workspace_id"},
    "/api/v1/presets/{slug}": {"workspace_id": "workspace_id"},
    "/api/v1/presets/{slug}/versions": {"workspace_id": "workspace_id"},
}
"""Ids in queries, by path and name."""
FIXED = {"interval": "daily", "version": "1", "dataset": "usage", "period": "2026-01"}
"""Parameters that are nobody's."""


def operations(app: Any) -> Iterator[tuple[str, str]]:
    """Return method and path of everything that the application answers."""
    for route in app.routes:
        if hasattr(route, "original_router"):
            yield from operations(route.original_router)
        elif hasattr(route, "methods"):
            yield from ((method, route.path) for method in sorted(route.methods - {"HEAD"}))


@pytest_asyncio.fixture(name="app", scope="module", loop_scope="module")
async def app_(stage: Stage) -> FastAPI:
    """The application whose paths are gone through."""
    return build_resources(stage.gateway)


@pytest_asyncio.fixture(name="ids", scope="module", loop_scope="module")
async def ids_(stage: Stage) -> Ids:
    """By parameter: what belongs to the tenant Alpha, and what belongs to nobody."""
    for slug in ("alpha", "beta"):
        await ok(stage, "POST", "/workspaces", json={"name": slug, "slug": slug})
    key = await ok(stage, "POST", "/keys", json={"name": "a", "workspace_id": "alpha", "limit": 1})
    answer = await ok(stage, "POST", "/chat/completions", key["key"], json=chat_body())
    body = {"model": QWEN, "input": "Hello", "store": True}
    response = await ok(stage, "POST", "/responses", key["key"], json=body)
    own = {"provider": "acme", "key": "alphas-own-key", "workspace_id": "alpha", "disabled": True}
    upstream = await ok(stage, "POST", "/byok", json=own)
    await ok(stage, "POST", "/presets/quiet/chat/completions", key["key"], json=chat_body())
    await stage.settled(2)
    budget = next(each for each in (await ok(stage, "GET", "/budgets"))["data"] if each["source"] == "key")
    return {
        "key": (key["key"], ""),
        "other": ((await stage.new_key("beta", models=[QWEN])).key, ""),
        "workspace_id": ("alpha", "omega"),
        "team": ("alpha", "omega"),
        "key_hash": (key["data"]["hash"], "0" * 64),
        "key_id": (upstream["data"]["id"], upstream["data"]["id"][:-4] + "0000"),
        "guardrail_id": (default_id("alpha"), default_id("omega")),
        "budget_id": (budget["id"], "bud-0000000000000000"),
        "slug": ("quiet", "quick"),
        "generation": (answer["id"], answer["id"][:-4] + "0000"),
        "response_id": (response["id"], f"resp_{'0' * (len(response['id']) - 5)}"),
        "model_id": (MINI, "qwen/qwen3-9b"),
        "app": ("alpha.example", "omega.example"),
    }


async def asked(stage: Stage, key: str, method: str, path: str, said: dict[str, str]) -> tuple[int, Any]:
    """Return status and body of an answer, without what differs between any two requests and with ids left out."""
    query = {name[1:]: value for name, value in said.items() if name.startswith("?")}
    url = path.format_map({name.partition(":")[0]: value for name, value in said.items()} | FIXED)
    headers = {"authorization": f"Bearer {key}"}
    answer = await stage.http.request(method, stage.url + url, params=query or None, headers=headers)
    text = answer.text
    for value in said.values():
        text = text.replace(value, "<id>")
    body: Any = text
    if answer.headers.get("content-type", "").startswith("application/json"):
        body = msgspec.json.decode(text)
        if isinstance(body, dict):
            body.pop("request_id", None)
    return answer.status_code, body


def parameters(path: str) -> list[str]:
    """Return the names of a path's parameters."""
    return [part.partition("}")[0].partition(":")[0] for part in path.split("{")[1:]]


async def test_another_tenants_id_is_answered_as_one_that_nobody_has(stage: Stage, app: FastAPI, ids: Ids) -> None:
    """Status and body are the same on every path, and never a success."""
    walked = 0
    for method, raw in operations(app):
        path = raw.replace(":path}", "}")
        if not path.startswith(API):
            continue
        names = [name for name in parameters(raw) if name not in FIXED]
        unknown = [name for name in names if name not in ids]
        assert not unknown, f"{method} {raw}: say here what {unknown} of a tenant is"
        wanted = [{name: ids[name] for name in names}] if names else []
        wanted += [
            {f"?{name}": ids[kind]} | {name: ids[name] for name in names}
            for name, kind in QUERIES.get(path, {}).items()
        ]
        for each in wanted:
            foreign = await asked(stage, ids["other"][0], method, path, {name: pair[0] for name, pair in each.items()})
            nobodys = await asked(stage, ids["other"][0], method, path, {name: pair[1] for name, pair in each.items()})
            assert foreign == nobodys, f"{method} {raw} {each}"
            assert foreign[0] >= 400, f"{method} {raw} {each}"
            walked += 1
    assert walked > 50


async def test_the_ids_that_are_swapped_are_real(stage: Stage, app: FastAPI, ids: Ids) -> None:
    """Their owner is answered; else the test above would prove nothing."""
    answered = set()
    for method, raw in operations(app):
        path = raw.replace(":path}", "}")
        if method != "GET" or not path.startswith(API):
            continue
        names = [name for name in parameters(raw) if name not in FIXED]
        wanted = [{name: ids[name][0] for name in names}] if names else []
        wanted += [
            {f"?{name}": ids[kind][0]} | {name: ids[name][0] for name in names}
            for name, kind in QUERIES.get(path, {}).items()
        ]
        for said in wanted:
            status, body = await asked(stage, ids["key"][0], method, path, said)
            if status == 200:
                answered |= {name.removeprefix("?") for name in said}
            else:
                assert status == 403 or path == "/api/v1/generation/content", (method, path, status, body)
    assert answered >= {"slug", "response_id", "model_id", "id", "workspace_id", "team", "api_key_hash"}


async def test_every_id_in_a_query_is_gone_through(stage: Stage, app: FastAPI, ids: Ids) -> None:
    """A query parameter that is called like an id is in the list above, unless only management keys may send it."""
    words = {"id", "team", "key", "workspace_id", "api_key_hash"}
    for path, item in app.openapi()["paths"].items():
        for method, operation in item.items():
            names = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
            if (names & words) - set(QUERIES.get(path, {})) and path not in ELSEWHERE:
                said = {name: ids[name][1] for name in parameters(path) if name not in FIXED}
                status, _ = await asked(stage, ids["other"][0], method, path, said)
                assert status == 403, f"{method} {path}: say in QUERIES what {names & words} of a tenant are"


ELSEWHERE = {
    *("/api/v1/rankings", "/api/v1/rankings/records"),
    "/api/v1/presets/{slug}/versions/{version}",
    *(f"/api/v1/presets/{{slug}}/{form}" for form in ("chat/completions", "messages", "responses")),
}
"""Boards, whose rules have tests of their own, and those paths of presets that ask the same function as the others."""
