"""Offices that open when they are first needed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gateway.config.snapshot import ConfigSnapshot
from gateway.db.engine import Database
from gateway.db.office import Deferred, Duty, Office, Premises
from gateway.keeper import offices
from gateway.keeper.offices import OFFICES, Offices
from gateway.types.errors import BadRequest, Unavailable
from gateway.types.method import Method, method

DOUBLE: Method[int] = method("seldom.double", tuple[int], int)
HALVE: Method[int] = method("seldom.halve", tuple[int], int)
NAME = "tests.seldom_office"


class Seldom:
    """A module with an office, which counts how often it was opened and did its duty."""

    def __init__(self) -> None:
        self.opened = 0
        self.turns = asyncio.Event()
        module: Any = ModuleType(NAME)
        module.open_office = self.open_office
        sys.modules[NAME] = module

    def open_office(self, _premises: Premises) -> Office:
        """Return the office."""
        self.opened += 1

        async def double(number: int) -> int:
            return 2 * number

        async def turn() -> None:
            self.turns.set()

        return Office({DOUBLE: double}, (Duty("seldom", 0.001, turn),))


@pytest.fixture
def seldom() -> Iterator[Seldom]:
    """The module, where an import finds it."""
    yield Seldom()
    del sys.modules[NAME]


def premises(tmp_path: Path) -> Premises:
    """Return premises without a configuration."""
    return Premises(Database(f"sqlite+aiosqlite:///{tmp_path}/weir.db"), tmp_path, b"secret", lambda: None)


async def test_the_first_question_opens_an_office_and_begins_its_duties(seldom: Seldom, tmp_path: Path) -> None:
    """However many ask at once it is opened once; until then it costs nothing and does nothing."""
    keeper = Offices(premises(tmp_path), offices=(Deferred(NAME, (DOUBLE,)),))
    keeper.start()
    await asyncio.sleep(0.01)
    assert (seldom.opened, seldom.turns.is_set()) == (0, False)
    assert await asyncio.gather(*(keeper.ask(DOUBLE, (number,)) for number in range(3))) == [0, 2, 4]
    assert seldom.opened == 1
    await asyncio.wait_for(seldom.turns.wait(), 10)
    with pytest.raises(BadRequest):
        await keeper.ask(HALVE, (1,))
    await keeper.stop()


async def test_an_office_that_is_due_opens_unasked(
    seldom: Seldom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A duty that the configuration asks for is done without anybody asking for anything."""
    monkeypatch.setattr(offices, "LOOK_S", 0.005)
    wanted = False

    def due(_config: ConfigSnapshot | None) -> bool:
        return wanted

    keeper = Offices(premises(tmp_path), offices=(Deferred(NAME, (DOUBLE,), due),))
    keeper.start()
    await asyncio.sleep(0.05)
    assert seldom.opened == 0
    wanted = True
    await asyncio.wait_for(seldom.turns.wait(), 10)
    await keeper.stop()


async def test_a_declaration_that_is_not_true_is_a_defect(seldom: Seldom, tmp_path: Path) -> None:
    """What is declared and what is answered cannot drift apart unseen."""
    keeper = Offices(premises(tmp_path), offices=(Deferred(NAME, (DOUBLE, HALVE)),))
    with pytest.raises(RuntimeError, match="other methods"):
        await keeper.ask(DOUBLE, (1,))


async def test_every_deferred_office_answers_what_it_is_declared_with(tmp_path: Path) -> None:
    """The real ones open, and answer their methods and no others."""
    keeper = Offices(premises(tmp_path))
    for each in OFFICES:
        if isinstance(each, Deferred):
            await keeper.open(each)


async def test_a_turn_that_runs_is_not_cut_off_by_the_stop(tmp_path: Path) -> None:
    """A duty in the middle of its work ends it; one that waits for its next turn does not hold up the stop."""
    began, done = asyncio.Event(), asyncio.Event()

    async def turn() -> None:
        began.set()
        await asyncio.sleep(0.05)
        done.set()

    def office(_premises: Premises) -> Office:
        return Office({}, (Duty("runs", 0.001, turn), Duty("waits", 3_600.0, turn)))

    keeper = Offices(premises(tmp_path), offices=(office,))
    keeper.start()
    await began.wait()
    async with asyncio.timeout(20):
        await keeper.stop()
    assert done.is_set()


async def test_what_is_done_once_is_tried_until_it_is_done(tmp_path: Path) -> None:
    """A turn that fails comes again; the first that does not is the last."""
    turns = list[int]()
    other = asyncio.Event()

    async def once() -> None:
        turns.append(len(turns))
        if len(turns) == 1:
            raise Unavailable("the database is away")

    async def again() -> None:
        if len(turns) > 1:
            turns.append(-1)
        if turns.count(-1) > 5:
            other.set()

    def office(_premises: Premises) -> Office:
        return Office({}, (Duty("once", 0.001, once, once=True), Duty("again", 0.01, again)))

    keeper = Offices(premises(tmp_path), offices=(office,))
    keeper.start()
    await asyncio.wait_for(other.wait(), 10)
    await keeper.stop()
    assert [turn for turn in turns if turn >= 0] == [0, 1]
