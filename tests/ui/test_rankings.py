"""The rankings and the page of a model in a real browser."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, expect

from tests.ui.house import House
from tests.ui.look import looking


def whole(text: str) -> int:
    """Return a number that is written with separators."""
    return int(re.sub(r"\D", "", text))


def test_dark_colours_and_phone_width_hold_up(house: House, chromium: Browser) -> None:
    """No finding in the dark, no complaint, and nothing wider than a phone."""
    with looking(chromium, house, "", size="phone", theme="dark") as looker:
        for path in ("/rankings?days=90", "/models/qwen/qwen3-32b"):
            looker.page.goto(house.url + path)
            assert looker.complaints + looker.axe() == [], path
            assert looker.too_wide() <= 0, path


def test_a_day_is_read_by_pointer_and_by_keyboard(house: House, chromium: Browser) -> None:
    """Both show the exact numbers of the table behind the chart, which add up to the total."""
    with looking(chromium, house, "") as looker:
        page = looker.page
        page.goto(f"{house.url}/rankings?days=30")
        page.locator(".plot").first.hover()
        tip = page.locator(".tip").first
        assert tip.is_visible()
        numbers = [whole(each) for each in tip.locator(".tip-line span:last-child").all_text_contents()]
        assert len(numbers) > 3
        assert sum(numbers[:-1]) == numbers[-1]
        page.mouse.move(0, 0)
        assert not tip.is_visible()
        page.locator(".plot").first.focus()
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        day = tip.locator(".tip-head").text_content()
        page.get_by_text("Show the numbers").first.click()
        row = page.locator(".chart-table tbody tr").nth(-2)
        assert row.locator("th").text_content() == day


def test_the_counter_of_today_moves_without_a_reload(house: House, chromium: Browser) -> None:
    """A request that is answered is in it some seconds later."""
    with looking(chromium, house, "") as looker:
        looker.page.goto(f"{house.url}/rankings")
        place = looker.page.locator('[data-count="tokens"]')
        before = place.text_content() or ""
        assert house.do(house.stage.chat(max_tokens=5)).status_code == 200
        expect(place).not_to_have_text(before, timeout=30_000)
        assert whole(place.text_content() or "") > whole(before)
        assert looker.complaints == []


def test_the_picture_shows_on_the_page_and_by_itself(house: House, chromium: Browser) -> None:
    """It loads as an image under the page's policy, and its own policy lets its one style through."""
    with looking(chromium, house, "") as looker:
        looker.page.goto(f"{house.url}/rankings?days=7")
        looker.page.locator(".preview").scroll_into_view_if_needed()
        expect(looker.page.locator(".preview")).to_have_js_property("naturalWidth", 1200)
        looker.page.goto(f"{house.url}/rankings/chart.svg?days=7&theme=dark")
        fill = looker.page.evaluate("getComputedStyle(document.querySelector('.bg')).fill")
        assert fill == "rgb(18, 25, 24)"
        assert looker.complaints == []


def test_every_view_is_a_link(house: House, chromium: Browser) -> None:
    """Clicks change the URL, and the URL alone brings the same page back."""
    with looking(chromium, house, "") as looker:
        page = looker.page
        page.goto(f"{house.url}/rankings")
        page.get_by_role("link", name="Authors").click()
        page.get_by_role("link", name="Requests").click()
        page.get_by_role("link", name="7 days").click()
        assert re.search(r"by=author.*measure=requests.*days=7", page.url)
        first = page.locator(".board tbody").text_content()
        page.goto(page.url)
        assert page.locator(".board tbody").text_content() == first
        page.get_by_role("link", name="Models").click()
        page.locator(".board tbody th a").first.click()
        assert "/models/" in page.url
