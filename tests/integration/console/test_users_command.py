"""``weir users``: who may sign in, and a new password for somebody who cannot any more."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.console.question import AUDIT_LOG, CREATE_USER, SESSION, SIGN_IN, USERS, AuditQuestion, NewUser, SignIn
from gateway.console.roles import Grant, Role
from gateway.keeper.process import reaching
from gateway.types.errors import Unauthorized

OLD = "a password that is old"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder with two users, one of whom is signed in."""
    monkeypatch.setenv("WEIR_HOME", str(tmp_path))
    monkeypatch.setenv("WEIR_SECRET", "pepper")
    monkeypatch.delenv("WEIR_CONFIG", raising=False)
    monkeypatch.delenv("WEIR_DATABASE_URL", raising=False)
    assert CliRunner().invoke(app, ["teams", "create", "search"]).exit_code == 0

    async def fill() -> str:
        async with reaching(tmp_path, f"sqlite+aiosqlite:///{tmp_path / 'weir.db'}", b"pepper") as keeper:
            owner = NewUser("ada@example.org", "Ada", (Grant(Role.OWNER),), OLD, must_change=False)
            await keeper.ask(CREATE_USER, (owner,))
            member = (Grant(Role.TEAM_ADMIN, "search"), Grant(Role.VIEWER))
            await keeper.ask(CREATE_USER, (NewUser("eve@example.org", "Eve", member),))
            return (await keeper.ask(SIGN_IN, (SignIn("ada@example.org", OLD, "10.0.0.1", "x"),))).token

    (tmp_path / "token").write_text(asyncio.run(fill()))
    return tmp_path


def test_users_are_listed_with_their_roles(home: Path) -> None:
    """Roles everywhere and in teams, as a table and as JSON; no password is among it."""
    run = CliRunner()
    listed = run.invoke(app, ["users", "list", "--json"])
    assert listed.exit_code == 0, listed.output
    ada, eve = json.loads(listed.output)
    assert (ada["login"], ada["roles"], ada["disabled"]) == ("ada@example.org", ["owner"], False)
    assert ada["last_seen_at"] is not None
    assert (sorted(eve["roles"]), eve["last_seen_at"]) == (["team_admin of search", "viewer"], None)
    table = run.invoke(app, ["users", "list"])
    assert "eve@example.org" in table.output
    assert "argon2" not in table.output + listed.output
    assert home.exists()


def test_a_new_password_lets_somebody_in_again(home: Path) -> None:
    """It is printed once, must be changed, ends all sessions, and the audit log says who gave it."""
    run = CliRunner()
    given = run.invoke(app, ["users", "password", "Ada@example.org"])
    assert given.exit_code == 0, given.output
    password = given.output.strip().splitlines()[-1]
    unknown = run.invoke(app, ["users", "password", "nobody@example.org"])
    assert unknown.exit_code == 1
    assert "there is no user 'nobody@example.org'" in unknown.output + str(unknown.stderr)

    async def look() -> None:
        async with reaching(home, f"sqlite+aiosqlite:///{home / 'weir.db'}", b"pepper") as keeper:
            assert await keeper.ask(SESSION, ((home / "token").read_text(),)) is None
            with pytest.raises(Unauthorized):
                await keeper.ask(SIGN_IN, (SignIn("ada@example.org", OLD, "10.0.0.1", "x"),))
            found = await keeper.ask(SIGN_IN, (SignIn("ada@example.org", password, "10.0.0.1", "x"),))
            assert found.session.user.must_change
            entry = (await keeper.ask(AUDIT_LOG, (AuditQuestion(noun="password"),)))[0]
            assert (entry.via, entry.verb) == ("command", "change")
            assert password not in repr(entry)
            users = await keeper.ask(USERS)
            assert [user.login for user in users] == ["ada@example.org", "eve@example.org"]

    asyncio.run(look())
