"""The rankings and the pages of models over HTTP: who sees what, and that page, files and API say the same."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from dashboards.site import Site
from gateway.config.snapshot import BoardsSpec
from gateway.types.errors import Unavailable
from tests.ui.house import MINE, OTHERS, House, opened

VIEW = "/rankings?by=model&measure=tokens&days=7"
FILES = ("board.csv", "board.json", "days.csv", "days.json", "records.json", "chart.svg", "today.json")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with eight days of a past, whose boards are shown without a key."""
    with opened(tmp_path_factory.mktemp("house"), days=8) as found:
        yield found


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Rules of the boards that a test sets anew."""
    said: dict[str, object] = {"per_minute": 10_000, "per_day": 100_000}
    known = BoardsSpec(keyless=True)
    monkeypatch.setattr(Site, "boards", property(lambda _: replace(known, **said)))  # type: ignore[arg-type]
    return said


def get(house: House, path: str, role: str = "") -> httpx.Response:
    """Ask for a page as somebody."""
    with house.client(role) as client:
        return client.get(path)


@pytest.mark.usefixtures("boards")
def test_strangers_see_public_boards_and_no_other(house: House) -> None:
    """Models, authors and apps are shown; what is the owner's or a team's is behind the sign-in, files likewise."""
    answer = get(house, VIEW)
    assert answer.status_code == 200
    tabs = re.search(r'<nav class="tabs".*?</nav>', answer.text, re.DOTALL)
    assert tabs is not None
    assert [by for by in ("model", "author", "app", "endpoint", "team") if f"by={by}&" in tabs[0]] == [
        "model",
        "author",
        "app",
    ]
    assert MINE not in answer.text
    for query in ("by=endpoint", "by=team", f"team={MINE}"):
        page = get(house, f"/rankings?{query}")
        assert page.status_code == 303
        assert page.headers["location"].startswith("/console/sign-in?next=%2Frankings")
        assert {get(house, f"/rankings/{name}?{query}").status_code for name in FILES} == {401}


def test_without_keyless_nothing_is_public(house: House, boards: dict[str, object]) -> None:
    """The owner did not say so: pages send to the sign-in, files and pictures are refused."""
    boards["keyless"] = False
    assert get(house, "/rankings").status_code == 303
    assert get(house, "/models/qwen/qwen3-32b").status_code == 303
    assert {get(house, f"/rankings/{name}").status_code for name in FILES} == {401}
    assert get(house, "/rankings", "viewer").status_code == 200


def test_who_has_no_role_sees_what_strangers_see(house: House, boards: dict[str, object]) -> None:
    """Signing in takes nothing away: public boards, their files and the pages of models; nothing that is not public."""
    paths = ["/rankings", VIEW, "/models/qwen/qwen3-32b", "/models/qwen/qwen3-32b/days.csv"]
    paths += [f"/rankings/{name}" for name in FILES]
    assert {path: get(house, path, "nobody").status_code for path in paths} == dict.fromkeys(paths, 200)
    assert get(house, "/rankings/board.json", "nobody").json() == get(house, "/rankings/board.json").json()
    assert get(house, "/", "nobody").headers["location"] == get(house, "/").headers["location"] == "/rankings"
    for query in ("by=endpoint", "by=team", f"team={MINE}", "team=no-such-team"):
        assert get(house, f"/rankings?{query}", "nobody").status_code == 403
        assert {get(house, f"/rankings/{name}?{query}", "nobody").status_code for name in FILES} == {403}
    boards["keyless"] = False
    assert {get(house, path, "nobody").status_code for path in paths} == {403}
    assert get(house, "/", "nobody").headers["location"] == "/console"


@pytest.mark.usefixtures("boards")
def test_a_team_sees_its_own_part_and_no_other_team(house: House) -> None:
    """Who sees one team's usage gets public boards and its own part; another team is like one that is not there."""
    assert get(house, "/rankings", "team_viewer").status_code == 200
    assert get(house, f"/rankings?team={MINE}", "team_viewer").status_code == 200
    others = get(house, f"/rankings?team={OTHERS}", "team_viewer")
    unknown = get(house, "/rankings?team=no-such-team", "team_viewer")
    assert (others.status_code, unknown.status_code) == (404, 404)
    assert get(house, "/rankings?by=team", "team_viewer").status_code == 403
    owner = get(house, "/rankings?by=team&days=7", "owner")
    assert MINE in owner.text
    assert OTHERS in owner.text


def test_a_share_too_small_to_be_told_is_not_called_none(house: House) -> None:
    """Beside teams with a past, one that has paid for a few answers has some share."""
    page = get(house, "/rankings?by=team&measure=spend&days=7", "owner").text
    [row] = [each for each in page.split("<tr") if ">default<" in each and "share-cell" in each]
    assert '<span class="tnum">&lt;0.1 %</span>' in row


@pytest.mark.usefixtures("boards")
@pytest.mark.parametrize(
    "query", ["by=colour", "measure=fun", "days=12", "days=-1", "to=yesterday", "to=2999-01-01", "by=%00"]
)
def test_a_query_that_makes_no_sense_is_400_and_says_why(house: House, query: str) -> None:
    """On the page and for every file; the message names the parameter."""
    page = get(house, f"/rankings?{query}")
    assert page.status_code == 400
    assert query.partition("=")[0] in page.text
    assert {get(house, f"/rankings/{name}?{query}").status_code for name in FILES} == {400}


@pytest.mark.usefixtures("boards")
@pytest.mark.parametrize("measure", ["tokens", "requests", "spend", "tokens_per_dollar"])
def test_page_files_and_api_say_the_same(house: House, measure: str) -> None:
    """The rows of the page are those of CSV and JSON, and these are the API's; the days add up to the rows."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)  # the day that runs may grow between two answers
    query = f"by=model&measure={measure}&days=7&to={yesterday}"
    page = get(house, f"/rankings?{query}").text
    document = get(house, f"/rankings/board.json?{query}").json()
    names = [row["name"] for row in document["data"]]
    assert len(names) > 3
    assert re.findall(r'<a href="/models/([^"]+)"><span class="author">', page)[: len(names)] == names
    told = list(csv.DictReader(io.StringIO(get(house, f"/rankings/board.csv?{query}").text)))
    assert [(row["name"], row["value"]) for row in told if row["rank"]] == [
        (row["name"], row["value"]) for row in document["data"]
    ]
    window = f"from={document['meta']['from']}&to={document['meta']['to']}"
    with house.client() as client:
        api = client.get(f"/api/v1/rankings?by=model&measure={measure}&{window}").json()
    assert [(row["name"], row["value"]) for row in api["data"]] == [
        (row["name"], row["value"]) for row in document["data"]
    ]
    if measure in ("tokens", "requests"):
        days = list(csv.DictReader(io.StringIO(get(house, f"/rankings/days.csv?{query}").text)))
        sums: dict[str, int] = {}
        for row in days:
            sums[row["name"]] = sums.get(row["name"], 0) + int(row[measure])
        assert sum(sums.values()) == int(document["totals"][measure])
        assert {name: sums[name] for name in names} == {row["name"]: int(row["value"]) for row in document["data"]}


@pytest.mark.usefixtures("boards")
def test_what_has_no_name_is_in_the_days_too(house: House) -> None:
    """Apps that nobody approved are not named and still counted: every day of the chart is everything."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)  # the day that runs may grow between two answers
    query = f"by=app&measure=tokens&days=7&to={yesterday}"
    document = get(house, f"/rankings/board.json?{query}").json()
    assert int(document["other"]["tokens"]) + int(document["unattributed"]["tokens"]) > 0
    days = get(house, f"/rankings/days.json?{query}").json()["data"]
    assert sum(int(row["value"]) for row in days) == int(document["totals"]["tokens"])


@pytest.mark.usefixtures("boards")
def test_a_permalink_stays_what_it_was(house: House) -> None:
    """With its last day named a view has nothing that changes with the clock."""
    first = get(house, VIEW).text
    link = re.search(r'id="permalink">http://[^/]+(/rankings\?[^<]+)<', first)
    assert link is not None
    page = get(house, link[1].replace("&amp;", "&"))
    assert page.status_code == 200
    assert "still running" not in page.text
    assert (
        re.findall(r"<tbody>.*?</tbody>", page.text, re.DOTALL)[0]
        == re.findall(r"<tbody>.*?</tbody>", first, re.DOTALL)[0]
    )


@pytest.mark.usefixtures("boards")
def test_other_sites_may_show_the_picture_and_nothing_else(house: House) -> None:
    """The picture runs and loads nothing and may be framed; pages may not; what needs a sign-in is not kept."""
    picture = get(house, f"/rankings/chart.svg{VIEW.removeprefix('/rankings')}")
    policy = picture.headers["content-security-policy"]
    assert picture.headers["content-type"] == "image/svg+xml"
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors *" in policy
    assert "x-frame-options" not in picture.headers
    assert picture.headers["cross-origin-resource-policy"] == "cross-origin"
    assert not re.search(r"<script|javascript:|href=|style=", picture.text)
    assert picture.headers["cache-control"].startswith("public")
    assert get(house, "/rankings/chart.svg?by=team", "owner").headers["cache-control"] == "private, no-store"
    assert get(house, "/rankings").headers["x-frame-options"] == "DENY"


@pytest.mark.usefixtures("boards")
def test_a_page_asks_little_and_is_small(house: House) -> None:
    """At most 12 queries the first time, none while the answers are fresh; a year is under 100 kB on the wire."""
    path = "/rankings?by=app&measure=requests&days=365"
    house.visits.clear()
    with house.client() as client:
        answer = client.get(path)
        (asked,) = house.visits
        assert 0 < len(asked) <= 12, asked
        house.visits.clear()
        client.get(path)
        (asked,) = house.visits
        assert [each for each in asked if "board_" in each] == []
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < 100_000


def test_strangers_who_ask_too_often_are_told_to_wait(house: House, boards: dict[str, object]) -> None:
    """New questions of one address are counted as those of the API are; signed-in people are not."""
    boards["per_minute"] = 1
    found = [get(house, f"/rankings?by=author&days=90&to=2026-0{month}-01").status_code for month in range(1, 5)]
    assert found[-1] == 429
    assert get(house, "/rankings?by=author&days=90&to=2026-05-01", "viewer").status_code == 200
    assert get(house, "/rankings?by=author&days=90&to=2026-06-01", "nobody").status_code == 429


@pytest.mark.usefixtures("boards")
def test_the_page_of_a_model_shows_who_serves_it(house: House) -> None:
    """Endpoints with price and quantization, usage, a sample that names it; the owner's costs are not there."""
    page = get(house, "/models/qwen/qwen3-32b")
    assert page.status_code == 200
    for words in ("own/fp8@eu", "cloud", "$0.10", "$0.30", "fp8", "&#34;model&#34;: &#34;qwen/qwen3-32b&#34;"):
        assert words in page.text or words in page.text.replace('"', "&#34;"), words
    assert "half wait less" in page.text  # measured by the requests that the house has answered
    assert "$0.16" not in page.text  # what the owner pays
    assert get(house, "/models/qwen/qwen3-32b", "viewer").status_code == 200
    assert get(house, "/models/qwen/qwen3-32b", "nobody").status_code == 200


@pytest.mark.usefixtures("boards")
def test_a_model_that_nobody_serves_keeps_its_page_and_an_unknown_one_has_none(house: House) -> None:
    """Usage in the books is enough for a page; any other id is the designed 404."""
    assert "Nobody serves it here now" in get(house, "/models/openai/gpt-oss-120b").text
    for path in ("/models/no/such", "/models/qwen/qwen3-32b/x", "/models/%3Cscript%3E/x"):
        answer = get(house, path)
        assert answer.status_code == 404
        assert "Nothing here" in answer.text
        assert "<script>/x" not in answer.text


@pytest.mark.usefixtures("boards")
def test_books_that_are_away_are_said_to_be(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken database is a page that says so and that inference goes on."""

    async def away(*_: object) -> None:
        raise Unavailable("the database cannot be reached")

    keeper = house.stage.keeper
    monkeypatch.setattr(type(keeper), "ask", away)
    answer = get(house, "/rankings?by=author&days=7&to=2026-11-01")
    assert answer.status_code == 503
    assert "Inference goes on" in answer.text


def test_the_counter_of_today_costs_a_stranger_no_visits(house: House, boards: dict[str, object]) -> None:
    """It is asked again and again by a page that stays open, which must not lock its reader out."""
    boards["per_minute"] = 1
    get(house, "/rankings?by=author&days=365&to=2026-02-02")
    assert get(house, "/rankings?by=author&days=365&to=2026-02-03").status_code == 429
    assert get(house, "/rankings/today.json?by=author&days=365&to=2026-02-03").status_code == 200


@pytest.mark.usefixtures("boards")
def test_what_the_books_are_too_young_to_compare_is_new(house: House) -> None:
    """A window whose predecessor begins before the books has no growth, with a word instead; a shorter one has it."""
    page = get(house, "/rankings?by=model&days=30").text
    assert "no whole 30 days before to compare with" in page
    assert "against the 30 days before" not in page
    assert "no whole 90 days before to compare with" in get(house, "/models/qwen/qwen3-32b").text
    assert "new: counted from the start" in get(house, "/console?span=30d", "owner").text
    assert "vs 24 h before" in get(house, "/console?span=24h", "owner").text


@pytest.mark.usefixtures("boards")
def test_a_page_that_has_not_changed_is_not_sent_again(house: House) -> None:
    """A stranger's browser that names what it has gets 304; who is signed in always gets the page, kept by nobody."""
    path = "/rankings?by=model&days=7&to=2020-01-31"
    first = get(house, path)
    assert first.headers["cache-control"] == "private, max-age=5"
    with house.client() as client:
        again = client.get(path, headers={"if-none-match": first.headers["etag"]})
        other = client.get(path, headers={"if-none-match": 'W/"another"'})
    assert (again.status_code, again.content) == (304, b"")
    assert other.status_code == 200
    mine = get(house, path, "owner")
    assert (mine.headers["cache-control"], "etag" in mine.headers) == ("no-store", False)


@pytest.mark.usefixtures("boards")
def test_the_page_of_a_model_says_how_often_it_answered_and_what_a_dollar_buys(house: House) -> None:
    """Uptime by day with exact shares, tokens per dollar charged; the list of models leads there."""
    page = get(house, "/models/qwen/qwen3-32b?days=7").text
    assert re.search(r"<td>(100\.00|[0-9]{2}\.[0-9]{2}) %</td>", page)
    assert re.search(r"[0-9.]+[KMB]/\$</span> <span class=\"muted\">charged", page)
    assert 'href="/models/qwen/qwen3-32b"' in get(house, "/console/models", "owner").text


@pytest.mark.usefixtures("boards")
def test_charts_of_a_model_come_as_files(house: House) -> None:
    """Days and speeds as CSV and JSON say what the leaderboard says; other forms and models are 404."""
    with house.client() as client:
        days = client.get("/models/qwen/qwen3-32b/days.json?days=30").json()["data"]
        [board] = [
            row for row in client.get("/rankings/board.json?days=30").json()["data"] if row["name"] == "qwen/qwen3-32b"
        ]
        assert len(days) == 30
        assert sum(int(day["tokens"]) for day in days) == int(board["value"]) > 0
        assert days[-1]["answered"] > 0
        lines = client.get("/models/qwen/qwen3-32b/days.csv?days=30").text.splitlines()
        assert (lines[0], len(lines)) == ("date,tokens,answered", 31)
        speeds = client.get("/models/qwen/qwen3-32b/speeds.json").json()["data"]
        assert len(speeds) == 48
        assert any(hour["ttft_p50_s"] for hour in speeds)
        for wrong in ("qwen/qwen3-32b/days.exe", "qwen/nobody/days.csv", "qwen/nobody/speeds.json"):
            assert client.get(f"/models/{wrong}").status_code == 404
        assert "/models/qwen/qwen3-32b/days.csv?days=90" in client.get("/models/qwen/qwen3-32b").text
