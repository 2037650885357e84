"""Kept responses in the database: for their key alone, sealed, with a lifetime. On SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import text

from gateway.config.snapshot import ConfigSnapshot, ResponsesSpec
from gateway.db.engine import Database
from gateway.db.office import Premises
from gateway.db.unit_of_work import reading
from gateway.keeper import responses
from gateway.keeper.responses import Turns
from gateway.types import ids
from gateway.types.errors import BadRequest, Unavailable
from gateway.types.responses import MOST_BYTES, NewTurn, Turn

KEY = "somekey1"
_new = ids.RequestIds().new


@pytest.fixture
async def open_turns(database_url: str, tmp_path: Path) -> AsyncIterator[Callable[..., Turns]]:
    """Opens the office with a secret and a configuration."""
    database = Database(database_url)

    def make(pepper: bytes = b"pepper", **spec: Any) -> Turns:
        config = cast("ConfigSnapshot", SimpleNamespace(responses=replace(ResponsesSpec(), **spec)))
        return Turns(Premises(database, tmp_path, pepper, lambda: config))

    make.database = database  # type: ignore[attr-defined]  # for what looks at the rows
    yield make
    await database.close()


async def told(turns: Turns, words: str, previous: bytes | None = None, *, key_id: str = KEY) -> bytes:
    """Keep a turn and return its request."""
    request_id = _new()
    assert await turns.keep(NewTurn(request_id, key_id, previous, turn(words)))
    return request_id


def turn(words: str) -> Turn:
    """Return a turn."""
    return Turn(words.encode(), words.upper().encode())


async def test_a_conversation_is_found_whole_and_in_order(open_turns: Callable[..., Turns]) -> None:
    """Every turn from the first to the one named; branches go their own ways; keeping again changes nothing."""
    turns = open_turns()
    first = await told(turns, "one")
    second = await told(turns, "two", first)
    third = await told(turns, "three", second)
    branch = await told(turns, "branch", first)
    assert await turns.find(KEY, second) == turn("two")
    assert await turns.conversation(KEY, third) == [turn("one"), turn("two"), turn("three")]
    assert await turns.conversation(KEY, branch) == [turn("one"), turn("branch")]
    assert await turns.keep(NewTurn(second, KEY, None, turn("other")))
    assert await turns.find(KEY, second) == turn("two")
    assert await turns.forget(KEY, second)
    assert not await turns.forget(KEY, second)
    assert await turns.conversation(KEY, third) == []
    assert await turns.conversation(KEY, second) is None
    assert await turns.conversation(KEY, branch) == [turn("one"), turn("branch")]


async def test_a_turn_is_for_its_key_alone(open_turns: Callable[..., Turns]) -> None:
    """Another key finds nothing, deletes nothing, and cannot go on from it, not even by naming it as its past."""
    turns = open_turns()
    first = await told(turns, "one")
    assert await turns.find("otherkey", first) is None
    assert await turns.conversation("otherkey", first) is None
    assert not await turns.forget("otherkey", first)
    stolen = await told(turns, "two", first, key_id="otherkey")
    assert await turns.conversation("otherkey", stolen) == []
    assert await turns.find(KEY, first) == turn("one")


async def test_nothing_can_be_read_without_the_secret(open_turns: Callable[..., Turns]) -> None:
    """The database holds no word of it, and under another secret there is nothing."""
    first = await told(open_turns(), "the words of a caller")
    async with reading(open_turns.database) as session:  # type: ignore[attr-defined]  # see the fixture
        stored = await session.scalar(text("SELECT content FROM response"))
    assert b"words" not in stored
    assert b"WORDS" not in stored
    other = open_turns(b"another secret")
    assert await other.find(KEY, first) is None
    assert await other.conversation(KEY, first) == []


async def test_turns_end_with_their_lifetime(open_turns: Callable[..., Turns], monkeypatch: pytest.MonkeyPatch) -> None:
    """From then on they are not there, and soon their rows are gone."""
    turns = open_turns(lifetime_s=600)
    first = await told(turns, "one")
    assert await turns.find(KEY, first) is not None
    later = responses._now_us() + 601 * 1_000_000
    monkeypatch.setattr(responses, "_now_us", lambda: later)
    assert await turns.find(KEY, first) is None
    assert await turns.conversation(KEY, first) is None
    assert not await turns.forget(KEY, first)
    kept = await told(open_turns(), "two")
    await turns.expire()
    async with reading(open_turns.database) as session:  # type: ignore[attr-defined]  # see the fixture
        assert list(await session.scalars(text("SELECT request_id FROM response"))) == [kept]


async def test_the_oldest_make_room(open_turns: Callable[..., Turns], monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that has too much loses its oldest turns; another key loses nothing."""
    monkeypatch.setattr(responses, "SLICE", 2)
    turns = open_turns(most_bytes=2_500)
    many = [await told(turns, "x" * 400) for _ in range(6)]
    other = await told(turns, "y" * 400, key_id="otherkey")
    await turns.expire()
    left = [bool(await turns.find(KEY, each)) for each in many]
    assert left == [False] * 4 + [True] * 2
    assert await turns.find("otherkey", other) is not None


async def test_what_is_not_to_be_kept_is_not(open_turns: Callable[..., Turns]) -> None:
    """Neither when the store is off, nor what is larger than can be given back."""
    request_id = _new()
    assert not await open_turns(store=False).keep(NewTurn(request_id, KEY, None, turn("one")))
    large = Turn(b"x", b"y" * MOST_BYTES)
    assert not await open_turns().keep(NewTurn(request_id, KEY, None, large))
    assert await open_turns().find(KEY, request_id) is None


async def test_a_conversation_that_is_too_long_is_refused(
    open_turns: Callable[..., Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the number of turns, or of bytes, it cannot be gone on with, and the caller is told what to do."""
    turns = open_turns()
    last: bytes | None = None
    for number in range(4):
        last = await told(turns, f"turn {number}", last)
    assert last is not None
    for name in ("MOST_TURNS", "MOST_BYTES"):
        with monkeypatch.context() as patched:
            patched.setattr(responses, name, 3)
            with pytest.raises(BadRequest, match="too long") as caught:
                await turns.conversation(KEY, last)
            assert caught.value.param == "previous_response_id"
    assert len(await turns.conversation(KEY, last) or ()) == 4


async def test_many_at_once_are_written_together(open_turns: Callable[..., Turns]) -> None:
    """Each caller is told when its own turn is on disk; none gets lost between two batches."""
    turns = open_turns()
    made = await asyncio.gather(*(told(turns, f"turn {number}") for number in range(600)))
    found = await asyncio.gather(*(turns.find(KEY, each) for each in made[::50]))
    assert [each for each in found if each is None] == []


async def test_a_database_that_is_away_is_told_to_everyone_who_waits(
    open_turns: Callable[..., Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No turn that could not be written counts as kept; the next one is tried anew."""
    turns = open_turns()

    async def fail(_turns: Turns, _rows: Any) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(Turns, "_insert", fail)
        outcomes = await asyncio.gather(*(told(turns, "x") for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in outcomes] == [Unavailable] * 3
    assert await turns.find(KEY, await told(turns, "x")) is not None
