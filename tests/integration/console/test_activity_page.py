"""Activity over days that are named, and its chart as files."""

from __future__ import annotations

import csv
import io
import re
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from dashboards.figures import exact_usd
from dashboards.forms import Wrong
from dashboards.span import LONGEST, named
from dashboards.views.activity import PAGE
from tests.harness import chat_body
from tests.ui.house import MINE, OTHERS, House

NOW_US = 20_000 * 86_400_000_000 + 5


def test_files_say_what_the_chart_says(house: House) -> None:
    """CSV and JSON have each name at each point; of a day that is named, of one before it nothing."""
    today = datetime.fromtimestamp(time.time(), UTC).date()
    query = f"by=team&from={today - timedelta(days=1)}&to={today + timedelta(days=1)}"
    with house.client("owner") as client:
        page = client.get(f"/console/activity?{query}")
        assert page.status_code == 200
        assert f'value="{today - timedelta(days=1)}"' in page.text
        assert "chart.csv?by=team&amp;from=" in page.text
        rows = list(csv.DictReader(io.StringIO(client.get(f"/console/activity/chart.csv?{query}").text)))
        told = client.get(f"/console/activity/chart.json?{query}").json()["data"]
        assert [row["day"] for row in rows] == [row["day"] for row in told]
        assert {row["team"] for row in told} >= {"default"}
        assert sum(row["requests"] for row in told) >= 6
        assert all("cost_usd" in row for row in told)
        hours = client.get("/console/activity/chart.json?span=24h").json()["data"]
        assert hours[0]["hour"].endswith(":00Z")
        before = f"from={today - timedelta(days=40)}&to={today - timedelta(days=30)}"
        assert client.get(f"/console/activity/chart.json?{before}").json()["data"] == []
        assert client.get("/console/activity/chart.exe").status_code == 404
    with house.client("team_admin") as client:
        assert client.get(f"/console/activity/chart.csv?team={OTHERS}").status_code == 404
        mine = client.get(f"/console/activity/chart.json?{query}").json()["data"]
        assert {row["team"] for row in mine} <= {MINE}
        assert not any("cost_usd" in row for row in mine)


def walked(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """Return the requests of all pages of a view, once its page, its CSV and its JSON have shown the very same rows."""
    found: list[dict[str, Any]] = []
    more = ""
    for _ in range(50):
        here = f"{query}&before={more}" if more else query
        told = client.get(f"/console/activity/export.json?{here}").json()
        rows = list(csv.DictReader(io.StringIO(client.get(f"/console/activity/export.csv?{here}").text)))
        page = client.get(f"/console/activity?{here}")
        ids = [row["id"] for row in told["data"]]
        assert page.status_code == 200, here
        assert re.findall(r'<td class="nowrap tnum" title="([^"]+)"', page.text) == ids
        assert [row["id"] for row in rows] == ids
        assert re.findall(r"before=([0-9a-f]+)#requests", page.text) == [told["next"]] * bool(told["next"])
        found += told["data"]
        more = told["next"]
        if not more:
            return found
    raise AssertionError("the pages do not end")


@pytest.fixture(scope="module")
def requests(house: House) -> list[dict[str, Any]]:
    """Requests of two models, an app and one that failed, as the owner sees them: more than a page."""

    async def sent() -> None:
        for model in ("qwen/qwen3-8b", "qwen/qwen3-32b"):
            body = chat_body(model) | {"max_tokens": 2}
            headers = house.stage.headers | {"referer": "https://app.example/x"}
            url = f"{house.stage.url}/v1/chat/completions"
            for _ in range(PAGE // 2 + 1):
                assert (await house.stage.http.post(url, json=body, headers=headers)).status_code == 200
        only = {"provider": {"only": ["cloud"]}}
        assert (await house.stage.chat(max_tokens=2, **only)).status_code == 200
        await house.stage.keeper.shipper.ship()

    house.do(sent())
    deadline = time.monotonic() + 20
    with house.client("owner") as client:
        while len(found := walked(client, "span=24h")) < PAGE + 6 and time.monotonic() < deadline:
            time.sleep(0.2)
    assert len(found) > PAGE
    return found


@pytest.mark.parametrize("name", ["team", "key", "model", "endpoint", "app", "status", "backend"])
def test_each_filter_leaves_what_agrees_on_page_and_in_files(
    house: House, requests: list[dict[str, Any]], name: str
) -> None:
    """By every value there is: the rows, the exports and the sums are those of it, and of nothing else."""
    values = {row[name] for row in requests} - {""}
    assert len(values) >= {"model": 2, "endpoint": 2, "backend": 3}.get(name, 1)
    with house.client("owner") as client:
        for value in values:
            wanted = [row["id"] for row in requests if row[name] == value]
            query = f"span=24h&{name}={quote(value)}"
            assert [row["id"] for row in walked(client, query)] == wanted
            answer = client.get(f"/console/activity/chart.json?by={'team' if name == 'backend' else name}&{query}")
            if name == "backend" and value in ("gpu-a", "gpu-b", "gpu-c"):  # replicas of one endpoint
                assert (answer.status_code, "kept by endpoint" in answer.text) == (400, True)
                assert f"No sums of {value} alone" in client.get(f"/console/activity?{query}").text
            else:
                assert sum(row["requests"] for row in answer.json()["data"]) == len(wanted)
        assert walked(client, f"span=24h&{name}=nothing-of-that-name") == []


def test_two_filters_at_once_and_a_team_out_of_reach(house: House, requests: list[dict[str, Any]]) -> None:
    """What is shown agrees with both; backends are the operator's alone, other teams are as if they were not there."""
    model = requests[-1]["model"]
    with house.client("owner") as client:
        found = walked(client, f"span=24h&model={quote(model)}&backend=cloud")
        assert found == [row for row in requests if (row["model"], row["backend"]) == (model, "cloud")]
        fleet = client.get("/console/fleet").text
        assert "/console/activity?backend=gpu-a" in fleet
    with house.client("team_admin") as client:
        for query in ("backend=cloud", f"team={OTHERS}", "team=no-such-team"):
            for path in ("", "/export.json", "/export.csv", "/chart.json"):
                assert client.get(f"/console/activity{path}?{query}").status_code == 404
        assert walked(client, "span=24h") == []
        assert 'name="backend"' not in client.get("/console/activity").text


def test_days_that_cannot_be_are_told_at_their_field(house: House) -> None:
    """What was typed stays; files are refused with the reason; a window takes the place of named days."""
    with house.client("viewer") as client:
        page = client.get("/console/activity?from=soon&to=2026-01-01")
        assert (page.status_code, "a day such as 2027-01-31" in page.text, 'value="soon"' in page.text) == (
            400,
            True,
            True,
        )
        assert "span=24h" in page.text
        assert "from=soon&amp;span" not in page.text
        for name in ("chart.csv", "export.csv"):
            assert client.get(f"/console/activity/{name}?from=soon").status_code == 400
        for day in ("0001-01-01", "9999-12-31"):
            page = client.get(f"/console/activity?from={day}&to={day}")
            assert (page.status_code, "a day of the years 1970 to 9998" in page.text) == (400, True)


def test_every_page_has_the_exact_amount_behind_the_short_one(house: House) -> None:
    """The digits that a column has no room for are the same everywhere: those of the file, in the cell's title."""
    with house.client("owner") as client:
        rows = client.get("/console/activity/chart.json?by=team&span=30d").json()["data"]
        nano = {row["team"]: 0 for row in rows}
        for row in rows:
            nano[row["team"]] += int(Decimal(row["charge_usd"]) * 10**9)
        whole = {"/console?span=30d", "/console/activity?span=30d"}
        of_team = {"/console/teams", "/console/teams/default", "/console/activity?by=team&span=30d"}
        for path in whole | of_team:
            amount = exact_usd(sum(nano.values()) if path in whole else nano["default"])
            assert f'title="{amount}"' in client.get(path).text, path


@pytest.mark.parametrize("role", ["owner", "team_viewer"])
def test_a_file_without_a_line_has_the_columns_of_one_with_lines(house: House, role: str) -> None:
    """Whoever reads the file by the names of its columns need not ask whether there was anything."""
    with house.client(role) as client:
        for name, by in (("export", ""), ("chart", "by=team&")):
            found = client.get(f"/console/activity/{name}.json?{by}span=24h").json()["data"]
            empty = client.get(f"/console/activity/{name}.csv?{by}from=2024-10-01&to=2024-10-03").text
            kept = client.get(f"/console/activity/{name}.csv?{by}span=7d").text.splitlines()[0]
            assert empty.splitlines() == [kept]
            assert not found or kept.split(",")[1:] == list(found[0])[1:]


@pytest.mark.parametrize(
    ("first", "last", "days"),
    [
        ("2024-10-01", "2024-10-03", (19_997, 19_999)),
        ("", "2024-10-03", (19_970, 19_999)),
        ("2024-10-01", "", (19_997, 20_000)),
        ("2024-10-01", "2031-01-01", (19_997, 20_000)),
        ("2024-10-05", "2024-10-03", "from"),
        ("2020-01-01", "2024-10-03", "from"),
        ("2024-10-01", "yesterday", "to"),
        ("0001-01-01", "0001-01-20", "to"),
        ("", "1969-12-31", "to"),
        ("9999-12-31", "", "from"),
    ],
)
def test_days_are_named(first: str, last: str, days: tuple[int, int] | str) -> None:
    """Both ends count; nothing in a field is 30 days or today; nothing ends after today."""
    assert LONGEST == 400
    if isinstance(days, str):
        with pytest.raises(Wrong) as wrong:
            named(first, last, NOW_US)
        assert wrong.value.field == days
    else:
        found = named(first, last, NOW_US)
        assert (found.first, found.last, found.grain) == (*days, "day")
