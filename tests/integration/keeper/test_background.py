"""Runs in the background as the keeper keeps them: begun, told of, finished, cancelled, lost. On both databases."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from sqlalchemy import text

from gateway.config.snapshot import ConfigSnapshot, ResponsesSpec
from gateway.db.engine import Database
from gateway.db.office import Premises
from gateway.db.unit_of_work import reading, writing
from gateway.keeper.background import Runs
from gateway.keeper.living import JOURNAL, LEASE_S
from gateway.keeper.responses import Turns
from gateway.keeper.stored_responses import Shelf
from gateway.metering.journal import Journal
from gateway.types import ids
from gateway.types.background import Progress, Reading
from gateway.types.responses import NewTurn, Turn

KEY = "somekey1"
_new = ids.RequestIds().new


@dataclass
class Desk:
    """A keeper's office on a host, and the journal of a process that lives there."""

    runs: Runs
    turns: Turns
    shelf: Shelf
    database: Database
    writer: str

    async def begun(self, *, writer: str = "", streamed: bool = True) -> bytes:
        """Begin a run of the living process, or of ``writer``."""
        request_id = _new()
        assert await self.runs.begin(turn(request_id, "queued"), writer or self.writer, streamed, False)
        return request_id

    async def status(self, request_id: bytes, key_id: str = KEY) -> str | None:
        """Return the state of a response."""
        found = await self.shelf.find(key_id, request_id)
        return None if found is None else str(msgspec.json.decode(found.response)["status"])


def turn(request_id: bytes, status: str) -> NewTurn:
    """Return a turn."""
    response = {"background": True, "status": status, "error": None}
    return NewTurn(request_id, KEY, None, Turn(b"[]", msgspec.json.encode(response)))


@pytest.fixture
async def desk(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    """An office on a host with one living process."""
    database = Database(database_url)
    config = cast("ConfigSnapshot", SimpleNamespace(responses=ResponsesSpec()))
    premises = Premises(database, tmp_path, b"pepper", lambda: config)
    journal = Journal.create(tmp_path / JOURNAL)
    turns = Turns(premises)
    yield Desk(Runs(premises, turns), turns, Shelf(premises, turns), database, journal.writer)
    await journal.close()
    await database.close()


def pieces(first: int, last: int) -> tuple[tuple[int, bytes], ...]:
    """Return events."""
    return tuple((number, b"event %d" % number) for number in range(first, last + 1))


async def test_a_run_from_its_beginning_to_its_end(desk: Desk) -> None:
    """It is queued, in progress, finished; its events are read from anywhere, and no word of it is readable on disk."""
    run = await desk.begun()
    assert await desk.runs.begin(turn(run, "queued"), desk.writer, True, False), "asked again"
    assert await desk.status(run) == "queued"
    assert await desk.runs.read(KEY, run, -1) == Reading((), True, True)
    assert await desk.runs.progress([Progress(run, KEY, True, pieces(0, 2))]) == []
    assert await desk.status(run) == "in_progress"
    assert await desk.runs.progress([Progress(run, KEY, False, pieces(0, 4))]) == [], "said again, with more"
    assert await desk.runs.progress([Progress(run, KEY, False, pieces(5, 5))]) == []
    assert await desk.runs.read(KEY, run, 1) == Reading(pieces(2, 5), True, True)
    assert await desk.runs.finish(turn(run, "completed"), list(pieces(6, 7)))
    assert await desk.runs.finish(turn(run, "completed"), list(pieces(6, 7))), "asked again"
    assert await desk.status(run) == "completed"
    assert await desk.runs.read(KEY, run, -1) == Reading(pieces(0, 7), False, True)
    assert await desk.runs.read(KEY, run, 7) == Reading((), False, True)
    async with reading(desk.database) as session:
        stored = list(await session.scalars(text("SELECT content FROM response_event")))
    assert stored
    assert not any(b"event" in bytes(each) for each in stored)


async def test_a_run_is_for_its_key_alone(desk: Desk) -> None:
    """Another key sees nothing of it and cannot end it."""
    run = await desk.begun()
    await desk.runs.progress([Progress(run, KEY, True, pieces(0, 2))])
    assert await desk.status(run, "otherkey") is None
    assert await desk.runs.read("otherkey", run, -1) is None
    assert not await desk.runs.cancel("otherkey", run)
    assert not await desk.turns.forget("otherkey", run)
    assert not await desk.runs.finish(NewTurn(run, "otherkey", None, Turn(b"[]", b"{}")), [])
    assert await desk.status(run) is not None


@pytest.mark.parametrize("ended", ["cancel", "forget"])
async def test_its_process_learns_that_a_run_is_to_end(desk: Desk, ended: str) -> None:
    """Cancelled or deleted: the next word of it is answered with that."""
    run, other = await desk.begun(), await desk.begun()
    assert await (desk.runs.cancel if ended == "cancel" else desk.turns.forget)(KEY, run)
    said = [Progress(run, KEY, False), Progress(other, KEY, False)]
    assert await desk.runs.progress(said) == [run]
    kept = await desk.runs.finish(turn(run, "cancelled"), [])
    assert (kept, await desk.status(run)) == ((True, "cancelled") if ended == "cancel" else (False, None))
    assert await desk.status(other) == "queued"


async def test_a_run_whose_process_died_is_failed(desk: Desk) -> None:
    """Whoever looks finds it failed, with the events that there were; one that lives is left alone."""
    lost, again, lives = await desk.begun(writer="gone"), await desk.begun(writer="gone"), await desk.begun()
    await desk.runs.progress([Progress(lost, KEY, True, pieces(0, 2))])
    assert await desk.status(lost) == "failed"
    assert await desk.runs.read(KEY, lost, -1) == Reading(pieces(0, 2), False, True)
    await desk.runs.tend()
    async with reading(desk.database) as session:
        assert list(await session.scalars(text("SELECT request_id FROM background"))) == [lives]
    assert (await desk.status(again), await desk.status(lives)) == ("failed", "queued")


async def test_another_host_is_believed_for_a_while(desk: Desk) -> None:
    """What another host keeps renewing lives; what it has not renewed for ``LEASE_S`` does not."""
    run = await desk.begun()
    renewed = time.time_ns() // 1000
    for age, expected in ((0.0, "queued"), (LEASE_S + 1, "failed")):
        async with writing(desk.database) as session:
            statement = text("UPDATE background SET owner = 'elsewhere:x', renewed_us = :at")
            await session.execute(statement, {"at": renewed - int(age * 1e6)})
        assert await desk.status(run) == expected


async def test_events_go_before_their_response(desk: Desk) -> None:
    """After their time they are deleted, and the response stays."""
    run = await desk.begun()
    await desk.runs.finish(turn(run, "completed"), list(pieces(0, 3)))
    async with writing(desk.database) as session:
        await session.execute(text("UPDATE response_event SET expires_us = 1"))
    await desk.turns.expire()
    assert await desk.runs.read(KEY, run, -1) == Reading((), False, False)
    assert await desk.status(run) == "completed"
