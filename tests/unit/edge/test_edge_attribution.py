"""Under which app a process counts requests, and how often it asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.edge.attribution import AGAIN_US, DAY_US, MOST, Attribution
from gateway.leaderboard.attribution import OTHER
from gateway.leaderboard.question import Sighting
from gateway.types.errors import Unavailable


class Keeper:
    """Answers as it is told, when it is let."""

    def __init__(self, answer: Callable[[Sighting], bool]) -> None:
        self.answer = answer
        self.asked: list[Sighting] = []
        self.open = asyncio.Event()
        self.open.set()

    async def ask(self, _method: Any, arguments: Sequence[Any] = ()) -> Any:
        """Note the question and answer it."""
        self.asked.append(arguments[0])
        await self.open.wait()
        return self.answer(arguments[0])


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 20_779 * DAY_US

    def __call__(self) -> int:
        """Return microseconds since 1970."""
        return self.now


def attribution(keeper: Keeper, clock: Clock) -> Attribution:
    """Return what is tested, with a cap of two."""
    return Attribution(asyncio.get_running_loop(), keeper, clock, lambda: 2)


def url(number: int) -> bytes:
    """Return a caller's URL."""
    return b"https://app%d.example/" % number


async def settle() -> None:
    """Let answers come."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_good_app_is_asked_about_once() -> None:
    """The first request is counted under its name at once, all later ones by a look-up."""
    keeper, clock = Keeper(lambda _: True), Clock()
    apps = attribution(keeper, clock)
    headers = {b"x-title": b"One", b"x-openrouter-categories": b"game"}
    assert apps.app("key", url(1), headers) == "app1.example"
    assert apps.app("key", b"https://app1.example/other", {}) == "app1.example"
    await settle()
    for _ in range(3):
        assert apps.app("key", url(1), {}) == "app1.example"
    assert keeper.asked == [Sighting(20_779, "key", "app1.example", "One", ("game",), 2)]


async def test_beyond_the_cap_names_are_other_and_questions_rare() -> None:
    """A caller that invents names gets one through while the answer is out, and cannot make the keeper work."""
    allowed = {"app0.example", "app1.example"}
    keeper, clock = Keeper(lambda seen: seen.app in allowed), Clock()
    apps = attribution(keeper, clock)
    seen = []
    for number in range(50):
        seen.append(apps.app("key", url(number), {}))
        await settle()
    assert seen[:3] == ["app0.example", "app1.example", "app2.example"]
    assert set(seen[3:]) == {OTHER}
    assert len(keeper.asked) == 3
    assert apps.app("key", url(1), {}) == "app1.example"
    assert apps.app("fresh", url(2), {}) == "app2.example"
    clock.now += AGAIN_US
    allowed.add("app9.example")
    assert apps.app("key", url(9), {}) == OTHER
    await settle()
    assert apps.app("key", url(9), {}) == "app9.example"


async def test_a_burst_of_names_before_the_first_answer() -> None:
    """While one answer is out, other new names of the key wait under other."""
    keeper, clock = Keeper(lambda _: True), Clock()
    keeper.open.clear()
    apps = attribution(keeper, clock)
    assert [apps.app("key", url(number), {}) for number in (1, 2, 3, 1)] == [
        "app1.example",
        OTHER,
        OTHER,
        "app1.example",
    ]
    await settle()
    assert len(keeper.asked) == 1
    apps.close()
    await settle()


async def test_without_the_keeper_new_names_are_other() -> None:
    """A keeper that is away lets nothing through but what it had allowed."""

    def away(_: Sighting) -> bool:
        raise Unavailable("away")

    keeper, clock = Keeper(lambda _: True), Clock()
    apps = attribution(keeper, clock)
    apps.app("key", url(1), {})
    await settle()
    keeper.answer = away
    apps.app("key", url(2), {})
    await settle()
    assert [apps.app("key", url(number), {}) for number in (1, 2, 3)] == ["app1.example", OTHER, OTHER]


async def test_a_new_day_begins_anew_and_memory_is_bounded() -> None:
    """Caps are by UTC day; URLs that all mean one app do not pile up."""
    keeper, clock = Keeper(lambda seen: seen.app == "app1.example"), Clock()
    apps = attribution(keeper, clock)
    apps.app("key", url(1), {})
    apps.app("key", url(2), {})
    await settle()
    clock.now += DAY_US
    assert apps.app("key", url(3), {}) == "app3.example"
    await settle()
    for number in range(MOST + 10):
        assert apps.app("key", b"not a url %d" % number, {}) == ""
    assert len(apps._found) <= MOST


@pytest.mark.parametrize("referer", [b"", b"x", b"https://a@b/", b"\xff"])
async def test_what_is_no_url_is_no_app(referer: bytes) -> None:
    """Nothing is asked about what is not valid."""
    keeper = Keeper(lambda _: True)
    assert attribution(keeper, Clock()).app("key", referer, {}) == ""
    assert keeper.asked == []
