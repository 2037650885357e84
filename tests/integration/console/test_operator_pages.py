"""What operators do on pages: presets and reports of the lab, alerts. Over HTTP, forms as a page sends them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from html import unescape

import httpx

from dashboards.door import form_token
from dashboards.figures import exact_usd, percent
from gateway.console.lessons import error_of
from gateway.console.measure import YIELDS
from gateway.console.question import AUDIT_LOG, BEGIN_CALIBRATION, CALIBRATIONS, END_CALIBRATION, AuditQuestion
from gateway.db.tables.budget import BudgetAlertRow
from gateway.db.tables.tariff import AllocationHour
from gateway.db.unit_of_work import writing
from gateway.fleet.health import FAILURES
from gateway.tariff.version import VERSIONS, Version, VersionQuery
from gateway.types.budgets import SET_BUDGET, NewBudget, Scope, Window
from gateway.types.call import Operation
from gateway.types.keys import NewKey
from tests.integration.console.conftest import post
from tests.ui.house import MINE, OTHERS, House


def test_a_preset_shows_what_it_is_made_of(house: House) -> None:
    """Every preset has a page with its parts, their shares and its file; one that is not there is 404."""
    with house.client("viewer") as client:
        assert client.get("/console/routing").text.count('href="/console/routing/presets/') >= 10
        told = client.get("/console/routing/presets/balanced").text
        assert "usual" in told
        shares = [float(share) for share in re.findall(r"([0-9.]+) % of the score", told)]
        assert 98 <= sum(shares) <= 102
        assert "picker: {name: best" in told
        assert client.get("/console/routing/presets/..%2Fbalanced").status_code == 404
        assert client.get("/console/routing/presets/nothing").status_code == 404


def test_a_number_that_is_none_is_told_at_its_field(house: House) -> None:
    """The what-if form keeps what was typed and says what is wrong."""
    with house.client("viewer") as client:
        page = client.get("/console/routing?model=qwen/qwen3-32b&longest=many&prompt=Hello+there").text
    assert "a whole number of tokens" in page
    assert 'value="many"' in page
    assert 'value="Hello there"' in page


def test_reports_of_the_lab_are_shown_and_nothing_else(house: House) -> None:
    """Pages in the folder are listed and given out under a policy of their own; links and other files are not there."""
    folder = house.stage.home / "lab"
    folder.mkdir(exist_ok=True)
    page = "<!doctype html>\n<html><head><title>Mine &amp; yours</title><style>p{}</style></head><body><p>x"
    (folder / "mine.html").write_text(page)
    (folder / "other.html").write_text("no page at all")
    (folder / "notes.txt").write_text(page)
    (folder / "link.html").symlink_to(house.stage.home / "weir.yaml")
    with house.client("viewer") as client:
        listing = client.get("/console/routing").text
        assert "Mine &amp; yours" in listing
        assert "other.html" not in listing
        answer = client.get("/console/routing/lab/mine.html")
        assert answer.text == page
        policy = answer.headers["content-security-policy"]
        assert "sandbox" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        for name in ("other.html", "notes.txt", "link.html", "nothing.html", "..%2Fweir.yaml", "%2Fetc%2Fpasswd"):
            assert client.get(f"/console/routing/lab/{name}").status_code == 404, name
    with house.client("team_admin") as client:
        assert client.get("/console/routing/lab/mine.html").status_code == 403


def test_alerts_are_shown_with_what_came_of_them(house: House) -> None:
    """Each role sees those of its teams: how far, when, where it was told and what was answered."""
    keeper = house.stage.keeper
    made = {
        team: house.do(keeper.ask(SET_BUDGET, (NewBudget(Scope(team=team), Window.DAILY, 10**9, hard=False),)))
        for team in (MINE, OTHERS)
    }

    async def fire() -> None:
        assert keeper._database is not None
        async with writing(keeper._database) as session:
            for budget in made.values():
                session.add(
                    BudgetAlertRow(
                        budget_id=budget.budget_id,
                        window_day=20_000,
                        percent=80,
                        limit_nano=10**9,
                        spent_nano=8 * 10**8,
                        crossed_at=1_728_000_000_000_000,
                        delivered_at=1_728_000_001_000_000,
                        tries=2,
                        receiver="hooks.example.org",
                        outcome="answered 204",
                    )
                )

    house.do(fire())
    with house.client("owner") as client:
        page = client.get("/console/budgets").text
        assert page.count("answered 204") == 2
        assert "hooks.example.org" in page
    with house.client("team_viewer") as client:
        page = client.get("/console/budgets").text
        assert page.count("answered 204") == 1
        assert OTHERS not in page


def test_budgets_of_revoked_keys_are_on_a_page_of_their_own(house: House) -> None:
    """They are not among those that hold; who sees a team alone sees those of its keys alone."""
    keeper = house.stage.keeper
    for name, team in (("revoked-of-mine", MINE), ("revoked-of-others", OTHERS)):
        key = house.do(keeper.create_key(NewKey(name, team))).record.key_id
        house.do(keeper.ask(SET_BUDGET, (NewBudget(Scope(key_id=key), Window.MONTHLY, 10**9),)))
        with house.client("owner") as client:
            assert name in client.get("/console/budgets").text
        house.do(keeper.revoke_key(key))
    for role, seen in (("owner", {"revoked-of-mine", "revoked-of-others"}), ("team_viewer", {"revoked-of-mine"})):
        with house.client(role) as client:
            assert "revoked-of" not in client.get("/console/budgets").text
            page = client.get("/console/budgets?revoked=yes").text
        assert set(re.findall(r"revoked-of-\w+", page)) == seen


MODELS = ("qwen/qwen3-32b", "qwen/qwen3-8b")
PRICE_MAP = {
    "demo-api/qwen3-32b": {"input_cost_per_token": 1.7e-07, "output_cost_per_token": 6.4e-07, "mode": "chat"},
    "demo-api/qwen3-8b": {"input_cost_per_token": 3e-08, "output_cost_per_token": 1.2e-07},
}


def upload(house: House, **fields: str) -> httpx.Response:
    """Send LiteLLM's price map as the page would."""
    fields = {"source": "litellm", "kind": "cost", "csrf": form_token(house.tokens["admin"])} | fields
    file = {"file": ("prices.json", json.dumps(PRICE_MAP).encode(), "application/json")}
    with house.client("admin") as client:
        return client.post("/console/models/import", data=fields, files=file, headers={"origin": house.url})


def hidden(page: str, name: str) -> str:
    """Return the value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None
    return unescape(found[1])


def costs(house: House) -> list[Version]:
    """Return versions of costs that did not come from the file, newest first."""
    found = house.do(house.stage.keeper.ask(VERSIONS, (VersionQuery(kind="cost"),)))
    return [version for version in found if version.source != "file"]


def test_an_imported_price_is_applied_when_it_is_accepted(house: House) -> None:
    """The difference is shown rate by rate; a line that is ticked becomes a version, the others do not."""
    names = "\n".join(f"{ours}={theirs}" for ours, theirs in zip(MODELS, PRICE_MAP, strict=True))
    page = upload(house, map=names).text
    assert "0.17" in page
    assert not costs(house)
    fields = {"offers": hidden(page, "offers"), "revision": hidden(page, "revision")}
    path = "/console/models/import/accept"
    for more, said in (
        ({"why": "x"}, "tick what is to be"),
        ({"take": "0"}, "say why"),
        ({"take": "0", "why": "x", "valid_from": "soon"}, "is not a date"),
    ):
        refused = post(house, "admin", path, **fields, **more)
        assert (refused.status_code, said in refused.text) == (400, True), said
        assert "checked" in refused.text or "take" not in more
    assert not costs(house)
    done = post(house, "admin", path, **fields, take="0", why="their new list")
    assert (done.status_code, done.headers["location"]) == (303, "/console/models?done=accepted&count=1")
    [version] = costs(house)
    assert (version.who, version.why, version.source, version.model) == (
        "admin",
        "their new list",
        "litellm",
        MODELS[0],
    )
    entries = house.do(house.stage.keeper.ask(AUDIT_LOG, (AuditQuestion(noun="price", actor="admin"),)))
    assert (entries[0].via, entries[0].before is None, '"prompt":170' in (entries[0].after or "")) == (
        "console",
        False,
        True,
    )
    stale = post(house, "admin", path, **fields, all="yes", why="all of it")
    assert stale.status_code == 409
    assert "somebody else changed this meanwhile" in stale.text
    assert 'value="all of it"' in stale.text
    assert len(costs(house)) == 1
    again = {"offers": hidden(stale.text, "offers"), "revision": hidden(stale.text, "revision")}
    assert post(house, "admin", path, **again, all="yes", why="all of it").status_code == 303
    assert {version.model for version in costs(house)} == set(MODELS)
    assert "Nothing would change" in upload(house, map=names).text


def test_an_import_says_what_is_wrong_and_keeps_what_was_typed(house: House) -> None:
    """No file, a file that is none, a bad line of names; and prices looked up in the package's own data."""
    wrong = post(house, "admin", "/console/models/import", source="litellm", kind="sell", map="a=b", provider="them")
    assert (wrong.status_code, "choose the file" in wrong.text, ">a=b</textarea>" in wrong.text) == (400, True, True)
    assert 'value="them"' in wrong.text
    assert "one OURS=THEIRS a line" in upload(house, map="nonsense").text
    names = f"{MODELS[0]}=openai/gpt-4o-mini"
    page = post(house, "admin", "/console/models/import", source="genai-prices", kind="cost", map=names)
    assert page.status_code == 200
    assert "openai/gpt-4o-mini" in page.text
    assert "the source knows nothing of it" in page.text


def test_a_backend_is_calibrated_once_at_a_time(house: House) -> None:
    """A bounded run measures it and every worker learns; a second one meanwhile is refused; the log has both ends."""
    keeper, path = house.stage.keeper, "/console/fleet/calibrate"
    assert post(house, "owner", path, backend="nobody").status_code == 404
    refused = post(house, "owner", path, backend="cloud")
    assert (refused.status_code, "somebody else bills" in refused.text) == (400, True)
    run_id = house.do(keeper.ask(BEGIN_CALIBRATION, ("gpu-b",)))
    busy = post(house, "owner", path, backend="gpu-b")
    assert (busy.status_code, "gpu-b is being calibrated" in busy.text) == (409, True)
    house.do(keeper.ask(END_CALIBRATION, ("gpu-b", run_id, "it answered 500", None)))
    estimate = house.stage.gateway.registry.fleet.replicas["gpu-a"].load.estimate
    runs, off = 0, 1.0
    while off >= 0.5 and runs < 3:  # what else the machine does meanwhile slows some answers, which is no defect
        runs += 1
        learned = estimate.samples
        begun = post(house, "owner", path, backend="gpu-a")
        assert (begun.status_code, begun.headers["location"]) == (303, "/console/fleet?done=calibrating&name=gpu-a")
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            found = {each.backend: each for each in house.do(keeper.ask(CALIBRATIONS))}
            if found["gpu-a"].ended_us and estimate.samples > learned:
                break
            time.sleep(0.1)
        assert found["gpu-a"].problem == ""
        measured = found["gpu-a"].measured
        assert measured is not None
        assert len(measured.samples) >= 5
        off = max(measured.after, error_of(estimate, measured.samples))
    assert off < 0.5
    with house.client("viewer") as client:
        page = client.get("/console/fleet").text
    assert "Calibrated" in page
    assert "it answered 500" in page
    assert "Drain" not in page
    entries = house.do(keeper.ask(AUDIT_LOG, (AuditQuestion(noun="calibration", subject="gpu-a"),)))
    assert [(each.actor, each.via) for each in entries] == [("owner", "console")] * 2 * runs
    assert '"rate":' in (entries[0].after or "")


def test_the_fleet_shows_what_tokens_cost_and_what_is_offered(house: House) -> None:
    """Tokens per dollar count idle hours; who may not see costs sees none; an offered model comes with its lines."""
    keeper, now = house.stage.keeper, time.time_ns() // 3_600_000_000_000

    async def allot() -> None:
        assert keeper._database is not None
        async with writing(keeper._database) as session:
            for model, cost, tokens in (("qwen/qwen3-32b", 10**9, 3_000_000), ("", 2 * 10**9, 0)):
                session.add(
                    AllocationHour(
                        hour=now - 50,
                        backend="gpu-a",
                        model=model,
                        endpoint="own" if model else "",
                        usd_per_hour_nano=3 * 10**9,
                        cost_nano=cost,
                        share=333_333,
                        tokens=tokens,
                        busy_us=1,
                        measure="time",
                        final=True,
                    )
                )

    house.do(allot())
    load = house.stage.gateway.registry.fleet.replicas["gpu-a"].load
    offered, load.offers = load.offers, frozenset({"Qwen/Qwen4-Nobody"})
    with house.client("owner") as client:
        page = client.get("/console/fleet").text
    load.offers = offered
    day = now // 24
    found = house.do(keeper.ask(YIELDS, (day - 6, day, ())))
    [made] = [each for each in found if each.backend == "gpu-a"]
    assert made.tokens >= 3_000_000
    assert made.idle_nano >= 2 * 10**9
    assert f"{made.tokens:,} tokens for {exact_usd(made.cost_nano)}" in page
    assert f"<dd>{percent(made.idle_nano / made.cost_nano)}</dd>" in page
    assert "Qwen/Qwen4-Nobody" in page
    assert "endpoints: [{backend: gpu-a}]" in page
    with house.client("viewer") as client:
        assert "Tokens per $" not in client.get("/console/fleet").text


def test_the_fleet_says_what_a_backend_says_it_has_not_got(house: House) -> None:
    """Whoever runs it sees why requests go elsewhere, for as long as they do."""
    fleet = house.stage.gateway.registry.fleet
    [candidate] = [
        each for each in fleet.models["qwen/qwen3-32b"].candidates if each.replica is fleet.replicas["gpu-a"]
    ]
    health = house.stage.gateway._health
    words = f"It says that it has no {candidate.upstream_model}; others are preferred."
    for _ in range(FAILURES):
        health.lacked(candidate, Operation.CHAT, time.monotonic())
    with house.client("viewer") as client:
        assert words in client.get("/console/fleet").text
        health.had(candidate, Operation.CHAT)
        assert words not in client.get("/console/fleet").text


def test_a_setting_goes_before_the_file_until_it_is_taken_back(house: House) -> None:
    """Public boards are switched off without a restart; nothing in a field is what the file says; the log has both."""
    path = "/console/settings/boards"
    with house.client() as client:
        assert client.get("/rankings").status_code == 200
    wrong = post(house, "owner", path, version="0", keyless="no", milestones="a lot", per_day="12")
    assert wrong.status_code == 400
    assert "whole numbers separated by commas" in wrong.text
    assert 'value="a lot"' in wrong.text
    assert 'value="12"' in wrong.text
    assert "Input should be" in post(house, "owner", path, version="0", new_apps_per_day="99999").text
    fields = {"keyless": "no", "milestones": "1000, 50", "team": "team"}
    assert post(house, "owner", path, version="0", **fields).status_code == 303
    wait_until(lambda: not house.stage.gateway.boards.keyless)
    assert house.stage.gateway.boards.milestones == (50, 1000)
    assert house.stage.gateway.boards.model == "public"
    with house.client() as client:
        assert client.get("/rankings").status_code != 200
    late = post(house, "admin", path, version="0", keyless="yes")
    assert (late.status_code, "somebody else changed this meanwhile" in late.text) == (409, True)
    with house.client("owner") as client:
        page = client.get("/console/settings").text
    assert "Version 1, by owner" in page
    assert "weir.yaml:" in page
    assert post(house, "admin", path, version="1").status_code == 303
    wait_until(lambda: house.stage.gateway.boards.keyless)
    assert post(house, "owner", "/console/settings/egress", version="0").status_code == 404
    log = house.do(house.stage.keeper.ask(AUDIT_LOG, (AuditQuestion(noun="setting"),)))
    assert [(each.actor, each.after) for each in log] == [
        ("admin", "{}"),
        ("owner", '{"keyless":false,"team":"team","milestones":[50,1000]}'),
    ]


def test_keeping_less_is_asked_for_twice(house: House) -> None:
    """What would be deleted for good needs a tick; too short a time is refused at its field."""
    path = "/console/settings/retention"
    short = post(house, "owner", path, version="0", ledger_days="10", confirm="yes")
    assert (short.status_code, "greater than or equal to 62" in short.text) == (400, True)
    first = post(house, "owner", path, version="0", ledger_days="100")
    assert (first.status_code, "deleted for good: tick this" in first.text) == (400, True)
    assert 'value="100"' in first.text
    assert post(house, "owner", path, version="0", ledger_days="100", confirm="yes").status_code == 303
    wait_until(lambda: house.stage.gateway.snapshot.retention.ledger_days == 100)
    assert post(house, "owner", path, version="1").status_code == 303


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    ends = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_period_can_be_taken_away_as_exports(house: House) -> None:
    """Who sees all of billing gets every form; a team's admin gets none of it, nor does anybody what is not there."""
    with house.client("billing") as client:
        [period] = set(re.findall(r"/console/billing/([0-9]{4}-[0-9]{2})", client.get("/console/billing").text))
        links = re.findall(
            r'href="(/console/billing/[^"]+/exports/[^"]+)"', client.get(f"/console/billing/{period}").text
        )
        assert len(links) >= 6
        for link in links:
            answer = client.get(link)
            assert answer.status_code == 200, link
            assert "attachment" in answer.headers["content-disposition"]
            assert answer.content
        for wrong in ("focus.exe", "secrets.csv"):
            assert client.get(f"/console/billing/{period}/exports/{wrong}").status_code == 404
        assert client.get("/console/billing/nothing/exports/focus.csv").status_code == 404
    with house.client("team_admin") as client:
        assert client.get(links[0]).status_code == 404
