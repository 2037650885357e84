"""Claims of idempotency keys, cached answers and stored content in the database, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import text

from gateway.config.snapshot import ConfigSnapshot, ContentSpec, RepetitionSpec, RetentionSpec
from gateway.db.engine import Database
from gateway.db.office import Premises
from gateway.db.unit_of_work import writing
from gateway.keeper.content import Archive
from gateway.keeper.living import LEASE_S
from gateway.keeper.repetition import Cache, Claims
from gateway.keeper.together import Together
from gateway.metering.journal import Journal
from gateway.types import ids
from gateway.types.content import ContentChoice
from gateway.types.errors import BadRequest, NotFound
from gateway.types.repetition import CacheHit, Claim, Standing

PEPPER = b"pepper of the tests"
ASKED, OTHER = b"f" * 32, b"g" * 32
NAME = b"n" * 32
_new = ids.RequestIds().new


class Host:
    """A host with a living worker, on a database."""

    def __init__(self, home: Path, database: Database, pepper: bytes = PEPPER, **spec: Any) -> None:
        home.mkdir(exist_ok=True)
        config = SimpleNamespace(
            repetition=replace(RepetitionSpec(), **spec), retention=RetentionSpec(), content=ContentSpec(store=True)
        )
        self.premises = Premises(database, home, pepper, lambda: cast("ConfigSnapshot", config))
        together = Together(database)
        self.claims, self.cache = Claims(self.premises, together), Cache(self.premises, together)
        self.archive = Archive(self.premises)
        self.journal = Journal.create(home / "journal", durability="process")

    async def claim(self, request_id: bytes, *, fingerprint: bytes = ASKED, name: bytes = NAME) -> Claim:
        """Claim for the usual key."""
        return await self.claims.claim("somekey1", name, fingerprint, request_id, self.journal.writer)

    async def answer(self, content: bytes | None = b"the answer", *, name: bytes = NAME) -> bytes:
        """Claim and keep an answer; return the id of the request."""
        request_id = _new()
        assert (await self.claim(request_id, name=name)).standing is Standing.TAKEN
        assert await self.claims.keep("somekey1", name, request_id, content)
        return request_id


@pytest.fixture
async def database(database_url: str) -> Any:
    """A migrated database, on each kind."""
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
async def host(database: Database, tmp_path: Path) -> Any:
    """A host on it."""
    host = Host(tmp_path / "here", database)
    yield host
    await host.journal.close()


async def count(database: Database, table: str) -> int:
    """Return how many rows a table has."""
    async with writing(database) as session:
        return int(await session.scalar(text(f"SELECT COUNT(*) FROM {table}")) or 0)


async def test_a_claim_is_taken_once_and_answered_ever_after(host: Host) -> None:
    """Of many at once one is to answer; after it everybody gets the answer, and other bytes get none."""
    requests = [_new() for _ in range(8)]
    found = await asyncio.gather(*[host.claim(each) for each in requests])
    (taker,) = [number for number, each in enumerate(found) if each.standing is Standing.TAKEN]
    assert {each.standing for each in found} == {Standing.TAKEN, Standing.RUNNING}
    assert (await host.claim(requests[taker])).standing is Standing.TAKEN, "asking again after a lost reply"
    assert (await host.claim(_new(), fingerprint=OTHER)).standing is Standing.OTHER
    assert not await host.claims.keep("somekey1", NAME, requests[taker - 1], b"not mine")
    assert await host.claims.keep("somekey1", NAME, requests[taker], b"the answer")
    assert not await host.claims.release("somekey1", NAME, requests[taker]), "what is kept is not let go"
    again = await host.claim(_new())
    assert again == Claim(Standing.ANSWERED, requests[taker], b"the answer")
    assert (await host.claim(_new(), fingerprint=OTHER)).standing is Standing.OTHER
    foreign = await host.claims.claim("otherkey", NAME, ASKED, _new(), host.journal.writer)
    assert foreign.standing is Standing.TAKEN


async def test_a_claim_that_is_let_go_is_free(host: Host) -> None:
    """Also for another request; who lost it can neither keep nor release."""
    first, second = _new(), _new()
    await host.claim(first)
    assert await host.claims.release("somekey1", NAME, first)
    assert (await host.claim(second, fingerprint=OTHER)).standing is Standing.TAKEN
    assert not await host.claims.release("somekey1", NAME, first)
    assert not await host.claims.keep("somekey1", NAME, first, b"late")
    assert (await host.claim(_new(), fingerprint=OTHER)).standing is Standing.RUNNING


async def test_the_claim_of_a_dead_process_is_free_at_once_on_its_host(host: Host, database: Database) -> None:
    """The lock on its journal tells; another host waits until nobody has renewed it for a while."""
    there = Host(host.premises.home.parent / "there", database)
    await host.claim(_new())
    await host.claims.renew()
    assert (await host.claim(_new())).standing is Standing.RUNNING
    assert (await there.claim(_new())).standing is Standing.RUNNING
    await host.journal.close()
    assert (await there.claim(_new())).standing is Standing.RUNNING, "its host may only be slow"
    long_ago = time.time_ns() // 1000 - int((LEASE_S + 1) * 1e6)
    async with writing(database) as session:
        await session.execute(text("UPDATE repetition SET renewed_us = :then"), {"then": long_ago})
    assert (await there.claim(_new())).standing is Standing.TAKEN
    await there.journal.close()
    assert (await there.claim(_new())).standing is Standing.TAKEN
    await there.claims.renew()
    assert await count(database, "repetition") == 0


async def test_answers_expire_and_are_deleted(host: Host, database: Database, tmp_path: Path) -> None:
    """After its lifetime an answer is gone for callers at once, and from the database with the next turn."""
    brief = Host(tmp_path / "brief", database, lifetime_s=0.0)
    await brief.answer()
    assert (await host.claim(_new(), fingerprint=OTHER)).standing is Standing.TAKEN, "no answer is in the way"
    await brief.answer(name=b"m" * 32)
    await brief.claims.expire()
    assert await count(database, "repetition") == 1, "what is being answered stays"
    await brief.journal.close()


async def test_what_is_kept_of_a_key_is_bounded(database: Database, tmp_path: Path) -> None:
    """Over the bound no more is promised, and the caller is told when the oldest goes; a large answer is not kept."""
    small = Host(tmp_path / "small", database, most_bytes=400)
    unkept = await small.answer(None)
    assert await small.claim(_new()) == Claim(Standing.UNKEPT, unkept)
    await small.answer(b"x" * 500, name=b"1" * 32)
    full = await small.claim(_new(), name=b"2" * 32)
    assert full.standing is Standing.FULL
    assert 86_000 < full.wait_s <= 86_400
    assert (await small.claim(_new(), name=b"1" * 32)).standing is Standing.ANSWERED
    await small.claims.expire()
    assert (await small.claim(_new(), name=b"2" * 32)).standing is Standing.FULL, "also after a new count"
    other = await small.claims.claim("otherkey", NAME, ASKED, _new(), small.journal.writer)
    assert other.standing is Standing.TAKEN
    await small.journal.close()


async def test_nothing_is_readable_in_the_database(host: Host, database: Database, tmp_path: Path) -> None:
    """Everything is sealed for its place; under another secret it counts as not kept."""
    words = b"the words of an answer"
    request_id = await host.answer(words)
    await host.cache.keep("somekey1", NAME, request_id, 60, words)
    await host.archive.store(request_id, "somekey1", "default", words)
    async with writing(database) as session:
        for table in ("repetition", "cached_answer", "generation_content"):
            (sealed,) = await session.scalars(text(f"SELECT content FROM {table}"))
            assert words not in bytes(sealed)
    stranger = Host(tmp_path / "stranger", database, b"another secret")
    assert (await stranger.claim(_new())).standing is Standing.UNKEPT
    assert await stranger.cache.find("somekey1", NAME) is None
    assert await stranger.archive.find(request_id) is None
    async with writing(database) as session:
        await session.execute(text("UPDATE generation_content SET request_id = :other"), {"other": b"o" * 16})
    assert await host.archive.find(b"o" * 16) is None, "a record opens in its own place only"
    await stranger.journal.close()


async def test_the_cache_is_bounded_and_forgets(database: Database, tmp_path: Path) -> None:
    """The oldest make room, a lifetime ends, one is cleared; hits are written down once."""
    host = Host(tmp_path / "here", database, cache_bytes=700)
    for number in range(5):
        assert await host.cache.keep("somekey1", bytes([number]) * 32, _new(), 60, b"x" * 100)
    kept = [await host.cache.find("somekey1", bytes([number]) * 32) is not None for number in range(5)]
    assert kept == [False, True, True, True, True]
    assert not await host.cache.keep("somekey1", NAME, _new(), 60, b"x" * 1000)
    assert await host.cache.find("otherkey", b"\4" * 32) is None
    assert await host.cache.clear("somekey1", b"\4" * 32)
    assert await host.cache.find("somekey1", b"\4" * 32) is None
    await host.cache.keep("somekey1", NAME, _new(), 0, b"brief")
    assert await host.cache.find("somekey1", NAME) is None
    before = await count(database, "cached_answer")
    await host.cache.expire()
    assert await count(database, "cached_answer") == before - 1
    hit = CacheHit(_new(), _new(), "somekey1", "default")
    assert [await host.cache.hits([hit]) for _ in range(2)] == [1, 0]
    assert await host.cache.hit(hit.request_id) == hit
    await host.journal.close()


async def test_content_is_chosen_and_let_go(host: Host, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest choice decides at the moment of storing; what is too old is deleted; wrong choices are refused."""
    request_id = _new()
    async with writing(database) as session:
        await session.execute(text("INSERT INTO team (slug, name, created_at) VALUES ('acme', 'Acme', 1)"))
    assert await host.archive.store(request_id, "k", "acme", b"{}")
    assert await host.archive.store(request_id, "k", "acme", b"{}"), "storing twice does no harm"
    assert await host.archive.choose(ContentChoice("acme", "", False)) == (ContentChoice("acme", "", False),)
    assert not await host.archive.store(_new(), "k", "acme", b"{}")
    with pytest.raises(NotFound):
        await host.archive.choose(ContentChoice("nobody", "", True))
    with pytest.raises(NotFound):
        await host.archive.choose(ContentChoice("acme", "unknown1", True))
    with pytest.raises(BadRequest):
        await host.archive.choose(ContentChoice("acme", "", True, 0))
    await host.archive.choose(ContentChoice("acme", "", True, 2))
    other = Archive(host.premises)
    assert await other.choices() == (ContentChoice("acme", "", True, 2),)
    assert await other.unchoose("acme", "") == ()
    later: Callable[[], int] = time.time_ns
    monkeypatch.setattr("gateway.keeper.content.time.time_ns", lambda: later() + 31 * 86_400 * 10**9)
    assert await host.archive.find(request_id) is None
    await host.archive.expire()
    assert await count(database, "generation_content") == 0
