"""Remembered days: only whole blocks that are as they were when they were read."""

from __future__ import annotations

from itertools import chain

import pytest

from gateway.leaderboard import past as past_module
from gateway.leaderboard.past import LIFETIME_S, Past, Point, Stretch, Version, runs_of, stretch_of
from gateway.metering.places import BLOCK_DAYS

PLACE = ("", "model", ("tokens",))


def block_of(number: int, value: int = 1, names: int = 2) -> list[Point]:
    """Return the points of a block."""
    labels = [f"m{each}" for each in range(names)]
    return [(number * BLOCK_DAYS + day, labels, [[value] * names]) for day in range(BLOCK_DAYS)]


class Clock:
    """A clock that is set by hand."""

    now = 1_000.0

    def __call__(self) -> float:
        """Return what it was set to."""
        return self.now


def test_blocks_that_are_as_they_were_are_found() -> None:
    """A block whose totals changed, or that was never read, is not among them; the others are, to the value."""
    past = Past(Clock())
    versions: dict[int, Version] = {3: (2, 32), 4: (2, 64)}
    assert past.found(PLACE, versions) == {}
    kept = past.keep(PLACE, versions, [*block_of(3), *block_of(4, 2)])
    assert past.found(PLACE, versions) == kept
    changed = versions | {4: (2, 65), 5: (1, 1)}
    assert past.found(PLACE, changed) == {3: kept[3]}
    assert kept[3] == Stretch(3 * BLOCK_DAYS, BLOCK_DAYS, [dict.fromkeys(("m0", "m1"), (1,) * BLOCK_DAYS)])
    assert past.found(("team", "model", ("tokens",)), versions) == {}
    assert past.keep(PLACE, {4: (2, 65)}, block_of(4, 7))[4].columns[0]["m1"] == (7,) * BLOCK_DAYS
    assert past.found(PLACE, changed).keys() == {3, 4}


def test_nothing_is_believed_for_ever() -> None:
    """After its lifetime a block is read again, whatever its totals are, but not all blocks at the same visit."""
    clock = Clock()
    past = Past(clock)
    versions: dict[int, Version] = dict.fromkeys(range(8), (2, 32))
    past.keep(PLACE, versions, chain(*map(block_of, versions)))
    clock.now += LIFETIME_S / 2
    assert past.found(PLACE, versions).keys() == versions.keys()
    gone = []
    for _ in range(100):
        clock.now += LIFETIME_S / 200
        gone.append(8 - len(past.found(PLACE, versions)))
    assert gone == sorted(gone)
    assert {*range(8)} <= {*gone}
    clock.now += 1
    assert past.found(PLACE, versions) == {}


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for longest ago is forgotten first, and boards of too many names are not kept at all."""
    monkeypatch.setattr(past_module, "MOST_VALUES", 5 * 2 * BLOCK_DAYS)
    past = Past(Clock())
    places = [(team, "model", ("tokens",)) for team in "abc"]
    for place in places:
        past.keep(place, {1: (2, 1), 2: (2, 1)}, chain(block_of(1), block_of(2)))
        past.keep(place, {2: (2, 2)}, block_of(2))
    assert [len(past.found(place, {1: (2, 1), 2: (2, 2)})) for place in places] == [0, 2, 2]
    assert Past.fits({1: (5, 9)}, ("tokens",))
    assert not Past.fits({1: (5, 9), 2: (6, 9)}, ("tokens",))
    assert not Past.fits({1: (6, 9)}, ("tokens", "requests"))


def test_neighbours_are_read_together() -> None:
    """Runs of neighbouring blocks are one query each."""
    assert runs_of([]) == []
    assert runs_of([7, 3, 4, 5, 9]) == [(3, 5), (7, 7), (9, 9)]


def test_a_stretch_has_a_value_for_everybody_on_each_day() -> None:
    """Names come and go and days may be missing: where there is nothing, there is a zero."""
    points: list[Point] = [(5, ("a", "b"), [[1, 2], [10, 20]]), (7, ("b", "c"), [[3, 4], [30, 40]])]
    made = stretch_of(4, 4, points, 2)
    assert made.columns == [
        {"a": (0, 1, 0, 0), "b": (0, 2, 0, 3), "c": (0, 0, 0, 4)},
        {"a": (0, 10, 0, 0), "b": (0, 20, 0, 30), "c": (0, 0, 0, 40)},
    ]
    assert stretch_of(4, 4, [], 2) == Stretch(4, 4, [{}, {}])
    assert stretch_of(5, 1, points[:1], 2).columns == [{"a": (1,), "b": (2,)}, {"a": (10,), "b": (20,)}]


def test_what_was_worked_out_goes_with_its_block() -> None:
    """A block that changed is a new one, with nothing worked out from it yet."""
    past = Past(Clock())
    past.keep(PLACE, {3: (2, 32)}, block_of(3))[3].worked["sum"] = 32
    assert past.found(PLACE, {3: (2, 32)})[3].worked == {"sum": 32}
    assert past.keep(PLACE, {3: (2, 64)}, block_of(3, 2))[3].worked == {}
