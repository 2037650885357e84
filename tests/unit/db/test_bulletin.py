"""Those who look for changes share one reading, and never miss a change of their own process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from gateway.db import bulletin
from gateway.db.bulletin import Bulletin
from gateway.types.errors import Unavailable


class Numbers:
    """A table of numbers that counts how often it is read; a reading waits until it is let go."""

    def __init__(self) -> None:
        self.now = {"keys": 1}
        self.readings = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def read(self) -> Mapping[str, int]:
        """Return what was true when the reading began."""
        self.readings += 1
        seen = dict(self.now)
        await self.go_on.wait()
        return seen


async def test_many_who_look_at_once_share_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask within the time a reading is good for, the table is read once."""
    monkeypatch.setattr(bulletin, "FRESH_S", 3600.0)
    table = Numbers()
    board = Bulletin(table.read)
    assert await asyncio.gather(*(board.latest("keys") for _ in range(50))) == [1] * 50
    assert await board.latest("guardrails") == 0, "a topic without a change"
    assert table.readings == 1


async def test_a_change_of_this_process_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before the change is not used after it."""
    monkeypatch.setattr(bulletin, "FRESH_S", 3600.0)
    table = Numbers()
    board = Bulletin(table.read)
    assert await board.latest("keys") == 1
    table.now["keys"] = 2
    assert await board.latest("keys") == 1, "another host made it: seen when the reading is old"
    board.outdate()
    assert await board.latest("keys") == 2


async def test_a_reading_that_a_change_overtook_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading that began before a change of this process ends with the number after it."""
    monkeypatch.setattr(bulletin, "FRESH_S", 3600.0)
    table = Numbers()
    table.go_on.clear()
    board = Bulletin(table.read)
    asked = asyncio.create_task(board.latest("keys"))
    while table.readings == 0:
        await asyncio.sleep(0)
    table.now["keys"] = 2
    board.outdate()
    table.go_on.set()
    assert await asked == 2
    assert table.readings == 2


async def test_an_old_reading_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of other hosts are seen once the last reading is old."""
    monkeypatch.setattr(bulletin, "FRESH_S", 0.0)
    table = Numbers()
    board = Bulletin(table.read)
    assert await board.latest("keys") == 1
    table.now["keys"] = 7
    assert await board.latest("keys") == 7


async def test_who_makes_all_changes_reads_only_after_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody else writes, a reading is good for long, and a change of this process ends it."""
    monkeypatch.setattr(bulletin, "FRESH_S", 0.0)
    monkeypatch.setattr(bulletin, "QUIET_S", 3600.0)
    table = Numbers()
    board = Bulletin(table.read, alone=True)
    assert [await board.latest("keys") for _ in range(3)] == [1, 1, 1]
    assert table.readings == 1
    table.now["keys"] = 2
    board.outdate()
    assert [await board.latest("keys") for _ in range(3)] == [2, 2, 2]
    assert table.readings == 2


async def test_a_commit_that_nobody_saw_end_is_seen_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that was cut off may have been written after its connection was given back: no reading is for ever."""
    monkeypatch.setattr(bulletin, "QUIET_S", 0.0)
    table = Numbers()
    board = Bulletin(table.read, alone=True)
    assert await board.latest("keys") == 1
    table.now["keys"] = 2
    assert await board.latest("keys") == 2


async def test_a_busy_writer_keeps_nobody_waiting() -> None:
    """Changes that end during every reading do not make it begin anew for ever."""
    table = Numbers()

    async def overtaken() -> Mapping[str, int]:
        seen = await table.read()
        board.outdate()
        return seen

    board = Bulletin(overtaken, alone=True)
    assert await asyncio.wait_for(board.latest("keys"), 20) == 1
    assert table.readings == 2


async def test_a_failed_reading_reaches_who_asked_and_the_next_one_reads_again() -> None:
    """An error is nobody's answer for longer than the one who got it."""
    table = Numbers()

    async def broken() -> Mapping[str, int]:
        if table.readings == 0:
            table.readings += 1
            raise Unavailable("the database cannot be used now")
        return await table.read()

    board = Bulletin(broken)
    with pytest.raises(Unavailable):
        await board.latest("keys")
    assert await board.latest("keys") == 1
