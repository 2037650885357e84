"""Fixtures that every test may use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tests.scheduling import Together, rank

pytest_plugins = ["tests.engine.fixtures", "tests.fakes.postgres"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first; the order within a file stays."""
    items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Keep files and houses whole."""
    return Together(config, log)


@pytest.fixture
def whole_day() -> None:
    """Wait out the last minute of a UTC day: for tests in which today must not become yesterday."""
    left = 86_400 - time.time() % 86_400
    if left < 60:
        time.sleep(left + 1)


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """Undo what a test configured: a level that stays hides from the next test what it listens for."""
    yield
    structlog.reset_defaults()
