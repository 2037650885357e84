"""What holds of all forms and pages: what was typed is kept, ids are not told apart, a broken database is said."""

from __future__ import annotations

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest

from dashboards.door import form_token
from dashboards.pages import PAGES
from gateway.console.question import CREATE_USER, USER, USERS, NewUser
from gateway.console.roles import Grant, Role
from gateway.db.engine import Database
from gateway.keeper.service import Keeper
from gateway.types.errors import NotFound
from gateway.types.keys import NewKey
from tests.integration.console.conftest import post
from tests.integration.console.test_pages_by_role import EXPECTED, FORMS
from tests.ui.house import MINE, OTHERS, House

MODEL = "qwen/qwen3-32b"
OFFER = {
    "source": "litellm",
    "offers": [{"kind": "cost", "model": MODEL, "place": "cloud", "price": {"prompt": "9", "completion": "9"}}],
}
TYPED: list[tuple[str, dict[str, str], str, tuple[str, ...]]] = [
    ("/console/keys/new", {"name": "a name", "team": MINE, "rpm": "many"}, "rpm", ("a name", "many")),
    ("/console/keys/new", {"name": "a name", "team": MINE, "rpm": "9" * 5_000}, "rpm", ("a name",)),
    ("/console/keys/new", {"name": "a name", "team": MINE, "rpm": "1,5"}, "rpm", ("1,5",)),
    ("/console/keys/new", {"name": "a name", "team": MINE, "expires_at": "soon"}, "expires_at", ("a name", "soon")),
    ("/console/keys/new", {"name": "a name", "team": MINE, "expires_at": "2020-01-01"}, "expires_at", ("2020-01-01",)),
    ("/console/keys/new", {"name": "", "team": MINE, "tpm": "5"}, "name", ("5",)),
    (
        "/console/keys/KEY",
        {"name": "another", "version": "VERSION", "concurrent": "-1"},
        "concurrent",
        ("another", "-1"),
    ),
    ("/console/keys/KEY/revoke", {"confirm": "not this"}, "confirm", ()),
    ("/console/keys/management", {"name": "ci", "role": "team_admin"}, "role", ("ci",)),
    ("/console/teams", {"slug": "Not A Slug", "name": "My team"}, "slug", ("Not A Slug", "My team")),
    (f"/console/teams/{MINE}/members", {"login": "two words", "role": "viewer"}, "login", ("two words",)),
    ("/console/budgets", {"team": MINE, "limit": "lots", "alerts": "70"}, "limit", ("lots", "70")),
    ("/console/budgets", {"team": MINE, "limit": "0,50", "alerts": "70"}, "limit", ("0,50", "70")),
    ("/console/budgets", {"team": MINE, "limit": "5", "alerts": "half"}, "alerts", ("5", "half")),
    ("/console/budgets", {"key": "zzzzzzzz", "limit": "5"}, "key", ("zzzzzzzz", "5")),
    ("/console/models", {"model": MODEL, "prompt": "0.1", "completion": "", "why": "w"}, "completion", ("0.1", "w")),
    ("/console/models", {"model": MODEL, "prompt": "x", "completion": "1", "why": "w"}, "prompt", ("x", "1", "w")),
    (
        "/console/models",
        {"model": MODEL, "prompt": "1", "completion": "1", "why": "w", "valid_from": "soon"},
        "valid_from",
        ("1", "w", "soon"),
    ),
    ("/console/models/import", {"source": "litellm", "kind": "cost", "provider": "them"}, "file", ("them",)),
    (
        "/console/models/import/accept",
        {"take": "0", "valid_from": "2031-01-01", "offers": "OFFERS"},
        "why",
        ("2031-01-01",),
    ),
    ("/console/users", {"login": "two words", "name": "Ada"}, "login", ("two words", "Ada")),
    ("/console/settings/boards", {"version": "0", "milestones": "9" * 5_000}, "boards-milestones", ()),
    ("/console/settings/boards", {"version": "0", "milestones": "a lot", "per_day": "7"}, "boards-milestones", ("7",)),
    ("/console/settings/retention", {"version": "0", "ledger_days": "5"}, "retention-ledger_days", ("5",)),
    (
        "/console/profile/password",
        {"present": "wrong one", "password": "long enough, really", "again": "x"},
        "again",
        (),
    ),
]
"""Form, what is typed, the field at fault, and what the form still holds afterwards. Secrets are not among that."""
NOTHING_TYPED = frozenset(
    {
        "/console/sign-in",
        "/console/welcome",
        "/console/sign-out",
        "/console/fleet/drain",
        "/console/fleet/calibrate",
        "/console/keys/management/revoke",
        "/console/keys/{key_id}/switch",
        "/console/keys/{key_id}/rotate",
        "/console/teams/{slug}/members/remove",
        "/console/budgets/delete",
        "/console/billing/close",
        "/console/billing/retry",
        "/console/playground/key",
        "/console/users/{user_id}",
        "/console/users/{user_id}/switch",
        "/console/users/{user_id}/password",
        "/console/users/{user_id}/sign-out",
        "/console/profile/end-session",
        "/console/profile/sign-out-everywhere",
    }
)
"""Buttons and choices; the door has tests of its own, and closing a period has one below."""


def test_every_form_is_in_the_tables_of_this_test() -> None:
    """A new form cannot be forgotten here."""
    typed = {re.sub("KEY", "{key_id}", path).replace(MINE, "{slug}") for path, *_ in TYPED}
    typed = {re.sub(r"settings/\w+", "settings/{section}", path) for path in typed}
    assert {page.path for page in PAGES if page.methods == ("POST",)} == typed | NOTHING_TYPED


@pytest.mark.parametrize(("path", "fields", "wrong", "kept"), TYPED, ids=lambda value: str(value)[:40])
def test_a_form_keeps_what_was_typed_and_says_what_is_wrong(
    house: House, path: str, fields: dict[str, str], wrong: str, kept: tuple[str, ...]
) -> None:
    """The field at fault says so, for screen readers too; all that was typed is still there; nothing changed."""
    found = {"OFFERS": json.dumps(OFFER)}
    if "KEY" in path:
        record = house.do(house.stage.keeper.create_key(NewKey("kept", MINE))).record
        path = path.replace("KEY", record.key_id)
        found["VERSION"] = str(record.updated_at or 0)
    answer = post(house, "owner", path, **{name: found.get(value, value) for name, value in fields.items()})
    assert answer.status_code == 400, answer.text[-2000:]
    at = re.search(rf'<(?:input|select)[^>]*id="f-{wrong}"[^>]*>', answer.text)
    assert at is not None
    assert 'aria-invalid="true"' in at[0], at[0]
    assert re.search(rf'id="e-{wrong}">[^<]+<', answer.text)
    values = {unescape(value) for value in re.findall(r'value="([^"]*)"', answer.text)}
    assert set(kept) <= values
    assert "wrong one" not in answer.text


@pytest.mark.parametrize("path", ["/console/models", "/console/audit"])
def test_a_link_that_begins_nowhere_shows_the_newest(house: House, path: str) -> None:
    """Also with a digit that is no number."""
    with house.client("owner") as client:
        assert client.get(path, params={"before": "²"}).status_code == 200


def test_a_line_that_there_is_not_cannot_be_ticked(house: House) -> None:
    """Whatever its number is."""
    answer = post(house, "owner", "/console/models/import/accept", take="9" * 5_000, offers=json.dumps(OFFER), why="w")
    assert answer.status_code == 400
    assert "tick what is to be accepted" in answer.text
    deep = post(house, "owner", "/console/models/import/accept", take="0", offers="[" * 5_000, why="w")
    assert (deep.status_code, "look the prices up again" in deep.text) == (400, True)


def test_a_month_that_runs_is_not_offered_to_be_closed_and_says_why(house: House) -> None:
    """Whoever asks for it all the same hears it, too."""
    with house.client("owner") as client:
        page = client.get("/console/billing").text
    assert 'name="confirm"' not in page
    period = datetime.now(UTC).strftime("%Y-%m")
    assert f"ends with {period}-" in page
    for confirm, words in (
        ("yes", f"write {period} to close it"),
        (period, f"the period {period} ends with {period}-"),
    ):
        answer = post(house, "owner", "/console/billing/close", period=period, confirm=confirm)
        assert (answer.status_code, words in answer.text) == (400, True)


def test_ids_of_others_and_of_nobody_are_the_same_to_every_form(house: House) -> None:
    """Pages and forms about a key or a team of others answer, word for word, as if there were none."""
    key = house.do(house.stage.keeper.create_key(NewKey("theirs", OTHERS))).record.key_id
    names = {"{key_id}": (key, "zzzzzzzz"), "{slug}": (OTHERS, "no-such-team"), "{team}": (OTHERS, "no-such-team")}
    looked = 0
    for page in PAGES:
        name = next((name for name in names if name in page.path), "")
        if page.permission is None or not name:
            continue
        told = []
        for given in names[name]:
            path = page.path.replace(name, given).replace("{period}", "2026-01").replace("{form}", "csv")
            if page.methods == ("POST",):
                answer = post(house, "team_admin", path, version="0", confirm=given, login="x", role="viewer", user="x")
            else:
                with house.client("team_admin") as client:
                    answer = client.get(path)
            told.append((answer.status_code, re.sub(r"<input[^>]*>", "", answer.text)))
        assert told[0] == told[1], page.path
        assert told[0][0] == 404, page.path
        looked += 1
    assert looked >= 9
    assert house.do(house.stage.keeper.key(key)).name == "theirs"


@pytest.mark.parametrize("remove", [False, True], ids=["add", "remove"])
def test_two_admins_at_the_same_moment_undo_nothing_of_each_other(
    house: House, monkeypatch: pytest.MonkeyPatch, remove: bool
) -> None:
    """Both have read who is there before either writes; each changes the role in the own team alone."""
    mine, others = Grant(Role.VIEWER, MINE), Grant(Role.VIEWER, OTHERS)
    user = house.do(
        house.stage.keeper.ask(CREATE_USER, (NewUser(f"shared-{remove}", "", (others,) if remove else ()),))
    )
    met, ask = asyncio.Barrier(2), Keeper.ask

    async def together(keeper: Keeper, asked: Any, arguments: Any = ()) -> Any:
        found = await ask(keeper, asked, arguments)
        if asked is USERS:
            await asyncio.wait_for(met.wait(), 20)
        return found

    monkeypatch.setattr(Keeper, "ask", together)
    member = {"login": user.login, "role": "viewer", "user": user.user_id}
    theirs = f"/console/teams/{OTHERS}/members{'/remove' if remove else ''}"
    with ThreadPoolExecutor(2) as pool:
        tried = [
            pool.submit(post, house, "team_admin", f"/console/teams/{MINE}/members", **member),
            pool.submit(post, house, "owner", theirs, **member),
        ]
        assert [each.result().status_code for each in tried] == [303, 303]
    monkeypatch.undo()
    grants = house.do(house.stage.keeper.ask(USER, (user.user_id,))).grants
    assert set(grants) == ({mine} if remove else {mine, others})


def test_a_broken_database_is_said_on_every_page_and_inference_goes_on(house: House) -> None:
    """Every page and form is 503 and says that requests are served; they are; and afterwards all is as before."""
    keeper = house.stage.keeper
    database = keeper._database
    assert database is not None
    broken = Database(f"sqlite+aiosqlite:///{house.stage.home}/no/such/folder/weir.db")
    whole = database.reader, database.writer
    record = house.do(keeper.create_key(NewKey("whole", MINE))).record
    token = form_token(house.tokens["owner"])
    named = [f"/console/keys/{record.key_id}", f"/console/teams/{MINE}", "/console/billing/2026-01"]
    try:
        database.reader, database.writer = broken.reader, broken.writer
        with house.client("owner") as client:
            for path in (*EXPECTED, *named):
                answer = client.get(path)
                assert (answer.status_code, "Inference goes on meanwhile" in answer.text) == (503, True), path
            for path in FORMS:
                answer = client.post(path, data={"csrf": token}, headers={"origin": house.url})
                assert (answer.status_code, "Inference goes on meanwhile" in answer.text) == (503, True), path
        assert house.do(house.stage.chat(max_tokens=3)).status_code == 200
    finally:
        database.reader, database.writer = whole
        house.do(broken.close())
    with house.client("owner") as client:
        assert client.get("/console/keys").status_code == 200
    with pytest.raises(NotFound):
        house.do(keeper.key("zzzzzzzz"))
