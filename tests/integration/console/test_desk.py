"""Users, sessions and the audit log in a real database, SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError
from sqlmodel import col

from gateway.config.snapshot import ConfigSnapshot
from gateway.console import question as asked
from gateway.console.measure import REQUESTS, USAGE, Pick, RequestsQuestion, UsageQuestion
from gateway.console.roles import Grant, Role
from gateway.db.tables.console import ConsoleSession, ConsoleUser
from gateway.db.unit_of_work import writing
from gateway.keeper.client import KeeperClient
from gateway.keeper.server import KeeperServer
from gateway.keeper.service import Keeper
from gateway.types.actor import ACTING, Actor
from gateway.types.budgets import DELETE_BUDGET, SET_BUDGET, NewBudget, Scope, Window
from gateway.types.errors import BadRequest, Forbidden, NotFound, RateLimited, Unauthorized, WeirError
from gateway.types.keys import KeyPatch, NewKey
from tests.fakes.ledgers import furnish

PASSWORD = "a long enough password"
ADA = asked.SignIn("ada@example.org", PASSWORD, "10.0.0.1", "Firefox")


def no_config() -> ConfigSnapshot | None:
    """Return nothing: the console goes by its defaults."""
    return None


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    """A keeper with a real database."""
    furnish(tmp_path)
    keeper = Keeper(tmp_path, f"sqlite+aiosqlite:///{tmp_path / 'weir.db'}", b"pepper", config=no_config)
    await keeper.start()
    yield keeper
    await keeper.stop()


async def log(keeper: Keeper, **wanted: object) -> list[asked.Entry]:
    """Return the audit log, oldest first."""
    question = msgspec.convert({"limit": 500} | wanted, asked.AuditQuestion)
    entries = await keeper.ask(asked.AUDIT_LOG, (question,))
    return list(reversed(entries))


async def test_the_first_owner_is_made_once(keeper: Keeper) -> None:
    """Whoever comes second is refused, also at the same moment."""
    assert await keeper.ask(asked.VIRGIN)
    both = await asyncio.gather(
        *(keeper.ask(asked.FIRST_OWNER, (msgspec.structs.replace(ADA, login=name),)) for name in ("ada", "eve")),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in both) == ["Forbidden", "SignedIn"]
    assert not await keeper.ask(asked.VIRGIN)
    assert [user.grants for user in await keeper.ask(asked.USERS)] == [(Grant(Role.OWNER),)]
    entry = (await log(keeper))[-1]
    assert (entry.noun, entry.verb, entry.via, entry.address) == ("user", "create", "console", "10.0.0.1")


async def test_a_session_lives_until_it_is_over_idle_or_ended(keeper: Keeper) -> None:
    """Its token is known to the browser alone; a user who is switched off is out at once."""
    first = await keeper.ask(asked.FIRST_OWNER, (ADA,))
    running = await keeper.ask(asked.SESSION, (first.token,))
    assert running is not None
    assert running.user.login == "ada@example.org"
    assert await keeper.ask(asked.SESSION, ("another",)) is None
    second = await keeper.ask(asked.SIGN_IN, (ADA,))
    sessions = await keeper.ask(asked.SESSIONS, (first.session.user.user_id,))
    assert len(sessions) == 2
    assert keeper._database is not None
    async with writing(keeper._database) as session:
        rows = (await session.execute(text("SELECT * FROM console_session"))).all()
        assert not [row for row in rows if first.token in str(row) or second.token in str(row)]
        late = update(ConsoleSession).where(col(ConsoleSession.session_id) == first.session.session_id)
        await session.execute(late.values(seen_at=first.session.created_at - 7_200_000_001))
    assert await keeper.ask(asked.SESSION, (first.token,)) is None
    assert await keeper.ask(asked.SESSION, (second.token,)) is not None
    await keeper.ask(asked.SIGN_OUT, (second.token,))
    assert await keeper.ask(asked.SESSION, (second.token,)) is None

    bob = await keeper.ask(asked.CREATE_USER, (asked.NewUser("bob", "Bob", (Grant(Role.VIEWER),), PASSWORD),))
    his = await keeper.ask(asked.SIGN_IN, (msgspec.structs.replace(ADA, login="BOB "),))
    assert his.session.user.must_change
    await keeper.ask(asked.UPDATE_USER, (bob.user_id, asked.UserPatch(disabled=True)))
    assert await keeper.ask(asked.SESSION, (his.token,)) is None
    with pytest.raises(Unauthorized):
        await keeper.ask(asked.SIGN_IN, (msgspec.structs.replace(ADA, login="bob"),))


async def test_a_user_was_last_here_when_the_last_page_was_asked_for(keeper: Keeper) -> None:
    """Users and sessions say the same, also long after the sign-in."""
    first = await keeper.ask(asked.FIRST_OWNER, (ADA,))
    signed_in = first.session.created_at - 3_600_000_000
    assert keeper._database is not None
    async with writing(keeper._database) as session:
        for table in (ConsoleSession, ConsoleUser):
            await session.execute(update(table).values(seen_at=signed_in))
    assert await keeper.ask(asked.SESSION, (first.token,)) is not None
    [user] = await keeper.ask(asked.USERS)
    [listed] = await keeper.ask(asked.SESSIONS, (user.user_id,))
    assert user.seen_at == listed.seen_at >= first.session.created_at


async def test_passwords_are_checked_changed_and_never_kept(keeper: Keeper) -> None:
    """A wrong one and an unknown login are the same refusal; another password ends the other sessions."""
    first = await keeper.ask(asked.FIRST_OWNER, (ADA,))
    user_id = first.session.user.user_id
    refusals = []
    for wrong in (
        msgspec.structs.replace(ADA, password="not it, not it"),
        msgspec.structs.replace(ADA, login="nobody"),
    ):
        with pytest.raises(Unauthorized) as caught:
            await keeper.ask(asked.SIGN_IN, (wrong,))
        refusals.append(caught.value.message)
    assert refusals[0] == refusals[1]
    second = await keeper.ask(asked.SIGN_IN, (ADA,))
    with pytest.raises(BadRequest, match="present password"):
        await keeper.ask(asked.CHANGE_PASSWORD, (user_id, "wrong wrong wrong", "another long one", second.token))
    with pytest.raises(BadRequest, match="at least 12"):
        await keeper.ask(asked.CHANGE_PASSWORD, (user_id, PASSWORD, "short", second.token))
    await keeper.ask(asked.CHANGE_PASSWORD, (user_id, PASSWORD, "another long one", second.token))
    assert await keeper.ask(asked.SESSION, (first.token,)) is None
    assert await keeper.ask(asked.SESSION, (second.token,)) is not None
    assert keeper._database is not None
    async with writing(keeper._database) as session:
        kept = (await session.execute(text("SELECT password FROM console_user"))).scalar_one()
        told = str((await session.execute(text("SELECT * FROM audit_entry"))).all())
    assert kept.startswith("$argon2id$")
    assert "$argon2" not in told
    assert PASSWORD not in told


async def test_guessing_is_slowed_down(keeper: Keeper) -> None:
    """After some failures the right password does not help either, until some time has passed."""
    await keeper.ask(asked.FIRST_OWNER, (ADA,))
    for _ in range(8):
        with pytest.raises(Unauthorized):
            await keeper.ask(asked.SIGN_IN, (msgspec.structs.replace(ADA, password="guess guess guess"),))
    with pytest.raises(RateLimited):
        await keeper.ask(asked.SIGN_IN, (ADA,))


async def test_guesses_that_come_together_are_counted_one_by_one(keeper: Keeper) -> None:
    """A hundred at once are no way round the limit: the first eight are looked at."""
    await keeper.ask(asked.FIRST_OWNER, (ADA,))
    guess = msgspec.structs.replace(ADA, password="guess guess guess")
    told = await asyncio.gather(*(keeper.ask(asked.SIGN_IN, (guess,)) for _ in range(100)), return_exceptions=True)
    assert [type(each) for each in told] == [Unauthorized] * 8 + [RateLimited] * 92


async def test_who_has_a_session_guesses_no_more_often(keeper: Keeper) -> None:
    """The present password is asked for so that a stolen session does not become a stolen login."""
    signed_in = await keeper.ask(asked.FIRST_OWNER, (ADA,))
    change = (signed_in.session.user.user_id, "guess guess guess", "another long password", signed_in.token)
    for _ in range(8):
        with pytest.raises(BadRequest, match="not your present password"):
            await keeper.ask(asked.CHANGE_PASSWORD, change)
    with pytest.raises(RateLimited):
        await keeper.ask(asked.CHANGE_PASSWORD, (change[0], PASSWORD, *change[2:]))
    assert await keeper.ask(asked.SIGN_IN, (ADA,)), "who knows the password may still sign in"


async def test_the_last_owner_stays(keeper: Keeper) -> None:
    """Nobody can lock everybody out."""
    owner = await keeper.ask(asked.USER, ((await keeper.ask(asked.FIRST_OWNER, (ADA,))).session.user.user_id,))
    for patch in (asked.UserPatch(disabled=True), asked.UserPatch(grants=(Grant(Role.ADMIN),))):
        with pytest.raises(BadRequest, match="last owner"):
            await keeper.ask(asked.UPDATE_USER, (owner.user_id, patch))
    assert await keeper.ask(asked.USER, (owner.user_id,)) == owner


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (asked.NewUser("no spaces", "x", ()), "a login is"),
        (asked.NewUser("x", "x", (Grant(Role.TEAM_ADMIN),)), "cannot be given everywhere"),
        (asked.NewUser("x", "x", (Grant(Role.OWNER, "default"),)), "cannot be given in a team"),
        (asked.NewUser("x", "x", (Grant(Role.VIEWER, "no-such"),)), "no team"),
        (asked.NewUser("x", "x", (), "short"), "at least 12"),
    ],
    ids=["login", "team role everywhere", "owner of a team", "unknown team", "password"],
)
async def test_what_no_user_can_be_is_refused(keeper: Keeper, new: asked.NewUser, message: str) -> None:
    """The refusal says what is wrong, and nobody was made."""
    with pytest.raises(BadRequest, match=message):
        await keeper.ask(asked.CREATE_USER, (new,))
    assert not await keeper.ask(asked.USERS)


async def test_an_identity_provider_lets_in_who_was_added_and_nobody_else(keeper: Keeper) -> None:
    """Unknown people come in only where that is allowed; a login with a password here cannot be taken over."""
    await keeper.ask(asked.FIRST_OWNER, (ADA,))
    eve = asked.Identity("https://id 1", "eve@example.org", "Eve", (Grant(Role.VIEWER),), False, "10.0.0.9", "x")
    with pytest.raises(Forbidden, match="given you access"):
        await keeper.ask(asked.SIGN_IN_IDENTITY, (eve,))
    with pytest.raises(Forbidden, match="password here"):
        await keeper.ask(asked.SIGN_IN_IDENTITY, (msgspec.structs.replace(eve, login="ada@example.org", create=True),))
    await keeper.ask(asked.CREATE_USER, (asked.NewUser("eve@example.org", "Eve", (Grant(Role.BILLING),)),))
    found = await keeper.ask(asked.SIGN_IN_IDENTITY, (eve,))
    assert found.session.user.grants == (Grant(Role.BILLING),)
    renamed = msgspec.structs.replace(eve, login="eve@new.example")
    assert (await keeper.ask(asked.SIGN_IN_IDENTITY, (renamed,))).session.user.login == "eve@example.org"
    other = msgspec.structs.replace(eve, subject="https://id 2", login="eve@example.org")
    with pytest.raises(Forbidden):
        await keeper.ask(asked.SIGN_IN_IDENTITY, (other,))


async def test_every_change_is_noted_with_before_and_after(keeper: Keeper) -> None:
    """Keys, teams and budgets: who, from where, what it was, what it is; and no secret in it."""
    token = ACTING.set(Actor("ada@example.org", "console", "10.0.0.1"))
    await keeper.create_team("search", "Search")
    issued = await keeper.create_key(NewKey("indexer", "search"))
    key_id = issued.record.key_id
    await keeper.update_key(key_id, KeyPatch(name="crawler"))
    await keeper.update_key(key_id, KeyPatch())
    rotated = await keeper.rotate_key(key_id, 0)
    budget = await keeper.ask(SET_BUDGET, (NewBudget(Scope(key_id), Window.DAILY, 5),))
    await keeper.ask(DELETE_BUDGET, (budget.budget_id,))
    await keeper.revoke_key(key_id)
    await keeper.revoke_key(key_id)
    ACTING.reset(token)
    entries = [entry for entry in await log(keeper) if entry.team == "search"]
    assert [(entry.noun, entry.verb) for entry in entries] == [
        ("team", "create"),
        ("key", "create"),
        ("key", "change"),
        ("key", "change"),
        ("budget", "create"),
        ("budget", "delete"),
        ("key", "change"),
    ]
    assert {(entry.actor, entry.via, entry.address) for entry in entries} == {
        ("ada@example.org", "console", "10.0.0.1")
    }
    renamed = entries[2]
    assert renamed.before is not None
    assert renamed.after is not None
    assert msgspec.json.decode(renamed.before)["name"] == "indexer"
    assert msgspec.json.decode(renamed.after)["name"] == "crawler"
    whole = repr(entries)
    for secret in (issued.key, rotated.key, rotated.record.digest.hex()):
        assert secret not in whole
    assert [entry.noun for entry in await log(keeper, teams=["other"])] == []
    assert {entry.noun for entry in await log(keeper, noun="budget")} == {"budget"}


async def test_a_change_that_fails_leaves_no_note(keeper: Keeper) -> None:
    """Change and note are one transaction."""
    before = await log(keeper)
    for doing in (
        keeper.create_key(NewKey("x", "no-such-team")),
        keeper.update_key("zzzzzzzz", KeyPatch(name="x")),
        keeper.ask(DELETE_BUDGET, ("bud-none",)),
    ):
        with pytest.raises(WeirError):
            await doing
    assert await log(keeper) == before


async def test_the_log_can_only_grow(keeper: Keeper) -> None:
    """The database itself refuses to change or delete an entry."""
    await keeper.create_team("search", "Search")
    assert keeper._database is not None
    for statement in ("UPDATE audit_entry SET actor = 'nobody'", "DELETE FROM audit_entry"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with writing(keeper._database) as session:
                await session.execute(text(statement))
    assert (await log(keeper))[-1].subject == "search"


async def test_who_acts_travels_to_a_keeper_in_another_process(keeper: Keeper, tmp_path: Path) -> None:
    """Through the socket the log has the same actor, and each call its own."""
    server = KeeperServer(keeper, tmp_path)
    await server.start()
    client = KeeperClient(tmp_path)
    await client.start()

    async def make(name: str) -> None:
        ACTING.set(Actor(name, "api", "10.0.0.7"))
        await client.create_team(f"team-{name}", name)

    try:
        await asyncio.gather(*(asyncio.create_task(make(name)) for name in ("ada", "bob", "eve")))
        await client.create_team("nobodys", "Nobody's")
    finally:
        await client.stop()
        await server.stop()
    made = {entry.subject: (entry.actor, entry.via) for entry in await log(keeper, noun="team")}
    assert made | {"default": ("weir", "gateway")} == {
        "team-ada": ("ada", "api"),
        "team-bob": ("bob", "api"),
        "team-eve": ("eve", "api"),
        "nobodys": ("weir", "gateway"),
        "default": ("weir", "gateway"),
    }


async def test_drained_backends_are_kept_and_noted(keeper: Keeper) -> None:
    """A drain outlives the process that asked for it; doing it twice is once."""
    await keeper.ask(asked.DRAIN, ("gpu-a", True))
    await keeper.ask(asked.DRAIN, ("gpu-a", True))
    drained = await keeper.ask(asked.DRAINED)
    assert list(drained) == ["gpu-a"]
    await keeper.ask(asked.DRAIN, ("gpu-a", False))
    drained = await keeper.ask(asked.DRAINED)
    assert list(drained) == []
    assert [entry.after for entry in await log(keeper, noun="backend")] == ['{"drained":true}', '{"drained":false}']


async def test_an_empty_ledger_has_empty_pages(keeper: Keeper) -> None:
    """Nothing was used: sums are zero, lists are empty, unknown users are unknown."""
    rows = await keeper.ask(USAGE, (UsageQuestion("day", 0, 5, "model", Pick(("a",))),))
    assert list(rows) == []
    assert (await keeper.ask(REQUESTS, (RequestsQuestion(0, 10**6),))).rows == []
    with pytest.raises(NotFound):
        await keeper.ask(asked.USER, ("usr-none",))
