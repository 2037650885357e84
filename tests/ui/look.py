"""Looking at a page with Debian's Chromium: what the browser complained of, and what axe-core found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.ui.house import House

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
CHROMIUM = "/usr/bin/chromium"
INSTALL = "Chromium is missing: apt-get install chromium"
SIZES = {"desktop": (1366, 900), "phone": (390, 844)}


def need_chromium() -> None:
    """Skip where there is no Chromium, but fail where everything has to be there."""
    if not (Path(CHROMIUM).exists() or shutil.which("chromium")):
        if os.environ.get("CI") == "true":
            pytest.fail(INSTALL)
        pytest.skip(INSTALL)


@contextmanager
def browser() -> Iterator[Browser]:
    """Run Chromium for the block."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM if Path(CHROMIUM).exists() else shutil.which("chromium"), args=["--no-sandbox"]
        )
        yield found
        found.close()


@dataclass(slots=True)
class Looker:
    """A browser's window that is signed in as a role.

    Attributes:
        complaints: errors that the browser wrote to its console, defects of scripts, breaches of the policy.
    """

    page: Page
    context: BrowserContext
    complaints: list[str] = field(default_factory=list)

    def axe(self) -> list[str]:
        """Return the serious and critical findings of axe-core on the page as it is now."""
        # Evaluated by the debugger, to which the page's policy does not apply; the page itself could not.
        self.page.evaluate(AXE.read_text())
        found: dict[str, Any] = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{each['id']} ({len(each['nodes'])}): {each['nodes'][0]['html'][:160]} "
            f"{each['nodes'][0].get('failureSummary', '')[:200]}"
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
        ]

    def too_wide(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        width: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return width


@contextmanager
def looking(running: Browser, house: House, role: str, *, size: str = "desktop", theme: str = "") -> Iterator[Looker]:
    """Open a window for the block; ``role`` ``""`` has not signed in."""
    width, height = SIZES[size]
    context = running.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
        reduced_motion="reduce",
    )
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=house.url)
    if role:
        context.add_cookies([{"name": "weir_session", "value": house.tokens[role], "url": house.url}])
    page = context.new_page()
    looker = Looker(page, context)

    def said(message: ConsoleMessage) -> None:
        if message.type == "error" or "Content Security Policy" in message.text:
            looker.complaints.append(message.text)

    page.on("console", said)
    page.on("pageerror", lambda error: looker.complaints.append(str(error)))
    try:
        yield looker
    finally:
        context.close()
