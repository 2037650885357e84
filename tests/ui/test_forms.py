"""Each form in a real browser, from what is typed to what the books say."""

from __future__ import annotations

import re

import httpx
from playwright.sync_api import Browser, Dialog, expect

from gateway.console.question import AUDIT_LOG, USERS, AuditQuestion
from gateway.types.budgets import BUDGETS
from tests.ui.house import MINE, PASSWORD, House
from tests.ui.look import Looker, looking


def accept(dialog: Dialog) -> None:
    """Say yes."""
    dialog.accept()


def secret(looker: Looker) -> str:
    """Return the secret that the page shows, after a look that it is shown this once."""
    shown = (looker.page.locator("#secret").text_content() or "").strip()
    looker.page.get_by_role("button", name="Copy").click()
    expect(looker.page.get_by_role("button", name="Copied")).to_be_visible()
    assert looker.page.evaluate("navigator.clipboard.readText()") == shown
    return shown


def chat(house: House, key: str) -> int:
    """Return the status of a request with ``key``."""
    body = {"model": "qwen/qwen3-32b", "max_tokens": 3, "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{house.url}/v1/chat/completions", json=body, headers=headers, timeout=30).status_code


def test_a_key_is_made_changed_rotated_and_revoked(house: House, chromium: Browser) -> None:
    """A key works at once, keeps what was typed when something is wrong, and ends for good."""
    with looking(chromium, house, "team_admin") as looker:
        page = looker.page
        page.goto(f"{house.url}/console/keys/new")
        page.get_by_label("Name").fill("indexer")
        page.get_by_label("Requests per minute").fill("many")
        page.get_by_role("button", name="Make the key").click()
        expect(page.get_by_text("a whole number above 0")).to_be_visible()
        assert page.get_by_label("Name").input_value() == "indexer"
        looker.complaints.clear()  # the browser says that the form was answered with 400
        page.get_by_label("Requests per minute").fill("100")
        page.get_by_role("button", name="Make the key").click()
        first = secret(looker)
        assert chat(house, first) == 200
        page.get_by_role("link", name="To the key").click()
        address = page.url
        assert first not in page.content()
        page.get_by_label("Name").fill("crawler")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("heading", name="crawler")).to_be_visible()
        page.get_by_label("The old secret stops working").select_option("0")
        page.get_by_role("button", name="Rotate").click()
        second = secret(looker)
        assert (chat(house, first), chat(house, second)) == (401, 200)
        page.goto(address)
        key_id = address.rpartition("/")[2]
        page.get_by_label(f"Write {key_id} to revoke it for good").fill(key_id)
        page.get_by_role("button", name="Revoke").click()
        expect(page.get_by_text("The key is revoked")).to_be_visible()
        assert chat(house, second) == 401
        assert looker.complaints == []
    entries = house.do(house.stage.keeper.ask(AUDIT_LOG, (AuditQuestion(subject=key_id),)))
    assert [(entry.verb, entry.actor, entry.via) for entry in entries] == [
        ("change", "team_admin", "console"),
        ("change", "team_admin", "console"),
        ("change", "team_admin", "console"),
        ("create", "team_admin", "console"),
    ]


def test_a_change_that_somebody_else_made_meanwhile_is_noticed(house: House, chromium: Browser) -> None:
    """The second of two who edit the same key is told, and sees what they typed."""
    key = house.do(house.stage.new_key(MINE)).record.key_id
    with looking(chromium, house, "owner") as mine, looking(chromium, house, "admin") as theirs:
        for looker, name in ((mine, "by the owner"), (theirs, "by the admin")):
            looker.page.goto(f"{house.url}/console/keys/{key}")
            looker.page.get_by_label("Name").fill(name)
        mine.page.get_by_role("button", name="Save").click()
        expect(mine.page.get_by_text("Saved.")).to_be_visible()
        theirs.page.get_by_role("button", name="Save").click()
        expect(theirs.page.get_by_role("alert")).to_contain_text("somebody else changed this meanwhile")
        assert theirs.page.get_by_label("Name").input_value() == "by the admin"
    assert house.do(house.stage.keeper.key(key)).name == "by the owner"


def test_a_member_signs_in_with_the_password_that_was_shown_once(house: House, chromium: Browser) -> None:
    """A new member must choose a password of their own before anything else, and sees the team alone."""
    with looking(chromium, house, "owner") as looker:
        looker.page.goto(f"{house.url}/console/teams/{MINE}")
        looker.page.get_by_label("Login").fill("grace@example.org")
        looker.page.get_by_role("button", name="Add").click()
        password = secret(looker)
    with looking(chromium, house, "") as looker:
        page = looker.page
        page.goto(f"{house.url}/console/keys")
        page.get_by_label("Login").fill("grace@example.org")
        page.get_by_label("Password").fill("not this one at all")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("login or password is wrong")).to_be_visible()
        assert page.get_by_label("Login").input_value() == "grace@example.org"
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("Choose your own before you go on")).to_be_visible()
        page.get_by_label("Present password").fill(password)
        page.get_by_label("New password", exact=True).fill(PASSWORD)
        page.get_by_label("New password, once more").fill(PASSWORD)
        page.get_by_role("button", name="Change password").click()
        expect(page.get_by_text("Your password is changed")).to_be_visible()
        page.goto(f"{house.url}/console/teams")
        assert re.findall(r"/console/teams/([a-z-]+)", page.content()) == [MINE]
        page.goto(f"{house.url}/console/profile")
        page.get_by_role("button", name="Sign out", exact=True).first.click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.goto(f"{house.url}/console/keys")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_teams_budgets_and_users_are_made_and_ended(house: House, chromium: Browser) -> None:
    """What is typed becomes what the keeper has; a budget that exists is replaced only when that is said."""
    with looking(chromium, house, "owner") as looker:
        page = looker.page
        page.on("dialog", accept)
        page.goto(f"{house.url}/console/teams")
        page.get_by_label("Slug").fill("orbit")
        page.get_by_role("button", name="Make the team").click()
        expect(page.get_by_text("The team is made")).to_be_visible()
        for amount, wanted in (("12.50", "The budget binds"), ("20", "tick this to replace it")):
            page.goto(f"{house.url}/console/budgets")
            page.get_by_label("Team").select_option("orbit")
            page.get_by_label("Limit, USD").fill(amount)
            page.get_by_role("button", name="Set it").click()
            expect(page.get_by_text(wanted)).to_be_visible()
        page.get_by_label("tick this to replace it").check()
        page.get_by_role("button", name="Set it").click()
        expect(page.get_by_text("The budget binds")).to_be_visible()
        [state] = house.do(house.stage.keeper.ask(BUDGETS, ("orbit", None)))
        assert state.budget.limit_nano == 20_000_000_000
        page.get_by_role("row", name="team orbit").get_by_role("button", name="Delete").click()
        expect(page.get_by_text("The budget is deleted")).to_be_visible()
        assert not house.do(house.stage.keeper.ask(BUDGETS, ("orbit", None)))
        page.goto(f"{house.url}/console/users")
        page.get_by_label("Login").fill("linus@example.org")
        page.get_by_label("Role everywhere", exact=True).last.select_option("viewer")
        page.get_by_role("button", name="Make the user").click()
        secret(looker)
        page.get_by_role("row", name="linus@example.org").get_by_role("button", name="Switch off").click()
        expect(page.get_by_text("Saved.")).to_be_visible()
        [user] = [user for user in house.do(house.stage.keeper.ask(USERS)) if user.login == "linus@example.org"]
        assert user.disabled


def test_a_drained_backend_gets_nothing_until_it_is_enabled(house: House, chromium: Browser) -> None:
    """Draining shows at once and steers requests away; enabling brings it back."""
    replicas = house.stage.gateway.registry.fleet.replicas
    with looking(chromium, house, "admin") as looker:
        page = looker.page
        page.goto(f"{house.url}/console/fleet")
        page.locator("#gpu-a").get_by_role("button", name="Drain").click()
        expect(page.locator("#gpu-a .badge")).to_have_text("draining")
        before = replicas["gpu-a"].load.answers
        for _ in range(4):
            assert house.do(house.stage.chat(max_tokens=3)).status_code == 200
        assert replicas["gpu-a"].load.answers == before
        page.locator("#gpu-a").get_by_role("button", name="Enable").click()
        expect(page.locator("#gpu-a .badge")).to_have_text("ready")
        assert not replicas["gpu-a"].load.draining


def test_a_new_price_is_a_version(house: House, chromium: Browser) -> None:
    """A price without a reason is refused at its field; with one it holds for what comes after."""
    with looking(chromium, house, "admin") as looker:
        page = looker.page
        page.goto(f"{house.url}/console/models")
        page.get_by_label("Model", exact=True).select_option("qwen/qwen3-8b")
        page.get_by_label("Prompt", exact=True).fill("0.05")
        page.get_by_label("Completion").fill("cheap")
        page.get_by_label("Why").fill("a test")
        page.get_by_role("button", name="Make the version").click()
        assert page.get_by_label("Prompt", exact=True).input_value() == "0.05"
        page.get_by_label("Completion").fill("0.15")
        page.get_by_role("button", name="Make the version").click()
        expect(page.get_by_text("The price is a version now")).to_be_visible()
        expect(page.get_by_role("row", name="prompt 0.05; completion 0.15")).to_be_visible()


def test_the_playground_streams_side_by_side(house: House, chromium: Browser) -> None:
    """Two models answer at once, each with its cost, speed and route; markup in an answer stays text."""
    with looking(chromium, house, "team_admin") as looker:
        page = looker.page
        page.goto(f"{house.url}/console/playground?model=qwen/qwen3-32b&model=qwen/qwen3-8b")
        page.get_by_label("Prompt").fill("Say <b>hello</b>")
        page.get_by_label("Longest answer, tokens").fill("12")
        page.get_by_role("button", name="Send").click()
        lanes = page.locator("[data-lane]")
        assert lanes.count() == 2
        for number in range(2):
            expect(lanes.nth(number).locator("[data-facts]")).to_contain_text("Cost", timeout=20_000)
            facts = lanes.nth(number).locator("[data-facts]").text_content() or ""
            assert re.search(r"Cost\$0\.0\d+", facts), facts
            assert "tokens/s" in facts
            assert len((lanes.nth(number).locator("[data-answer]").text_content() or "").split()) > 3
        assert looker.complaints == []
    keys = [record for record in house.do(house.stage.keeper.keys(MINE)) if record.name.startswith("playground")]
    assert [record.name for record in keys] == ["playground of team_admin"]
    assert keys[0].expires_at is not None
