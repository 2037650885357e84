"""One house and one browser for all tests of pages: each costs seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.ui.house import House, opened
from tests.ui.look import browser, need_chromium


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with the demo's past of 90 days."""
    need_chromium()
    with opened(tmp_path_factory.mktemp("house")) as found:
        yield found


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium."""
    need_chromium()
    with browser() as found:
        yield found
