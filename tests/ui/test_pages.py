"""Every page in a real browser: nothing is refused by the policy, nothing breaks, nobody is shut out."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter

import pytest
from playwright.sync_api import Browser, expect

from gateway.billing.methods import CLOSE, PERIODS
from gateway.types.keys import NewKey
from tests.ui.house import House
from tests.ui.look import looking
from tests.ui.places import expected_status, places

PARTS = 3
"""All pages together take longer than a test may on a busy machine."""


@pytest.mark.parametrize("part", range(PARTS))
def test_no_page_breaks_the_policy_complains_or_shuts_anybody_out(house: House, chromium: Browser, part: int) -> None:
    """CSP breaches, console errors and serious findings of axe-core: none, on any page."""
    found: dict[str, list[str]] = {}
    for role, group in groupby(places(house)[part::PARTS], key=itemgetter(0)):
        with looking(chromium, house, role) as looker:
            for _, path in group:
                looker.complaints.clear()
                answer = looker.page.goto(house.url + path)
                assert answer is not None
                expected = expected_status(role, path)
                assert answer.status == expected, (role, path, answer.status)
                complaints = [each for each in looker.complaints if expected == 200 or "Failed to load" not in each]
                if problems := complaints + looker.axe():
                    found[f"{role} {path}"] = problems
    assert found == {}


def test_dark_colours_and_phone_width_hold_up(house: House, chromium: Browser) -> None:
    """The pages with most on them: no finding in the dark, and none wider than a phone."""
    for path in ("/console", "/console/activity", "/console/fleet", "/console/audit", "/console/models"):
        with looking(chromium, house, "owner", size="phone", theme="dark") as looker:
            looker.page.goto(f"{house.url}{path}")
            assert looker.axe() == [], path
            assert looker.too_wide() <= 0, path
            looker.page.locator(".drawer summary").click()
            assert looker.page.get_by_role("navigation", name="Main, small screens").is_visible()


def test_a_closed_period_fits_on_a_phone(house: House, chromium: Browser) -> None:
    """Its digest is one word of 64 letters, which breaks where the line ends."""
    oldest = min(each.period for each in house.do(house.stage.keeper.ask(PERIODS)))
    house.do(house.stage.keeper.ask(CLOSE, (oldest,)))
    with looking(chromium, house, "owner", size="phone") as looker:
        looker.page.goto(f"{house.url}/console/billing/{oldest}")
        assert looker.page.get_by_text("Digest of all statements").is_visible()
        assert looker.too_wide() <= 0


def test_names_without_a_space_fit_on_a_phone(house: House, chromium: Browser) -> None:
    """The longest slug, and a name that is one word, break in the head of their page."""
    slug, name = "u" * 64, "unbroken" * 12
    house.do(house.stage.keeper.ensure_team(slug, name))
    key = house.do(house.stage.keeper.create_key(NewKey(name, slug))).record.key_id
    with looking(chromium, house, "owner", size="phone") as looker:
        for path in (f"teams/{slug}", f"keys/{key}"):
            looker.page.goto(f"{house.url}/console/{path}")
            assert looker.page.locator("h1").text_content() == name
            assert looker.too_wide() <= 0, path


def test_reports_of_the_lab_fit_on_a_phone(house: House, chromium: Browser) -> None:
    """What is wider than the window scrolls by itself, reached by the keyboard too; the page stays where it is."""
    with looking(chromium, house, "owner", size="phone") as looker:
        looker.page.goto(f"{house.url}/console/routing/lab/bars.html")
        assert looker.page.locator("h1").text_content()
        assert looker.too_wide() <= 0
        assert looker.complaints == []


def test_figures_are_live_and_only_what_changes_is_sent(house: House, chromium: Browser) -> None:
    """One stream a page: today's sums arrive without a reload, and a request that is answered moves them."""
    with looking(chromium, house, "owner") as looker:
        looker.page.goto(f"{house.url}/console")
        looker.page.wait_for_selector('[data-live-source][data-state="on"]')
        # Asked by the browser's library: what a page would evaluate later than at once is refused by the policy.
        place = looker.page.locator('[data-live="today.tokens"]').first
        expect(place).not_to_have_text("…")
        before = place.text_content()
        assert before
        answer = house.do(house.stage.chat(max_tokens=5))
        assert answer.status_code == 200
        expect(place).not_to_have_text(before, timeout=20_000)
        assert looker.complaints == []


def test_charts_tell_exact_numbers(house: House, chromium: Browser) -> None:
    """A hover shows the day with each part; the table behind has the same for who cannot see it."""
    with looking(chromium, house, "owner") as looker:
        looker.page.goto(f"{house.url}/console")
        looker.page.locator(".plot").first.hover()
        tip = looker.page.locator(".tip").first
        assert tip.is_visible()
        label = tip.locator(".tip-head").text_content()
        looker.page.get_by_text("Show the numbers").click()
        row = looker.page.locator(".chart-table tbody tr", has_text=label or "none")
        assert row.is_visible()
        assert tip.locator(".total span").last.text_content() == row.locator("td").first.text_content()


def test_the_look_is_kept(house: House, chromium: Browser) -> None:
    """The switch works without scripts: a link's query and a cookie."""
    with looking(chromium, house, "owner") as looker:
        looker.page.goto(f"{house.url}/console/keys?sort=name")
        looker.page.get_by_role("button", name="Dark colours").click()
        assert looker.page.url.endswith("/console/keys?sort=name")
        assert looker.page.locator("html").get_attribute("data-theme") == "dark"
        looker.page.goto(f"{house.url}/console/teams")
        assert looker.page.locator("html").get_attribute("data-theme") == "dark"
        looker.page.goto(f"{house.url}/console/teams?theme=light")
        assert looker.page.locator("html").get_attribute("data-theme") == "light"
