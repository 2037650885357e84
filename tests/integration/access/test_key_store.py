"""Teams and keys in a real database."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, text

from gateway.access.keys import digest
from gateway.access.store import AccessStore
from gateway.db.engine import Database
from gateway.db.migrations import downgrade, migrate
from gateway.db.tables.access import KeyRow, TeamRow
from gateway.db.unit_of_work import writing
from gateway.types.errors import BadRequest, NotFound
from gateway.types.keys import KeyLimits, KeyPatch, NewKey

PEPPER = b"pepper of the tests"
START = 1_800_000_000_000_000


class Clock:
    """A wall clock that stands still until it is moved."""

    now = START

    def __call__(self) -> int:
        """Return microseconds since 1970."""
        return self.now


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A migrated database."""
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
def clock() -> Clock:
    """The store's clock."""
    return Clock()


@pytest.fixture
def store(database: Database, clock: Clock) -> AccessStore:
    """A store over the database."""
    return AccessStore(database, PEPPER, now_us=clock)


async def test_the_default_team_is_there_from_the_start(store: AccessStore) -> None:
    """A fresh database can make keys at once."""
    assert [team.slug for team in await store.teams()] == ["default"]
    assert (await store.create_key(NewKey(name="first", team="default"))).record.team == "default"


async def test_teams_are_unique_and_listed_by_slug(store: AccessStore) -> None:
    """A second team of one slug is refused."""
    await store.create_team("zeta", "Z")
    made = await store.create_team("alpha", " A ")
    assert (made.slug, made.name, made.created_at) == ("alpha", "A", START)
    assert [team.slug for team in await store.teams()] == ["alpha", "default", "zeta"]
    with pytest.raises(BadRequest, match="already"):
        await store.create_team("zeta", "again")


async def test_a_key_comes_back_as_it_was_made(store: AccessStore) -> None:
    """Everything but the secret is kept; of the secret only the digest is."""
    issued = await store.create_key(
        NewKey(
            name="all",
            team="default",
            models=("m/one", "alias"),
            limits=KeyLimits(rpm=1, tpm=2, concurrent=3),
            expires_at=START + 1,
        )
    )
    assert re.fullmatch(r"sk-weir-[a-z0-9]{8}-[0-9a-f]{64}", issued.key)
    record = await store.key(issued.record.key_id)
    assert record == issued.record
    assert record.digest == digest(PEPPER, issued.key.encode())
    assert (record.models, record.limits) == (("m/one", "alias"), KeyLimits(rpm=1, tpm=2, concurrent=3))
    assert (record.expires_at, record.created_at, record.last_used_at) == (START + 1, START, None)


async def test_the_secret_is_nowhere_in_the_database(store: AccessStore, tmp_path: Path) -> None:
    """No file of the database holds the text of a key, made or chosen."""
    made = await store.create_key(NewKey(name="made", team="default"))
    chosen = await store.create_key(NewKey(name="chosen", team="default", secret="correct horse battery staple"))
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert made.key[17:].encode() not in content
        assert chosen.key.encode() not in content


async def test_a_key_needs_a_team_that_exists(store: AccessStore) -> None:
    """A key of an unknown team is refused; so is listing one."""
    with pytest.raises(BadRequest, match="no team"):
        await store.create_key(NewKey(name="k", team="nobody"))
    with pytest.raises(NotFound):
        await store.keys("nobody")


async def test_an_id_that_is_taken_is_drawn_again(database: Database) -> None:
    """Two keys never share a public id, whatever chance says."""
    drawn = iter(["aaaaaaaa", "aaaaaaaa", "aaaaaaaa", "bbbbbbbb"])
    store = AccessStore(database, PEPPER, make_id=lambda: next(drawn))
    first = await store.create_key(NewKey(name="1", team="default"))
    second = await store.create_key(NewKey(name="2", team="default"))
    assert (first.record.key_id, second.record.key_id) == ("aaaaaaaa", "bbbbbbbb")


async def test_a_chosen_key_is_taken_once(store: AccessStore) -> None:
    """The text is the key; making it again is refused without repeating it."""
    text = "the-demo-key-of-this-house"
    issued = await store.create_key(NewKey(name="demo", team="default", secret=text))
    assert issued.key == text
    with pytest.raises(BadRequest, match="exists already") as caught:
        await store.create_key(NewKey(name="demo", team="default", secret=text))
    assert text not in str(caught.value)


async def test_keys_are_listed_newest_first_by_team_and_without_revoked_ones(store: AccessStore, clock: Clock) -> None:
    """Revoked keys stay known one by one, but no list shows them, except the one for processes."""
    await store.create_team("other", "Other")
    ids = []
    for team in ("default", "other", "default"):
        clock.now += 1
        ids.append((await store.create_key(NewKey(name="k", team=team))).record.key_id)
    assert [key.key_id for key in await store.keys()] == ids[::-1]
    assert [key.key_id for key in await store.keys("default")] == [ids[2], ids[0]]
    revoked = await store.revoke_key(ids[2])
    assert revoked.revoked_at == clock.now
    clock.now += 1
    assert await store.revoke_key(ids[2]) == revoked
    assert [key.key_id for key in await store.keys("default")] == [ids[0]]
    assert await store.key(ids[2]) == revoked
    assert {key.key_id for key in await store.all_keys()} == set(ids)


async def test_a_patch_changes_what_it_names_and_nothing_else(store: AccessStore, clock: Clock) -> None:
    """Unset stays; None clears where None means something."""
    before = (
        await store.create_key(
            NewKey(name="k", team="default", models=("m",), limits=KeyLimits(rpm=1), expires_at=START + 9)
        )
    ).record
    assert await store.update_key(before.key_id, KeyPatch()) == before
    assert before.updated_at is None
    clock.now += 7
    changed = await store.update_key(before.key_id, KeyPatch(name="new", disabled=True))
    assert changed.updated_at == clock.now
    assert (changed.name, changed.disabled) == ("new", True)
    assert (changed.models, changed.limits, changed.expires_at) == (("m",), KeyLimits(rpm=1), START + 9)
    cleared = await store.update_key(before.key_id, KeyPatch(models=None, limits=KeyLimits(), expires_at=None))
    assert (cleared.models, cleared.limits, cleared.expires_at) == (None, KeyLimits(), None)
    assert cleared.disabled
    assert await store.key(before.key_id) == cleared


async def test_a_refused_patch_changes_nothing(store: AccessStore) -> None:
    """One bad field and none of the change happens."""
    before = (await store.create_key(NewKey(name="k", team="default"))).record
    with pytest.raises(BadRequest):
        await store.update_key(before.key_id, KeyPatch(name="new", limits=KeyLimits(rpm=0)))
    assert await store.key(before.key_id) == before


async def test_rotation_keeps_the_id_and_the_old_secret_for_the_overlap(store: AccessStore, clock: Clock) -> None:
    """Without an overlap the old secret is forgotten at once; after two rotations only the last two are known."""
    first = await store.create_key(NewKey(name="k", team="default"))
    clock.now += 10
    second = await store.rotate_key(first.record.key_id, 30)
    assert second.record.key_id == first.record.key_id
    assert second.key != first.key
    assert second.record.previous_digest == first.record.digest
    assert second.record.previous_until == clock.now + 30_000_000
    assert second.record.updated_at == clock.now
    third = await store.rotate_key(first.record.key_id, 0)
    assert (third.record.previous_digest, third.record.previous_until) == (None, None)
    assert await store.key(first.record.key_id) == third.record


async def test_a_revoked_key_cannot_be_changed(store: AccessStore) -> None:
    """Revoked is for good."""
    key_id = (await store.create_key(NewKey(name="k", team="default"))).record.key_id
    await store.revoke_key(key_id)
    with pytest.raises(BadRequest, match="for good"):
        await store.update_key(key_id, KeyPatch(disabled=False))
    with pytest.raises(BadRequest, match="for good"):
        await store.rotate_key(key_id, 0)


async def test_an_unknown_key_is_not_found(store: AccessStore) -> None:
    """Every way to name a key says so alike."""
    for call in (
        store.key("zzzzzzzz"),
        store.update_key("zzzzzzzz", KeyPatch()),
        store.rotate_key("zzzzzzzz", 0),
        store.revoke_key("zzzzzzzz"),
    ):
        with pytest.raises(NotFound):
            await call


async def test_the_last_use_only_moves_forward(store: AccessStore) -> None:
    """Batches that arrive late or twice do not turn it back; ids of no key are ignored."""
    key_id = (await store.create_key(NewKey(name="k", team="default"))).record.key_id
    for moment, expected in ((5, 5), (9, 9), (7, 9)):
        await store.mark_used({key_id: moment, "zzzzzzzz": 1})
        assert (await store.key(key_id)).last_used_at == expected


async def test_keys_made_at_the_same_time_do_not_disturb_each_other(store: AccessStore) -> None:
    """Concurrent calls queue for the one writer, none is lost."""
    made = await asyncio.gather(*(store.create_key(NewKey(name=str(n), team="default")) for n in range(40)))
    assert len({issued.record.key_id for issued in made}) == 40
    assert len(await store.keys()) == 40


async def test_the_migration_makes_what_the_tables_say(database: Database) -> None:
    """The schema after the migrations is the one the code reads and writes."""
    metadata = MetaData()
    names = {str(model.__tablename__) for model in (TeamRow, KeyRow)}
    for model in (TeamRow, KeyRow):
        model.metadata.tables[str(model.__tablename__)].to_metadata(metadata)

    def compare(sync: object) -> list[object]:
        context = MigrationContext.configure(
            sync,  # type: ignore[arg-type]  # alembic's own Connection type
            opts={"include_object": lambda found, name, kind, *_: kind != "table" or name in names},
        )
        return list(compare_metadata(context, metadata))

    async with database.writer.begin() as connection:
        assert await connection.run_sync(compare) == []


async def test_the_migration_can_be_taken_back_and_done_again(tmp_path: Path) -> None:
    """Down to the ledger's revision and up again, with data in the tables."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'other.db'}"
    await migrate(url)
    database = Database(url)
    await AccessStore(database, PEPPER).create_key(NewKey(name="k", team="default"))
    await database.close()
    await downgrade(url, "0001_ledger")
    await migrate(url)
    database = Database(url)
    store = AccessStore(database, PEPPER)
    assert [team.slug for team in await store.teams()] == ["default"]
    assert list(await store.keys()) == []
    async with writing(database) as session:
        assert (await session.execute(text("SELECT count(*) FROM ledger"))).scalar() == 0
    await database.close()
