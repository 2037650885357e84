"""Management keys with a role: through the API they may what a person with that role may, and no more."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.admin.rights import RIGHTS, permission
from gateway.console.question import AUDIT_LOG, AuditQuestion
from gateway.console.roles import Permission
from tests.integration.console.conftest import post
from tests.ui.house import House

ROOT = Path(__file__).parents[3]
CASES: list[tuple[str, str, dict[str, object] | None, frozenset[str]]] = [
    ("GET", "/api/v1/keys", None, frozenset({"owner", "admin", "viewer"})),
    ("POST", "/api/v1/keys", {"name": "x"}, frozenset({"owner", "admin"})),
    ("GET", "/api/v1/teams", None, frozenset({"owner", "admin", "billing", "viewer"})),
    ("POST", "/api/v1/teams", {"slug": "again", "name": "x"}, frozenset({"owner", "admin"})),
    ("GET", "/api/v1/budgets", None, frozenset({"owner", "admin", "billing", "viewer"})),
    (
        "POST",
        "/api/v1/budgets",
        {"team": "default", "window": "daily", "limit_usd": "5"},
        frozenset({"owner", "admin"}),
    ),
    ("GET", "/api/v1/prices", None, frozenset({"owner", "admin", "billing"})),
    ("GET", "/api/v1/billing/periods", None, frozenset({"owner", "admin", "billing"})),
    ("POST", "/api/v1/billing/periods/1999-01/close", {}, frozenset({"owner", "billing"})),
    ("GET", "/api/v1/guardrails", None, frozenset({"owner", "admin", "viewer"})),
    ("GET", "/api/v1/byok", None, frozenset({"owner", "admin", "viewer"})),
    ("GET", "/api/v1/models", None, frozenset({"owner", "admin", "billing", "viewer"})),
    ("GET", "/api/v1/models/discovered", None, frozenset({"owner", "admin", "viewer"})),
    ("GET", "/api/v1/content/choices", None, frozenset({"owner", "admin"})),
    ("GET", "/api/v1/organization/members", None, frozenset({"owner", "admin", "billing", "viewer"})),
    ("GET", "/metrics", None, frozenset({"owner", "admin", "viewer"})),
    ("GET", "/api/v1/rankings", None, frozenset({"owner", "admin", "billing", "viewer"})),
    ("GET", "/openapi.json", None, frozenset({"owner", "admin", "billing", "viewer"})),
]
ROLES = ("owner", "admin", "billing", "viewer")


def made(house: House, role: str) -> str:
    """Make a key with a role on the page and return it."""
    page = post(house, "owner", "/console/keys/management", name=f"for {role}", role=role)
    found = re.search(r"weir-mgmt-[0-9a-f]{8}-[0-9a-f]{64}", page.text)
    assert found is not None
    return found[0]


def until(house: House, key: str, status: int) -> None:
    """Wait until the gateway knows, or knows no more, a key."""
    ends = time.monotonic() + 20
    with house.client() as client:
        while client.get("/openapi.json", headers={"authorization": f"Bearer {key}"}).status_code != status:
            assert time.monotonic() < ends
            time.sleep(0.1)


@pytest.fixture(scope="module")
def keys(house: House) -> dict[str, str]:
    """A key of each role."""
    found = {role: made(house, role) for role in ROLES}
    until(house, found["viewer"], 200)
    return found


@pytest.mark.parametrize("role", ROLES)
def test_a_board_shows_costs_to_who_sees_costs(house: House, keys: dict[str, str], role: str) -> None:
    """Who sees the usage of all sees every board whole; what the owner pays is for the same roles as elsewhere."""
    with house.client() as client:
        headers = {"authorization": f"Bearer {keys[role]}"}
        answer = client.get("/api/v1/rankings?by=team", headers=headers)
        cost = client.get("/api/v1/rankings?dollar=cost", headers=headers)
    assert answer.status_code == 200
    assert ("cost" in answer.json()["totals"]) == (role != "viewer")
    assert cost.status_code == (403 if role == "viewer" else 200)


def test_a_decision_shows_costs_to_who_sees_costs(house: House, keys: dict[str, str]) -> None:
    """Who may see why a request went where it did sees what it cost the owner only where that is seen elsewhere."""
    question = {"model": "qwen/qwen3-32b", "messages": [{"role": "user", "content": "Hello"}]}
    with house.client() as client:
        asked = client.post(
            "/v1/chat/completions", json=question, headers={"authorization": f"Bearer {house.stage.key}"}
        )
        identity = asked.headers["x-generation-id"]
        for role, sees in (("admin", True), ("viewer", False)):
            headers = {"authorization": f"Bearer {keys[role]}"}
            told = client.post("/api/v1/route/explain", json=question, headers=headers).json()
            assert all(("cost_usd" in each["predicted"]) == sees for each in told["candidates"]), told
            decision = decided(client, identity, headers)
            assert ("cost_usd" in decision["predicted"]) == ("cost_usd" in decision["real"]) == sees
    for user, sees in (("owner", True), ("viewer", False)):
        with house.client(user) as client:
            for page in (f"/console/routing/{identity}", "/console/routing?model=qwen/qwen3-32b&prompt=Hello"):
                told = client.get(page)
                assert told.status_code == 200
                assert "gpu-a" in told.text
                assert (re.search(r">\$[0-9.]+<", told.text) is not None) == sees, page
            assert ("/h</span>" in client.get("/console/fleet").text) == sees


def decided(client: httpx.Client, identity: str, headers: dict[str, str]) -> dict[str, Any]:
    """Wait until the decision about a request is in the ledger."""
    ends = time.monotonic() + 20
    while True:
        found = client.get("/api/v1/generation", params={"id": identity}, headers=headers)
        if found.status_code == 200 and found.json()["data"]["decision"] is not None:
            decision: dict[str, Any] = found.json()["data"]["decision"]
            return decision
        assert time.monotonic() < ends, found.text
        time.sleep(0.1)


@pytest.mark.parametrize("role", ROLES)
def test_a_key_may_what_its_role_may(house: House, keys: dict[str, str], role: str) -> None:
    """What the role must not do is 403 and says so; what it may is answered."""
    with house.client() as client:
        for method, path, body, roles in CASES:
            headers = {"authorization": f"Bearer {keys[role]}"}
            answer = client.request(method, path, json=body, headers=headers)
            assert (answer.status_code == 403) == (role not in roles), (method, path, answer.text[:300])
            if role not in roles:
                assert f"has the role {role}" in answer.text, (method, path)
            else:
                assert answer.status_code not in (401, 500), (method, path, answer.text[:300])


def test_every_path_of_management_has_its_permission() -> None:
    """A new path cannot be forgotten here: what the table does not name is for owners, and only inference is that."""
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    unnamed = set()
    for path, operations in document["paths"].items():
        known = any(re.fullmatch(pattern, path) for pattern, *_ in RIGHTS)
        if not known and not re.search(r"(completions|messages|responses|embeddings|rerank)", path):
            unnamed.add(path)
        if re.search(r"keys|teams|budgets|prices|byok|guardrails|workspaces|apps", path):
            for method in set(operations) & {"post", "put", "patch", "delete"}:
                needed = permission(method.upper(), path)
                assert needed.value.endswith((".change", ".make")), (method, path, needed)
    assert unnamed <= {"/health", "/ready"}
    assert permission("POST", "/api/v1/something/new") is Permission.OWNERS_CHANGE
    assert permission("GET", "/api/v1/generation/content") is Permission.USERS_CHANGE


def test_a_key_may_come_in_either_header(house: House, keys: dict[str, str]) -> None:
    """`x-api-key` opens what `Authorization` does, on every path that says so; thirteen answered 401."""
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    reading = [path for path, operations in document["paths"].items() if "get" in operations]
    with house.client() as client:
        for path in (*(re.sub(r"\{[^}]*\}", "zz", each) for each in reading), "/metrics"):
            found = [
                client.get(path, headers=headers).status_code
                for headers in ({"authorization": f"Bearer {keys['owner']}"}, {"x-api-key": keys["owner"]})
            ]
            assert found[0] == found[1], path
            assert found[0] < 500, path


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/v1/apps/nobody.example/hide"), ("POST", "/api/v1/teams"), ("GET", "/api/v1/models")],
)
def test_nobody_says_twice_who_asks(house: House, keys: dict[str, str], method: str, path: str) -> None:
    """The key that may is the one that the log names: with a second one behind it, it named that one."""
    with house.client() as client:
        twice = [("authorization", f"Bearer {keys['admin']}"), ("authorization", "Bearer somebody-else")]
        answer = client.request(method, path, headers=twice)
    assert (answer.status_code, "authorization" in answer.json()["error"]["message"]) == (400, True), answer.text


def test_a_key_is_named_in_the_log_and_ends_for_good(house: House, keys: dict[str, str]) -> None:
    """Its changes carry its name; it opens no inference and makes no owner; revoked, it is unknown."""
    headers = {"authorization": f"Bearer {keys['admin']}"}
    with house.client() as client:
        answer = client.post("/api/v1/teams", json={"slug": "by-a-key", "name": "x"}, headers=headers)
        assert answer.status_code == 201, answer.text
        body = {"model": "qwen/qwen3-32b", "messages": [{"role": "user", "content": "Hi"}]}
        refused = client.post("/v1/chat/completions", json=body, headers=headers)
        assert refused.status_code in (401, 403)
    [entry] = house.do(house.stage.keeper.ask(AUDIT_LOG, (AuditQuestion(subject="by-a-key"),)))
    assert (entry.actor, entry.via) == ("management key for admin", "api")
    assert not house.stage.gateway.management.operates(keys["owner"].encode(), 0)
    listing = page(house, "admin").text
    assert keys["admin"] not in listing
    key_id = keys["admin"].split("-")[2]
    owners = keys["owner"].split("-")[2]
    assert post(house, "admin", "/console/keys/management", name="x", role="owner").status_code == 403
    assert post(house, "admin", "/console/keys/management/revoke", key=owners).status_code == 403
    assert post(house, "admin", "/console/keys/management/revoke", key="nothing").status_code == 404
    assert post(house, "admin", "/console/keys/management/revoke", key=key_id).status_code == 303
    until(house, keys["admin"], 401)
    log = house.do(house.stage.keeper.ask(AUDIT_LOG, (AuditQuestion(noun="management key", subject=key_id),)))
    assert [each.verb for each in log] == ["delete", "create"]
    assert keys["admin"] not in repr(log)


def page(house: House, role: str) -> httpx.Response:
    """Return the list."""
    with house.client(role) as client:
        return client.get("/console/keys/management")
