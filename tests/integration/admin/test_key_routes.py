"""Key management over HTTP: OpenRouter's shape, our own fields, secrets shown once, nothing accepted by accident."""

from __future__ import annotations

import contextlib
import re
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, create_model

from gateway.access.keys import KeyRing
from gateway.access.management import mint_local_token
from gateway.admin.body import MAX_BODY, parsed
from gateway.admin.keys.schemas import CreateKeyBody, IssuedKeyAnswer, KeyAnswer, KeyData, KeysAnswer, UpdateKeyBody
from gateway.keeper.service import JOURNAL_FOLDER, Keeper
from gateway.metering.journal import Journal
from gateway.metering.record import Close, Dimensions, Open, RowKind, Status
from gateway.types.charge import Charge
from gateway.types.errors import BadRequest, Unauthorized
from gateway.types.ids import RequestIds
from gateway.types.keys import NewKey

KEYS = "/api/v1/keys"
ROUTES = [
    ("POST", KEYS),
    ("GET", KEYS),
    ("GET", f"{KEYS}/{'0' * 64}"),
    ("PATCH", f"{KEYS}/{'0' * 64}"),
    ("DELETE", f"{KEYS}/{'0' * 64}"),
    ("POST", f"{KEYS}/{'0' * 64}/rotate"),
    ("GET", "/api/v1/teams"),
    ("POST", "/api/v1/teams"),
]
PEPPER = b"pepper of the tests"

StrictKeyData = create_model("StrictKeyData", __base__=KeyData, __config__=None)
StrictKeyData.model_config = ConfigDict(extra="forbid")


async def make(operator: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """Make a key and return the answer."""
    response = await operator.post(KEYS, json={"name": "a key"} | fields)
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


def error(response: httpx.Response, status: int) -> dict[str, Any]:
    """Return the error of a refused request."""
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()["error"]
    assert found["code"] == status
    return found


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_needs_a_management_key(
    anyone: httpx.AsyncClient, keeper: Keeper, method: str, path: str
) -> None:
    """401 without a key and with a wrong one, 403 with an inference key; the body is not even looked at."""
    inference = (await keeper.create_key(NewKey(name="k", team="default"))).key
    for headers, status in (
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Bearer {inference}"}, 403),
        ({"x-api-key": inference}, 403),
    ):
        response = await anyone.request(method, path, headers=headers, content=b"not json")
        error(response, status)
        assert inference[17:] not in response.text


def test_no_management_route_was_forgotten(app: FastAPI) -> None:
    """The list that the test above goes through is the whole list."""
    documented = {
        (method.upper(), path.replace("{key_hash}", "0" * 64))
        for path, item in app.openapi()["paths"].items()
        for method in item
    }
    assert documented == set(ROUTES)


async def test_a_local_token_opens_the_door_too(anyone: httpx.AsyncClient) -> None:
    """Commands on the same host need no key in their environment."""
    token = mint_local_token(PEPPER, time.time())
    response = await anyone.get(KEYS, headers={"authorization": f"Bearer {token}"})
    assert response.status_code == 200


async def test_two_authorization_headers_are_refused(operator: httpx.AsyncClient) -> None:
    """Nobody can say which of two keys counts."""
    response = await operator.get(KEYS, headers=[("authorization", "Bearer a"), ("authorization", "Bearer b")])
    assert "send it once" in error(response, 400)["message"]


async def test_a_new_key_is_shown_once_and_works(operator: httpx.AsyncClient, ring: KeyRing) -> None:
    """201 with the key at the top level; no later answer has it; the key is accepted at once."""
    answer = await make(operator)
    text = answer["key"]
    assert re.fullmatch(r"sk-weir-[a-z0-9]{8}-[0-9a-f]{64}", text)
    principal = ring.authenticate(b"Bearer " + text.encode(), 1)
    assert principal.key_id == answer["data"]["weir"]["key_id"]
    for later in (await operator.get(KEYS), await operator.get(f"{KEYS}/{answer['data']['hash']}")):
        assert later.status_code == 200
        assert text[17:] not in later.text
        assert later.headers["cache-control"] == "no-store"


async def test_the_answer_has_every_field_of_openrouter(operator: httpx.AsyncClient) -> None:
    """All keys that the official clients require are there, and none that the documentation does not name."""
    answer = await make(operator, expires_at="2099-12-31T23:59:59Z")
    data = answer["data"]
    StrictKeyData.model_validate(data)
    IssuedKeyAnswer.model_validate(answer)
    assert data["hash"] == sha256(data["weir"]["key_id"].encode()).hexdigest()
    assert data["label"] == f"sk-weir-{data['weir']['key_id']}-..."
    assert (data["name"], data["disabled"], data["workspace_id"]) == ("a key", False, "default")
    assert (data["limit"], data["limit_remaining"], data["limit_reset"]) == (None, None, None)
    assert data["expires_at"] == "2099-12-31T23:59:59.000000Z"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", data["created_at"])
    assert (data["updated_at"], data["last_used_at"], data["external_user"]) == (None, None, None)


async def test_our_own_fields_are_under_weir(operator: httpx.AsyncClient, keeper: Keeper) -> None:
    """Team, models and limits can be given and are shown."""
    await keeper.create_team("research", "Research")
    weir = {"team": "research", "models": ["m/one"], "limits": {"rpm": 5, "tpm": None}}
    data = (await make(operator, weir=weir))["data"]
    assert data["weir"] == {
        "key_id": data["weir"]["key_id"],
        "team": "research",
        "models": ["m/one"],
        "limits": {"rpm": 5, "tpm": None, "concurrent": None},
        "previous_secret_until": None,
    }
    by_workspace = (await make(operator, workspace_id="research"))["data"]
    assert by_workspace["weir"]["team"] == by_workspace["workspace_id"] == "research"


async def test_fields_of_openrouter_that_say_nothing_are_accepted(operator: httpx.AsyncClient) -> None:
    """What an official client sends for "none" does not get in the way."""
    await make(operator, limit=None, limit_reset=None, include_byok_in_limit=False, creator_user_id=None)


async def test_a_change_of_the_limit_alone_is_a_change(operator: httpx.AsyncClient) -> None:
    """``updated_at`` moves with the limit and with its reset, and stays when there is no limit to remove."""
    data = (await make(operator, limit=1))["data"]
    path, seen = f"{KEYS}/{data['hash']}", data["created_at"]
    assert data["updated_at"] is None
    for change in ({"limit": 2}, {"limit_reset": "daily"}, {"limit": None}):
        seen, before = (await operator.patch(path, json=change)).json()["data"]["updated_at"] or "", seen
        assert seen > before, change
    assert (await operator.patch(path, json={"limit": None})).json()["data"]["updated_at"] == seen


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"limit": -5}, "limit"),
        ({"limit": 0.0000000001}, "limit"),
        ({"limit": 3e9}, "limit"),
        ({"limit_reset": "daily"}, "limit"),
        ({"limit": 5, "limit_reset": "hourly"}, "limit_reset"),
        ({"include_byok_in_limit": True}, "include_byok_in_limit"),
        ({"surprise": 1}, "surprise"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": "2099-12-31T23:59:59"}, "expires_at"),
        ({"expires_at": 4102444800}, "expires_at"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at"),
        ({"workspace_id": "nobody"}, "team"),
        ({"weir": None}, "weir"),
        ({"weir": {"team": "default", "surprise": 1}}, "weir.surprise"),
        ({"weir": {"models": []}}, "models"),
        ({"weir": {"models": "m"}}, "weir.models"),
        ({"weir": {"limits": {"rpm": 0}}}, "limits.rpm"),
        ({"weir": {"limits": {"rpm": 2**70}}}, "limits.rpm"),
        ({"weir": {"limits": {"rpm": "5"}}}, "weir.limits.rpm"),
        ({"weir": {"limits": {"rpm": True}}}, "weir.limits.rpm"),
        ({"weir": {"team": "a"}, "workspace_id": "b"}, "weir.team"),
        ({"weir": {"secret": "a key of my own choice"}}, "weir.secret"),
    ],
)
async def test_a_bad_field_is_named_and_makes_no_key(
    operator: httpx.AsyncClient, keeper: Keeper, fields: dict[str, Any], param: str
) -> None:
    """400, never 422 or 500, with the field at fault; nothing is made."""
    response = await operator.post(KEYS, json={"name": "a key"} | fields)
    assert error(response, 400)["param"] == param
    assert list(await keeper.keys()) == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "name"),
        (b"{", "not JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (b'{"name": "\xff"}', "UTF-8"),
        (b"[" * 10_000, "JSON|deep"),
        (b"[" * 100_000 + b"]" * 100_000, "deep"),
        (b'{"name": "a", "limit": ' + b"9" * 5_000 + b"}", "number"),
        (b'{"name": "a", "name": "b"}', "twice"),
        (b'{"name": "a", "weir": {"models": null, "models": ["m"]}}', "twice"),
        (b'{"name": "a", "weir": {"limits": {"rpm": NaN}}}', "NaN"),
        (b'{"name": "\\ud800"}', "."),
        (b'{"name": "a", "weir": {"limits": {"rpm": 1e999}}}', "."),
        (b'{"name": "a", "weir": {"limits": {"rpm": 99999999999999999999999}}}', "."),
    ],
)
async def test_a_body_that_is_no_json_is_a_clear_400(operator: httpx.AsyncClient, body: bytes, words: str) -> None:
    """Whatever comes in, the answer is an error that says what is wrong."""
    response = await operator.post(KEYS, content=body)
    assert re.search(words, error(response, 400)["message"])


async def test_a_body_over_the_limit_is_refused(operator: httpx.AsyncClient) -> None:
    """413, whatever is in it."""
    error(await operator.post(KEYS, content=b" " * (MAX_BODY + 1)), 413)


@given(st.binary(max_size=200))
def test_no_body_raises_anything_but_bad_request(data: bytes) -> None:
    """Reading a body either works or says why not."""
    for model in (CreateKeyBody, UpdateKeyBody):
        with contextlib.suppress(BadRequest):
            parsed(model, data)


async def test_a_change_touches_what_it_names(operator: httpx.AsyncClient, ring: KeyRing) -> None:
    """PATCH keeps what is missing, and null clears where it means something."""
    answer = await make(
        operator, expires_at="2099-01-01T00:00:00Z", weir={"models": ["m/one"], "limits": {"rpm": 5, "tpm": 6}}
    )
    path = f"{KEYS}/{answer['data']['hash']}"
    renamed = (await operator.patch(path, json={"name": "new"})).json()["data"]
    assert answer["data"]["updated_at"] is None
    assert renamed["updated_at"] > answer["data"]["created_at"]
    assert renamed == answer["data"] | {"name": "new", "updated_at": renamed["updated_at"]}
    disabled = (await operator.patch(path, json={"disabled": True})).json()["data"]
    assert disabled == renamed | {"disabled": True, "updated_at": disabled["updated_at"]}
    with pytest.raises(Unauthorized, match="disabled"):
        ring.authenticate(b"Bearer " + answer["key"].encode(), 1)
    cleared = await operator.patch(
        path, json={"disabled": False, "expires_at": None, "weir": {"models": None, "limits": {"rpm": 7}}}
    )
    KeyAnswer.model_validate(cleared.json())
    data = cleared.json()["data"]
    assert (data["disabled"], data["expires_at"], data["weir"]["models"]) == (False, None, None)
    assert data["weir"]["limits"] == {"rpm": 7, "tpm": None, "concurrent": None}
    unlimited = (await operator.patch(path, json={"weir": {"limits": None}})).json()["data"]
    assert unlimited["weir"]["limits"] == {"rpm": None, "tpm": None, "concurrent": None}
    assert (await operator.patch(path, json={})).json()["data"] == unlimited


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": None}, "name"),
        ({"disabled": None}, "disabled"),
        ({"disabled": 1}, "disabled"),
        ({"weir": None}, "weir"),
        ({"weir": {"team": "default"}}, "weir.team"),
        ({"workspace_id": "other"}, "workspace_id"),
        ({"limit": -1.5}, "limit"),
        ({"limit_reset": "weekly"}, "limit"),
        ({"hash": "0"}, "hash"),
        ({"weir": {"limits": {"concurrent": -1}}}, "limits.concurrent"),
    ],
)
async def test_a_bad_change_is_refused_whole(operator: httpx.AsyncClient, fields: dict[str, Any], param: str) -> None:
    """The field is named and the key stays as it was."""
    data = (await make(operator))["data"]
    path = f"{KEYS}/{data['hash']}"
    assert error(await operator.patch(path, json={"name": "new"} | fields), 400)["param"] == param
    assert (await operator.get(path)).json()["data"] == data


async def test_a_revoked_key_is_gone(operator: httpx.AsyncClient, ring: KeyRing) -> None:
    """DELETE answers {deleted: true}; the key stops working at once and every route knows it no more."""
    answer = await make(operator)
    path = f"{KEYS}/{answer['data']['hash']}"
    response = await operator.delete(path)
    assert (response.status_code, response.json()) == (200, {"deleted": True})
    with pytest.raises(Unauthorized):
        ring.authenticate(b"Bearer " + answer["key"].encode(), 1)
    error(await operator.get(path), 404)
    error(await operator.delete(path), 404)
    error(await operator.patch(path, json={}), 404)
    error(await operator.post(f"{path}/rotate", json={}), 404)
    assert (await operator.get(KEYS)).json() == {"data": []}


async def test_a_rotation_shows_the_new_secret_and_keeps_the_old_for_the_overlap(
    operator: httpx.AsyncClient, ring: KeyRing
) -> None:
    """The hash stays; with an overlap both secrets work, without one only the new."""
    answer = await make(operator)
    path = f"{KEYS}/{answer['data']['hash']}/rotate"
    rotated = await operator.post(path, json={"overlap_seconds": 60})
    assert rotated.status_code == 200
    IssuedKeyAnswer.model_validate(rotated.json())
    assert rotated.json()["data"]["hash"] == answer["data"]["hash"]
    assert rotated.json()["data"]["weir"]["previous_secret_until"] is not None
    now = time.time_ns() // 1000
    for text in (answer["key"], rotated.json()["key"]):
        assert ring.authenticate(b"Bearer " + text.encode(), now).key_id
    again = await operator.post(path)
    assert again.json()["data"]["weir"]["previous_secret_until"] is None
    with pytest.raises(Unauthorized):
        ring.authenticate(b"Bearer " + rotated.json()["key"].encode(), now)
    for bad in (-1, 10**9, "60", None):
        error(await operator.post(path, json={"overlap_seconds": bad}), 400)


@pytest.mark.parametrize("name", ["0" * 64, "x", "%2e%2e", "'; DROP TABLE team; --", "a" * 5000])
async def test_an_unknown_hash_is_not_found(operator: httpx.AsyncClient, name: str) -> None:
    """404 in our shape for whatever stands in the path."""
    error(await operator.get(f"{KEYS}/{name}"), 404)


async def test_lists_are_paged_and_filtered_as_openrouter_does(operator: httpx.AsyncClient, keeper: Keeper) -> None:
    """100 a page, newest first; disabled and expired keys only on request; one team by workspace_id."""
    await keeper.create_team("other", "Other")
    made = [await make(operator, name=f"k{n}", workspace_id="other" if n < 2 else "default") for n in range(103)]
    hashes = [answer["data"]["hash"] for answer in made][::-1]
    await operator.patch(f"{KEYS}/{hashes[0]}", json={"disabled": True})

    async def listed(**query: Any) -> list[str]:
        response = await operator.get(KEYS, params=query)
        assert response.status_code == 200, response.text
        KeysAnswer.model_validate(response.json())
        return [data["hash"] for data in response.json()["data"]]

    assert await listed() == hashes[1:101]
    assert await listed(offset=100) == hashes[101:]
    assert await listed(include_disabled="true", offset=0) == hashes[:100]
    assert await listed(include_disabled="false", include_expired="true", offset="101") == hashes[102:]
    assert await listed(workspace_id="other") == hashes[101:]
    assert await listed(offset=500) == []


@pytest.mark.parametrize(
    "query", [{"offset": "-1"}, {"offset": "x"}, {"offset": "1" * 30}, {"include_disabled": "perhaps"}]
)
async def test_bad_questions_get_a_400(operator: httpx.AsyncClient, query: dict[str, str]) -> None:
    """No question is answered with 422 or 500."""
    assert error(await operator.get(KEYS, params=query), 400)["param"] == next(iter(query))


async def test_a_list_of_an_unknown_team_is_not_found(operator: httpx.AsyncClient) -> None:
    """An empty list would look like a team without keys."""
    error(await operator.get(KEYS, params={"workspace_id": "nobody"}), 404)


async def test_usage_is_told_exactly_as_a_number(operator: httpx.AsyncClient, keeper: Keeper, tmp_path: Path) -> None:
    """What the ledger charged, to the nano-dollar and without an exponent, and the last use."""
    data = (await make(operator))["data"]
    path = f"{KEYS}/{data['hash']}"
    assert '"usage":0,' in (await operator.get(path)).text
    journal = Journal.create(tmp_path / JOURNAL_FOLDER)
    dims = Dimensions(
        "default", data["weir"]["key_id"], "m/one", "own", "gpu-a", "own", "", "default", "chat", "m/one", "one", "",
        False, 0, 0,
    )  # fmt: skip
    request_id, now = RequestIds().new(), time.time_ns() // 1000
    journal.append(Open(request_id, 1, dims, now, 1))
    journal.append(Close(request_id, 1, RowKind.USAGE, dims, now, Status.OK, charge=Charge(completion=7)))
    await journal.commit()
    await journal.close()
    await keeper.shipper.ship()
    text = (await operator.get(path)).text
    for name in ("usage", "usage_daily", "usage_weekly", "usage_monthly"):
        assert f'"{name}":0.000000007,' in text
    assert '"usage":0.000000007,' in (await operator.get(KEYS)).text


def test_the_documentation_names_bodies_and_answers_and_no_422(app: FastAPI) -> None:
    """Every route with a body documents it in full, and 422 is never promised."""
    paths = app.openapi()["paths"]
    for item in paths.values():
        for operation in item.values():
            assert "422" not in operation["responses"]
            assert operation["security"] == [{"managementKey": []}]
    schema = paths[KEYS]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]["weir"]["properties"]) == {"team", "models", "limits"}
    assert "$ref" not in str(schema)
