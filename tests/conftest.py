"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.fakes import statements
from tests.scheduling import Together, rank

pytest_plugins = ["tests.engine.fixtures", "tests.fakes.postgres"]

statements.share()

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("weir", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("weir")

# What is imported and collected stays: looking through it for garbage again and again takes as long as all else.
gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage in what tests make, and in nothing that was there before."""
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Let each of several workers begin to collect elsewhere: what one has compiled the others only load."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None and config.args == ["tests"]:
        files = sorted(map(str, Path("tests").rglob("test_*.py")))
        first = int(worker["workerid"].removeprefix("gw")) * len(files) // worker["workercount"]
        config.args[:] = files[first:] + files[:first]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first, the same on every worker; the order within a file stays."""
    items.sort(key=lambda item: (rank(item.nodeid), item.nodeid.partition("::")[0]))


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
