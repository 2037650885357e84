"""Who gets which page: every role at every page and form, over HTTP."""

from __future__ import annotations

import re

import pytest

from dashboards.door import form_token
from dashboards.pages import PAGES
from gateway.console.question import CREATE_USER, SIGN_IN, USERS, NewUser, SignIn
from gateway.console.roles import Grant, Role
from gateway.types.budgets import SET_BUDGET, NewBudget, Scope, Window
from gateway.types.keys import NewKey
from tests.integration.console.conftest import post
from tests.ui.house import MINE, OTHERS, ROLES, House

EVERYBODY = frozenset(ROLES) - {"nobody"}
GLOBAL = frozenset({"owner", "admin", "billing", "viewer"})
EXPECTED: dict[str, frozenset[str]] = {
    "/console": EVERYBODY,
    "/console/fleet": frozenset({"owner", "admin", "viewer"}),
    "/console/routing": frozenset({"owner", "admin", "viewer"}),
    "/console/activity": EVERYBODY,
    "/console/keys": EVERYBODY - {"billing"},
    "/console/keys/new": frozenset({"owner", "admin", "team_admin"}),
    "/console/keys/management": frozenset({"owner", "admin"}),
    "/console/teams": EVERYBODY,
    "/console/budgets": EVERYBODY,
    "/console/models": EVERYBODY,
    "/console/models/import": frozenset({"owner", "admin"}),
    "/console/billing": frozenset({"owner", "admin", "billing", "team_admin"}),
    "/console/playground": frozenset({"owner", "admin", "team_admin"}),
    "/console/users": frozenset({"owner", "admin"}),
    "/console/audit": frozenset({"owner", "admin", "team_admin"}),
    "/console/settings": frozenset({"owner", "admin"}),
    "/console/profile": EVERYBODY | {"nobody"},
}
"""Who sees a page, said once more and apart from the table that the console goes by."""
FORMS: dict[str, frozenset[str]] = {
    "/console/fleet/drain": frozenset({"owner", "admin"}),
    "/console/fleet/calibrate": frozenset({"owner", "admin"}),
    "/console/keys/new": frozenset({"owner", "admin", "team_admin"}),
    "/console/keys/management": frozenset({"owner", "admin"}),
    "/console/keys/management/revoke": frozenset({"owner", "admin"}),
    "/console/teams": frozenset({"owner", "admin"}),
    "/console/budgets": frozenset({"owner", "admin"}),
    "/console/budgets/delete": frozenset({"owner", "admin"}),
    "/console/models": frozenset({"owner", "admin"}),
    "/console/models/import": frozenset({"owner", "admin"}),
    "/console/models/import/accept": frozenset({"owner", "admin"}),
    "/console/billing/close": frozenset({"owner", "billing"}),
    "/console/billing/retry": frozenset({"owner", "billing"}),
    "/console/playground/key": frozenset({"owner", "admin", "team_admin"}),
    "/console/users": frozenset({"owner", "admin"}),
}


def test_every_plain_page_and_form_is_in_the_tables_of_this_test() -> None:
    """A new page cannot be forgotten here."""
    mine = {page.path for page in PAGES if page.permission and "GET" in page.methods and "{" not in page.path}
    assert mine - {"/console/live"} == set(EXPECTED)
    forms = {page.path for page in PAGES if page.permission and page.methods == ("POST",) and "{" not in page.path}
    assert {path for path in forms if "profile" not in path and "sign-out" not in path} == set(FORMS)


@pytest.mark.parametrize("role", list(ROLES))
def test_a_role_gets_the_pages_of_its_row_and_no_other(house: House, role: str) -> None:
    """What a role must not see is 403; what it may is a page with its menu and nothing of other roles' menus."""
    with house.client(role) as client:
        found = {path: client.get(path) for path in EXPECTED}
    assert {path: answer.status_code for path, answer in found.items()} == {
        path: 200 if role in roles else 403 for path, roles in EXPECTED.items()
    }
    menu = set(re.findall(r'<li><a href="(/console[^"]*)"', found["/console/profile"].text))
    assert menu == {path for path, roles in EXPECTED.items() if role in roles} - {
        "/console/keys/new",
        "/console/keys/management",
        "/console/models/import",
        "/console/profile",
    }


@pytest.mark.parametrize("role", list(ROLES))
def test_a_role_may_send_the_forms_of_its_row_and_no_other(house: House, role: str) -> None:
    """A form that a role may not send is 403 and changes nothing; one that it may is read."""
    for path, roles in FORMS.items():
        answer = post(house, role, path, nothing="here")
        assert (answer.status_code == 403) == (role not in roles), (path, answer.status_code)


def test_nobody_who_is_not_signed_in_sees_anything(house: House) -> None:
    """Every page sends strangers to the sign-in page and remembers where they wanted to go; forms are 401."""
    with house.client() as client:
        for path in EXPECTED:
            answer = client.get(path)
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/console/sign-in?next=%2Fconsole")
        for path in FORMS:
            assert client.post(path, data={}).status_code == 401


@pytest.mark.parametrize("role", ["team_admin", "team_viewer"])
def test_another_team_is_as_unknown_as_one_that_is_not(house: House, role: str) -> None:
    """Pages of another team and of no team at all are the same 404, word for word."""
    key = house.do(house.stage.keeper.create_key(NewKey("theirs", OTHERS))).record.key_id
    pairs = [
        (f"/console/teams/{OTHERS}", "/console/teams/no-such-team"),
        (f"/console/keys/{key}", "/console/keys/zzzzzzzz"),
        (f"/console/activity?team={OTHERS}", "/console/activity?team=no-such-team"),
        (f"/console/activity/export.csv?team={OTHERS}", "/console/activity/export.csv?team=no-such-team"),
        (f"/console/keys?team={OTHERS}", "/console/keys?team=no-such-team"),
    ]
    with house.client(role) as client:
        for theirs, nobodys in pairs:
            told = [client.get(path) for path in (theirs, nobodys)]
            assert [answer.status_code for answer in told] == [404, 404], theirs
            bodies = [re.sub(r"<input[^>]*>", "", answer.text) for answer in told]
            assert bodies[0] == bodies[1]


def test_a_team_sees_its_own_alone(house: House) -> None:
    """Lists of a team's members name no other team, key or budget."""
    keeper = house.stage.keeper
    key = house.do(keeper.create_key(NewKey("key-of-others", OTHERS))).record.key_id
    house.do(keeper.create_key(NewKey("key-of-mine", MINE)))
    for scope in (Scope(team=OTHERS), Scope(key_id=key), Scope(team=MINE)):
        house.do(keeper.ask(SET_BUDGET, (NewBudget(scope, Window.MONTHLY, 10**12),)))
    with house.client("team_admin") as client:
        for path in ("/console/keys", "/console/teams", "/console/budgets", "/console/activity", "/console/audit"):
            text = client.get(path).text
            assert OTHERS not in text, path
            assert "key-of-others" not in text, path
        assert "key-of-mine" in client.get("/console/keys").text
        assert f"team {MINE}" in client.get("/console/budgets").text


def test_a_team_admin_changes_nothing_of_another_team(house: House) -> None:
    """Making, changing and revoking keys of another team is 404 and leaves them as they were."""
    record = house.do(house.stage.keeper.create_key(NewKey("untouched", OTHERS))).record
    path = f"/console/keys/{record.key_id}"
    for suffix, fields in (
        ("", {"name": "taken", "version": "0"}),
        ("/switch", {"disabled": "yes"}),
        ("/rotate", {"overlap": "0"}),
        ("/revoke", {"confirm": record.key_id}),
    ):
        assert post(house, "team_admin", path + suffix, **fields).status_code == 404
    assert post(house, "team_admin", "/console/keys/new", name="x", team=OTHERS).status_code == 404
    assert post(house, "team_admin", f"/console/teams/{OTHERS}/members", login="x", role="viewer").status_code == 404
    assert house.do(house.stage.keeper.key(record.key_id)) == record


def test_an_admin_makes_and_changes_no_owner(house: House) -> None:
    """Only owners touch owners."""
    users = {user.login: user for user in house.do(house.stage.keeper.ask(USERS))}
    owner, viewer = users["owner"], users["viewer"]
    assert post(house, "admin", f"/console/users/{owner.user_id}", role="viewer").status_code == 403
    assert post(house, "admin", f"/console/users/{owner.user_id}/password").status_code == 403
    assert post(house, "admin", f"/console/users/{owner.user_id}/switch", disabled="yes").status_code == 403
    assert post(house, "admin", f"/console/users/{viewer.user_id}", role="owner").status_code == 403
    assert post(house, "admin", "/console/users", login="more", role="owner").status_code == 403
    assert {user.login: user for user in house.do(house.stage.keeper.ask(USERS))} == users


@pytest.mark.parametrize("how", ["switched off", "another role", "no member", "a lesser member"])
def test_who_may_no_longer_use_the_playground_has_no_key_of_it(house: House, how: str) -> None:
    """The key of the page would have run models, and spent a team's money, for up to twelve hours more."""
    keeper, login = house.stage.keeper, how.replace(" ", "-")
    everywhere = how in ("switched off", "another role")
    grant = Grant(Role.ADMIN) if everywhere else Grant(Role.TEAM_ADMIN, "default")
    user = house.do(keeper.ask(CREATE_USER, (NewUser(login, login, (grant,), "a long enough password", False),)))
    signed_in = house.do(keeper.ask(SIGN_IN, (SignIn(login, "a long enough password", "10.0.0.9", ""),)))
    house.tokens[login] = signed_in.token
    assert post(house, login, "/console/playground/key", team="default").status_code == 200
    assert f"playground of {login}" in {key.name for key in house.do(keeper.keys("default"))}
    path, fields = {
        "switched off": (f"/console/users/{user.user_id}/switch", {"disabled": "yes"}),
        "another role": (f"/console/users/{user.user_id}", {"role": "viewer"}),
        "no member": ("/console/teams/default/members/remove", {"user": user.user_id}),
        "a lesser member": ("/console/teams/default/members", {"login": login, "role": "viewer"}),
    }[how]
    assert post(house, "owner", path, **fields).status_code == 303
    assert f"playground of {login}" not in {key.name for key in house.do(keeper.keys("default"))}


def test_a_form_of_another_site_is_refused(house: House) -> None:
    """Without the token, with another session's token, from another origin or none at all nothing is changed."""
    before = house.do(house.stage.keeper.teams())
    token = form_token(house.tokens["owner"])
    cases: list[tuple[dict[str, str], dict[str, str]]] = [
        ({"slug": "evil"}, {"origin": house.url}),
        ({"slug": "evil", "csrf": form_token(house.tokens["admin"])}, {"origin": house.url}),
        ({"slug": "evil", "csrf": token}, {"origin": "https://evil.example"}),
        ({"slug": "evil", "csrf": token}, {"origin": "null"}),
        ({"slug": "evil", "csrf": token}, {"origin": "http://["}),
        ({"slug": "evil", "csrf": token}, {"sec-fetch-site": "cross-site"}),
        ({"slug": "evil", "csrf": token}, {"sec-fetch-site": "none"}),
        ({"slug": "evil", "csrf": token}, {}),
    ]
    with house.client("owner") as client:
        for fields, headers in cases:
            assert client.post("/console/teams", data=fields, headers=headers).status_code == 403
        assert client.post("/console/teams", json={"slug": "evil", "csrf": token}).status_code == 400
        own = client.post("/console/teams", data={"csrf": token}, headers={"sec-fetch-site": "same-origin"})
        assert own.status_code == 400, "a browser that sends no Origin may say so otherwise"
    assert house.do(house.stage.keeper.teams()) == before


def test_every_page_says_what_browsers_must_not_do(house: House) -> None:
    """The policy allows no inline script or style and no other site; cookies are out of reach of scripts."""
    with house.client("owner") as client:
        for path in EXPECTED:
            answer = client.get(path)
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert not re.search(r"\son[a-z]+=|\sstyle=|<style|javascript:", answer.text), path
            assert not re.search(r"<script(?![^>]*\ssrc=)", answer.text), path
    with house.client() as client:
        page = client.get("/console/sign-in")
        sent = client.post(
            "/console/sign-in",
            data={
                "login": "viewer",
                "password": "a password of the tests",
                "csrf": form_token(client.cookies["weir_visit"]),
                "next": "https://evil.example/",
            },
            headers={"origin": house.url},
        )
    assert page.status_code == 200
    assert sent.status_code == 303
    assert sent.headers["location"] == "/console"
    cookie = next(line for line in sent.headers.get_list("set-cookie") if line.startswith("weir_session="))
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie


def test_a_change_through_the_api_is_in_the_log_too(house: House) -> None:
    """The management key's changes say that it was the key, through the API, and from where."""
    with house.client() as client:
        made = client.post(
            "/api/v1/teams", json={"slug": "through-the-api", "name": "Through"}, headers=house.stage.admin
        )
    assert made.status_code == 201, made.text
    with house.client("owner") as client:
        page = client.get("/console/audit?noun=team&subject=through-the-api").text
    assert "management key" in page
    assert "api, 127.0.0.1" in page
