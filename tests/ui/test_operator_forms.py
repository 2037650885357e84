"""The forms of operators in a real browser: sent once, with what came of it, and what is wrong said at its field."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import httpx
from playwright.sync_api import Browser, Page, expect
from sqlmodel import select

from gateway.billing.methods import OUTBOX
from gateway.console.question import CALIBRATIONS, MANAGEMENT_KEYS
from gateway.db.tables.billing import OutboxRow
from gateway.db.tables.budget import BudgetAlertRow
from gateway.db.unit_of_work import writing
from gateway.tariff.version import VERSIONS, Version, VersionQuery
from gateway.types.budgets import SET_BUDGET, NewBudget, Scope, Window
from tests.ui.house import MINE, House
from tests.ui.look import Looker, looking
from tests.ui.test_forms import accept, secret

PRICES = {
    "demo-api/qwen3-32b": {"input_cost_per_token": 1.7e-07, "output_cost_per_token": 6.4e-07, "mode": "chat"},
    "demo-api/qwen3-8b": {"input_cost_per_token": 3e-08, "output_cost_per_token": 1.2e-07},
}
NAMES = "qwen/qwen3-32b=demo-api/qwen3-32b\nqwen/qwen3-8b=demo-api/qwen3-8b"


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.1)


def told_at(page: Page, label: str, words: str) -> None:
    """See that a field is marked as wrong, and that what describes it says why."""
    field = page.get_by_label(label, exact=True)
    expect(field).to_have_attribute("aria-invalid", "true")
    problem = page.locator(f"#{field.get_attribute('aria-describedby')}")
    expect(problem).to_be_visible()
    expect(problem).to_contain_text(words)


def refused(looker: Looker) -> None:
    """Forget that the browser noted an answer of 400 or 409; anything else that it complained of stays."""
    looker.complaints[:] = [each for each in looker.complaints if "Failed to load resource" not in each]
    assert looker.complaints == []


def costs(house: House) -> list[Version]:
    """Return the costs that somebody accepted."""
    found = house.do(house.stage.keeper.ask(VERSIONS, (VersionQuery(kind="cost"),)))
    return [version for version in found if version.source == "litellm"]


def test_prices_are_imported_and_accepted_line_by_line(house: House, chromium: Browser) -> None:
    """Without a file nothing is looked up; the difference is shown; only what is ticked, with a reason, is applied."""
    with looking(chromium, house, "admin") as looker:
        page = looker.page
        page.goto(f"{house.url}/console/models")
        page.get_by_role("link", name="Import prices").click()
        page.get_by_label("Source", exact=True).select_option("litellm")
        page.get_by_label("Names").fill(NAMES)
        page.get_by_role("button", name="Show the difference").click()
        told_at(page, "File, for LiteLLM's price map", "choose the file")
        expect(page.get_by_label("Names")).to_have_value(NAMES)
        refused(looker)
        file = {"name": "prices.json", "mimeType": "application/json", "buffer": json.dumps(PRICES).encode()}
        page.get_by_label("File, for LiteLLM's price map").set_input_files(file)  # type: ignore[arg-type]
        page.get_by_role("button", name="Show the difference").click()
        expect(page.get_by_role("heading", name="What would change")).to_be_visible()
        assert looker.axe() == []
        page.get_by_label("Why").fill("their new list")
        page.get_by_role("button", name="Accept what is ticked").click()
        expect(page.get_by_role("alert")).to_contain_text("tick what is to be accepted")
        page.get_by_label("Accept qwen/qwen3-32b").check()
        page.get_by_label("Why").fill("")
        page.get_by_role("button", name="Accept what is ticked").click()
        told_at(page, "Why", "say why")
        expect(page.get_by_label("Accept qwen/qwen3-32b")).to_be_checked()
        assert costs(house) == []
        page.get_by_label("Why").fill("their new list")
        page.get_by_role("button", name="Accept what is ticked").click()
        expect(page.get_by_text("1 versions were made")).to_be_visible()
        refused(looker)
    assert [(each.model, each.who, each.why) for each in costs(house)] == [
        ("qwen/qwen3-32b", "admin", "their new list")
    ]


def test_what_if_and_presets_show_how_a_request_would_go(house: House, chromium: Browser) -> None:
    """A preset that is chosen decides; a number that is none is told at its field; each preset has its page."""
    with looking(chromium, house, "viewer") as looker:
        page = looker.page
        page.goto(f"{house.url}/console/routing")
        page.get_by_label("Preset", exact=True).select_option("cheapest")
        page.get_by_label("Longest answer").fill("many")
        page.get_by_label("Longest answer").press("Enter")
        told_at(page, "Longest answer", "a whole number of tokens")
        page.get_by_label("Longest answer").fill("100")
        page.get_by_label("Longest answer").press("Enter")
        expect(page.get_by_text("Preset cheapest looks at")).to_be_visible()
        assert "preset=cheapest" in page.url
        page.get_by_role("link", name="cheapest", exact=True).click()
        expect(page.get_by_role("heading", name="Preset cheapest")).to_be_visible()
        expect(page.locator("pre.code")).to_contain_text("picker")
        refused(looker)


def test_settings_go_before_the_file_until_they_are_taken_back(house: House, chromium: Browser) -> None:
    """Rankings are closed to strangers without a restart; keeping less needs a tick; an emptied field is the file's."""
    gateway = house.stage.gateway
    with looking(chromium, house, "owner") as looker:
        page = looker.page
        page.goto(f"{house.url}/console/settings")
        boards, retention = page.locator("#boards"), page.locator("#retention")
        boards.get_by_label("Public boards").select_option("no")
        boards.get_by_label("Milestones", exact=True).fill("a lot")
        boards.get_by_role("button", name="Save").click()
        told_at(page, "Milestones", "whole numbers separated by commas")
        expect(boards.get_by_label("Public boards")).to_have_value("no")
        assert gateway.boards.keyless
        boards.get_by_label("Milestones", exact=True).fill("")
        boards.get_by_role("button", name="Save").click()
        expect(page.get_by_text("Saved. Every process goes by it within seconds.")).to_be_visible()
        expect(boards.get_by_text("Version 1, by owner")).to_be_visible()
        until(lambda: not gateway.boards.keyless)
        assert httpx.get(f"{house.url}/rankings", follow_redirects=False).status_code == 303
        boards.get_by_label("Public boards").select_option("")
        boards.get_by_role("button", name="Save").click()
        expect(boards.get_by_text("Version 2, by owner")).to_be_visible()
        until(lambda: gateway.boards.keyless)
        retention.get_by_label("Ledger rows, days").fill("100")
        retention.get_by_role("button", name="Save").click()
        expect(page.get_by_text("deleted for good: tick this to go on")).to_be_visible()
        expect(retention.get_by_label("Ledger rows, days")).to_have_value("100")
        assert gateway.snapshot.retention.ledger_days > 100
        refused(looker)


def test_a_management_key_does_what_its_role_may_and_ends(house: House, chromium: Browser) -> None:
    """It is shown once, works through the API as far as its role reaches, and is refused when it is revoked."""
    with looking(chromium, house, "owner") as looker:
        page = looker.page
        page.on("dialog", accept)
        page.goto(f"{house.url}/console/keys/management")
        page.get_by_label("Name").fill("deployment")
        page.get_by_role("button", name="Make the key").click()
        told_at(page, "Role", "role")
        expect(page.get_by_label("Name")).to_have_value("deployment")
        refused(looker)
        page.get_by_label("Role").select_option("viewer")
        page.get_by_role("button", name="Make the key").click()
        key = {"authorization": f"Bearer {secret(looker)}"}
        [made] = house.do(house.stage.keeper.ask(MANAGEMENT_KEYS))
        assert (made.name, made.role, made.who) == ("deployment", "viewer", "owner")
        keys = f"{house.url}/api/v1/keys"
        until(lambda: httpx.get(keys, headers=key).status_code == 200)
        assert httpx.post(keys, headers=key, json={"name": "one of mine"}).status_code == 403
        page.goto(f"{house.url}/console/keys/management")
        assert key["authorization"].removeprefix("Bearer ") not in page.content()
        page.get_by_role("row", name="deployment").get_by_role("button", name="Revoke").click()
        expect(page.get_by_text("The key is revoked")).to_be_visible()
        until(lambda: httpx.get(keys, headers=key).status_code == 401)
        refused(looker)


def test_a_closed_period_goes_to_the_sink_and_can_be_taken_away(house: House, chromium: Browser) -> None:
    """Its name is asked for; its exports arrive where the table of sinks says, and download from its page."""
    folder = house.stage.home / "sink"
    with looking(chromium, house, "billing") as looker:
        page = looker.page
        page.goto(f"{house.url}/console/billing")
        row = page.get_by_role("table", name="Sinks").get_by_role("row", name="books")
        assert row.locator("th, td").all_text_contents() == ["books", "folder", str(folder), "focus, statement", "csv"]
        periods = page.get_by_role("table", name="Periods")
        name = periods.get_by_role("row").last.locator("th").text_content() or ""
        oldest = periods.get_by_role("row", name=name)
        # Only the next one in order can be closed, and the month that runs says when it ends.
        expect(periods.get_by_role("button", name="Close")).to_have_count(1)
        expect(periods.get_by_role("row").nth(1)).to_contain_text("ends with")
        oldest.get_by_role("textbox").fill("2020-01")
        oldest.get_by_role("button", name="Close").click()
        expect(oldest.get_by_role("alert")).to_contain_text(f"write {name} to close it for good")
        expect(oldest.get_by_role("textbox")).to_have_value("2020-01")
        refused(looker)
        oldest.get_by_role("textbox").fill(name)
        oldest.get_by_role("button", name="Close").click()
        expect(page.get_by_text("The period is closed. Its statements are final.")).to_be_visible()
        expect(oldest.get_by_role("button", name="Close")).to_have_count(0)
        keeper = house.stage.keeper

        def all_sent() -> bool:
            sent = [each for each in house.do(keeper.ask(OUTBOX)) if each.sink]
            return bool(sent) and all(each.state == "delivered" for each in sent)

        until(all_sent)

        async def give_up() -> None:
            assert keeper._database is not None
            async with writing(keeper._database) as session:
                item = await session.scalar(select(OutboxRow).where(OutboxRow.sink == "books").limit(1))
                assert item is not None
                item.state, item.error = "failed", "no room left"

        house.do(give_up())
        page.reload()
        lost = page.get_by_role("row").filter(has_text="no room left")
        expect(lost.locator(".badge.bad")).to_have_text("failed")
        lost.get_by_role("button", name="Try now").click()
        expect(page.get_by_text("It is delivered again within seconds.")).to_be_visible()
        until(all_sent)
        page.goto(f"{house.url}/console/billing")
        deliveries = page.get_by_role("table", name="Deliveries").locator("tbody tr")
        assert deliveries.count() > 0
        assert {text.strip() for text in deliveries.locator("td:nth-child(3)").all_text_contents()} == {"delivered"}
        assert deliveries.locator(".badge.good").count() == deliveries.count()
        assert any(name in path.name or name in str(path) for path in folder.rglob("*") if path.is_file())
        page.get_by_role("link", name=name).first.click()
        with page.expect_download() as download:
            page.locator("#exports").get_by_role("link", name="csv").first.click()
        lines = download.value.path().read_text().splitlines()
        assert "BilledCost" in lines[0]
        assert len(lines) > 1
        assert looker.complaints == []


def test_a_backend_is_calibrated_and_says_what_was_measured(house: House, chromium: Browser) -> None:
    """An own machine is measured and its card says so; a second run meanwhile is refused at its card."""
    with looking(chromium, house, "admin") as looker:
        page = looker.page
        page.on("dialog", accept)
        page.goto(f"{house.url}/console/fleet")
        assert page.locator("#cloud").get_by_role("button", name="Calibrate").count() == 0
        card = page.locator("#gpu-d")
        card.get_by_role("button", name="Calibrate").click()
        expect(page.get_by_role("status").first).to_contain_text("gpu-d")

        def ended() -> bool:
            runs = {each.backend: each for each in house.do(house.stage.keeper.ask(CALIBRATIONS))}
            return "gpu-d" in runs and runs["gpu-d"].ended_us is not None

        until(ended, 120)
        page.reload()
        expect(card).to_contain_text("Calibrated")
        assert re.search(r"\d+(\.\d)? %", card.text_content() or "")
        assert looker.complaints == []


def test_alerts_say_what_came_of_them(house: House, chromium: Browser) -> None:
    """Each with its budget, its share and where it was told; those of a team are seen by the team."""
    keeper = house.stage.keeper
    wanted = NewBudget(Scope(team=MINE), Window.DAILY, 10**9, hard=False)
    budget = house.do(keeper.ask(SET_BUDGET, (wanted,)))
    alert = BudgetAlertRow(
        budget_id=budget.budget_id,
        window_day=20_000,
        percent=80,
        limit_nano=10**9,
        spent_nano=8 * 10**8,
        crossed_at=1_728_000_000_000_000,
        tries=2,
        receiver="hooks.example.org",
        outcome="answered 500",
    )

    async def fire() -> None:
        assert keeper._database is not None
        async with writing(keeper._database) as session:
            session.add(alert)

    house.do(fire())
    with looking(chromium, house, "team_admin") as looker:
        looker.page.goto(f"{house.url}/console/budgets")
        row = looker.page.get_by_role("table", name="Alerts").get_by_role("row", name=f"team {MINE}")
        for words in ("80 %", "$0.800", "$1.00", "hooks.example.org", "answered 500", "2"):
            expect(row).to_contain_text(words)
        assert looker.complaints + looker.axe() == []
