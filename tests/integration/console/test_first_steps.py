"""The door: the first owner, and signing in through an identity provider."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwk, jwt

from dashboards.door import form_token
from gateway.console.question import CREATE_USER, USERS, NewUser
from gateway.console.roles import Grant, Role
from tests.fakes.receiver import Receiver, receiver
from tests.harness import ADMIN_KEY, Backend, Stage, configuration, staged

PASSWORD = "a password of the tests"


@cache
def rsa(owner: str) -> Any:
    """Return the key of the provider, or of somebody else: it takes a while to find one."""
    return jwk.RSAKey.generate_key(2048, {"kid": "k1"})


@pytest.fixture
async def provider() -> AsyncIterator[Receiver]:
    """An identity provider."""
    async with receiver() as found:
        yield found


@pytest.fixture
async def stage(tmp_path: Path, provider: Receiver) -> AsyncIterator[Stage]:
    """A gateway that knows the provider; its one backend is away."""
    more = f"console: {{oidc: {{issuer: '{provider.url}', client_id: weir, label: Example ID}}}}"
    async with staged(tmp_path, configuration([Backend("gpu", "http://127.0.0.1:9")], more=more)) as found:
        yield found


async def welcome(stage: Stage, **fields: str) -> httpx.Response:
    """Send the form for the first owner."""
    await stage.http.get(f"{stage.url}/console/welcome")
    typed = {"key": ADMIN_KEY, "login": "ada", "password": PASSWORD, "again": PASSWORD} | fields
    token = form_token(stage.http.cookies.get("weir_visit") or "")
    headers = {"origin": stage.url}
    return await stage.http.post(f"{stage.url}/console/welcome", data=typed | {"csrf": token}, headers=headers)


async def test_the_management_key_makes_the_first_owner_and_opens_nothing_afterwards(stage: Stage) -> None:
    """A wrong key, two different passwords or a short one make nobody; the second try with the right key neither."""
    sent = await stage.http.get(f"{stage.url}/console/sign-in")
    assert sent.headers["location"] == "/console/welcome"
    for fields, status, said in (
        ({"key": "wrong"}, 401, "not the management key"),
        ({"key": stage.key}, 401, "not the management key"),
        ({"again": "something else"}, 400, "the two passwords differ"),
        ({"password": "short", "again": "short"}, 400, "at least 12 characters"),
        ({"login": "no spaces"}, 400, "a login is"),
    ):
        refused = await welcome(stage, **fields)
        assert (refused.status_code, said in refused.text) == (status, True), said
        assert ADMIN_KEY not in refused.text
        assert PASSWORD not in refused.text
    assert not await stage.keeper.ask(USERS)
    made = await welcome(stage)
    assert (made.status_code, made.headers["location"]) == (303, "/console")
    page = await stage.http.get(f"{stage.url}/console")
    assert (page.status_code, "Overview" in page.text) == (200, True)
    again = await welcome(stage, login="eve")
    assert again.status_code == 403
    assert [user.login for user in await stage.keeper.ask(USERS)] == ["ada"]


def told(provider: Receiver, nonce: str, *, key: Any = None, alg: str = "RS256", **claims: Any) -> bytes:
    """Return what the token endpoint answers."""
    now = int(time.time())
    said = {"iss": provider.url, "aud": "weir", "sub": "42", "nonce": nonce, "iat": now, "exp": now + 60}
    said |= {"email": "grace@example.org", "name": "Grace", "email_verified": True} | claims
    return json.dumps(
        {"id_token": jwt.encode({"alg": alg, "kid": "k1"}, said, key or rsa("provider"), algorithms=[alg])}
    ).encode()


async def begin(stage: Stage, provider: Receiver) -> dict[str, str]:
    """Go to the provider; return what it was asked."""
    if not any(each.path.startswith("/.well-known") for each in provider.received):
        metadata = {
            "issuer": provider.url,
            "authorization_endpoint": f"{provider.url}/authorize",
            "token_endpoint": f"{provider.url}/token",
            "jwks_uri": f"{provider.url}/jwks",
        }
        keys = {"keys": [rsa("provider").as_dict(private=False)]}
        provider.answers += [(200, json.dumps(metadata).encode()), (200, json.dumps(keys).encode())]
    sent = await stage.http.get(f"{stage.url}/console/oidc/start", params={"next": "/console/keys"})
    assert sent.status_code == 303
    place = urlsplit(sent.headers["location"])
    assert f"{place.scheme}://{place.netloc}{place.path}" == f"{provider.url}/authorize"
    return {name: values[0] for name, values in parse_qs(place.query).items()}


async def back(stage: Stage, state: str) -> httpx.Response:
    """Come back from the provider."""
    return await stage.http.get(f"{stage.url}/console/oidc/back", params={"code": "c0de", "state": state})


async def test_who_was_added_comes_in_through_the_provider(stage: Stage, provider: Receiver) -> None:
    """Code with PKCE: the verifier that is sent with the code fits the challenge; the session is a usual one."""
    assert (await welcome(stage)).status_code == 303
    await stage.http.post(f"{stage.url}/console/sign-out")
    await stage.keeper.ask(CREATE_USER, (NewUser("grace@example.org", "Grace", (Grant(Role.VIEWER),)),))
    stage.http.cookies.clear()
    assert "Continue with Example ID" in (await stage.http.get(f"{stage.url}/console/sign-in")).text
    asked = await begin(stage, provider)
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == f"{stage.url}/console/oidc/back"
    provider.answers.append((200, told(provider, asked["nonce"])))
    found = await back(stage, asked["state"])
    assert (found.status_code, found.headers["location"]) == (303, "/console/keys")
    form = parse_qs(provider.received[-1].body.decode())
    digest = sha256(form["code_verifier"][0].encode()).digest()
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
    assert form["code"] == ["c0de"]
    assert (await stage.http.get(f"{stage.url}/console/keys")).status_code == 200


async def test_what_the_provider_did_not_say_for_this_sign_in_is_refused(stage: Stage, provider: Receiver) -> None:
    """Another nonce, audience, issuer, key or time, no signature worth the name, an unverified or unknown login."""
    assert (await welcome(stage)).status_code == 303
    await stage.keeper.ask(CREATE_USER, (NewUser("grace@example.org", "Grace", (Grant(Role.VIEWER),)),))
    stage.http.cookies.clear()
    shared = jwk.OctKey.import_key("a secret that anybody could know, for it is public")
    cases: list[dict[str, Any]] = [
        {"nonce": "another"},
        {"aud": "another"},
        {"iss": "https://evil.example"},
        {"exp": int(time.time()) - 600},
        {"key": rsa("other")},
        {"key": shared, "alg": "HS256"},
        {"email_verified": False},
        {"email": "stranger@example.org"},
        {"email": ""},
    ]
    for case in cases:
        asked = await begin(stage, provider)
        provider.answers.append((200, told(provider, **({"nonce": asked["nonce"]} | case))))
        assert (await back(stage, asked["state"])).status_code == 403, case
    asked = await begin(stage, provider)
    assert (await back(stage, "another state")).status_code == 403
    stage.http.cookies.clear()
    assert (await back(stage, asked["state"])).status_code == 403
    assert (await stage.http.get(f"{stage.url}/console/keys")).status_code == 303


async def test_a_cookie_of_somebodys_own_making_is_no_sign_in(stage: Stage) -> None:
    """Whatever it holds: what is nested as deep as a cookie can be was a defect, and needs nobody to sign in."""
    deep = b'["a","b","c","d",1,' + b"[" * 5_000 + b"]" * 5_000 + b"]"
    for made in ("", "zz", b"\xff".hex(), b"[]".hex(), b'["a","b","c","d","e"]'.hex(), deep.hex()):
        answer = await stage.http.get(f"{stage.url}/console/oidc/back", headers={"cookie": f"weir_oidc={made}"})
        assert answer.status_code == 403, made[:40]


async def test_a_database_that_is_away_is_a_page_that_says_so(stage: Stage) -> None:
    """Pages answer 503 and tell that inference goes on; nobody is signed out by it."""
    assert (await welcome(stage)).status_code == 303
    database, stage.keeper.offices._handlers = dict(stage.keeper.offices._handlers), {}

    async def away(*_arguments: object) -> None:
        from gateway.types.errors import Unavailable

        raise Unavailable("The database cannot be used now.", retry_after=1.0)

    stage.keeper.offices._handlers = dict.fromkeys(database, away)
    page = await stage.http.get(f"{stage.url}/console/keys")
    assert page.status_code == 503
    assert "Inference goes on meanwhile" in page.text
    stage.keeper.offices._handlers = database
    assert (await stage.http.get(f"{stage.url}/console/keys")).status_code == 200
