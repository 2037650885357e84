"""Dates at the edge of the calendar, wherever a caller may write one: refused or taken, and never an error of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.harness import Backend, Stage, configuration, staged

EDGES = ("0001-01-01", "0001-12-31", "1969-12-31", "9999-01-01", "9999-12-01", "9999-12-31")
WITHIN = ("1970-01-01", "9998-12-31")
READERS: tuple[tuple[str, tuple[str, ...], dict[str, str]], ...] = (
    ("/api/v1/rankings", ("from", "to"), {}),
    ("/api/v1/rankings", ("from", "to"), {"granularity": "hour"}),
    ("/api/v1/rankings/records", ("from", "to"), {}),
    ("/api/v1/usage", ("from", "to"), {}),
    ("/api/v1/usage", ("from", "to"), {"granularity": "hour"}),
    ("/api/v1/exports/focus", ("from", "to"), {}),
    ("/api/v1/exports/usage", ("from", "to"), {}),
    ("/api/v1/exports/statement", ("from", "to"), {"team": "default"}),
    ("/api/v1/activity", ("date",), {}),
)
"""What reads days: path, names of its days, and what else it is asked."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: Any) -> AsyncIterator[Stage]:
    """A gateway whose backend nobody asks."""
    home: Path = tmp_path_factory.mktemp("edges")
    async with staged(home, configuration([Backend("a", "http://127.0.0.1:9")])) as made:
        yield made


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def get(stage: Stage, path: str, params: dict[str, str]) -> tuple[int, Any]:
    """Return the status and what is said of it."""
    answer = await stage.http.get(stage.url + path, params=params, headers=stage.admin)
    told = answer.json() if answer.headers["content-type"] == "application/json" else answer.text
    return answer.status_code, told


@pytest.mark.parametrize("day", EDGES)
async def test_days_that_no_window_may_lie_at_are_refused_by_their_name(stage: Stage, day: str) -> None:
    """What lies before and behind a window must be a day as well: the years 1970 to 9998 are taken."""
    for path, names, more in READERS:
        for chosen in (names, names[-1:]):
            status, told = await get(stage, path, more | dict.fromkeys(chosen, day))
            assert status == 400, (path, chosen, status)
            if "exports" not in path or chosen == names:
                assert "1970 to 9998" in told["error"]["message"], (path, told)
                assert told["error"]["param"] in names


@pytest.mark.parametrize("day", WITHIN)
async def test_the_first_and_the_last_day_are_taken(stage: Stage, day: str) -> None:
    """A window of one day, and whatever is compared with it."""
    for path, names, more in READERS:
        status, told = await get(stage, path, more | dict.fromkeys(names, day))
        assert status == (400 if "statement" in path else 200), (path, told)
    for path, more in (("rankings-daily", {}), ("rankings-daily", {"period": "week"}), ("app-rankings", {})):
        asked = more | {"start_date": day, "end_date": day}
        status, _ = await get(stage, f"/api/v1/datasets/{path}", asked)
        assert status == (400 if day < "2025" else 200)
    status, _ = await get(stage, "/api/v1/exports/statement", {"period": day[:7], "team": "default"})
    assert status == 200


@pytest.mark.parametrize("day", [*EDGES, *WITHIN])
async def test_other_readers_of_dates_have_no_error_of_theirs(stage: Stage, day: str) -> None:
    """Margins, datasets, analytics and periods, with each end at the edge."""
    for path in ("margin", "allocation"):
        for first, last in ((day, day), ("2026-01-01", day), (day, "2026-01-01")):
            assert (await get(stage, f"/api/v1/prices/{path}", {"from": first, "to": last}))[0] < 500
    for path in ("rankings-daily", "app-rankings"):
        for asked in ({"start_date": day}, {"end_date": day}, {"start_date": day, "end_date": day}):
            assert (await get(stage, f"/api/v1/datasets/{path}", asked))[0] < 500
    for dataset in ("focus", "usage", "statement"):
        assert (await get(stage, f"/api/v1/exports/{dataset}", {"period": day[:7], "team": "default"}))[0] < 500
    for zone in ("Z", "+14:00", "-14:00"):
        for grain in ("hour", "day", "week", "month"):
            range_ = {"start": f"{day}T00:00:00{zone}", "end": f"{day}T23:59:59{zone}"}
            body = {"metrics": ["request_count"], "granularity": grain, "time_range": range_}
            answer = await stage.http.post(f"{stage.url}/api/v1/analytics/query", json=body, headers=stage.admin)
            assert answer.status_code < 500, (body, answer.text)
