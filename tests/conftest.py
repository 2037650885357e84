"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

pytest_plugins = ["tests.engine.fixtures", "tests.fakes.postgres"]


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """Undo what a test configured: a level that stays hides from the next test what it listens for."""
    yield
    structlog.reset_defaults()
