"""What the first visits of the console would wait for is read while somebody signs in."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import patch

from gateway.console import tallied
from gateway.console.beginning import questions, read_ahead
from gateway.console.measure import USAGE, UsageQuestion
from gateway.console.usage import Usage
from gateway.keeper.service import Keeper
from gateway.metering import settled
from tests.ui.house import House

PAGES = (
    "/console",
    "/console?span=24h",
    "/console?span=90d",
    "/console/activity",
    "/console/activity?by=key&span=90d",
    "/console/keys",
)


def test_it_is_what_pages_ask(house: House) -> None:
    """Each question about usage of the pages that are opened first is among those that are read ahead."""
    asked: list[UsageQuestion] = []
    ask = Keeper.ask

    async def noted(keeper: Keeper, method: Any, arguments: Any = ()) -> Any:
        if method is USAGE:
            asked.append(arguments[0])
        return await ask(keeper, method, arguments)

    hour = int(time.time()) // 3_600
    with patch.object(Keeper, "ask", noted), house.client("owner") as client:
        for path in PAGES:
            assert client.get(path).status_code == 200
    assert len(asked) >= 16
    known = {*questions(hour), *questions(int(time.time()) // 3_600)}
    assert [each for each in asked if each not in known] == []


def test_settled_days_are_read_once(house: House) -> None:
    """Whoever comes afterwards reads the days that still change."""
    database = house.stage.keeper._database
    assert database is not None
    usage, read = Usage(database), list[int]()
    points, window = tallied._points, tallied._window

    async def noted_points(bulk: Any, place: Any, first: int, last: int) -> Any:
        read.append(first)
        return await points(bulk, place, first, last)

    async def noted_window(bulk: Any, place: Any, first: int, last: int) -> Any:
        read.append(first)
        return await window(bulk, place, first, last)

    with patch.object(tallied, "_points", noted_points), patch.object(tallied, "_window", noted_window):
        house.do(read_ahead(usage))
        assert read
        read.clear()
        now = time.time()
        for question in questions(int(now) // 3_600):
            house.do(usage.sums(question))
    assert min(read) > settled.settled_day(now) - 1


def test_nothing_before_is_said_and_not_left_out(house: House) -> None:
    """Where there was nothing to compare with, a tile does not end in "vs" and no number."""
    with house.client("team_viewer") as client:
        page = client.get("/console?span=30d").text
    assert page.count("nothing 30 d before") == 3
    assert "vs 30 d before" not in page
