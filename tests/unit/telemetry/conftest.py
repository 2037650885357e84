"""Logs set up for one test, and everything put back after it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from io import StringIO

import pytest
import structlog

from gateway.telemetry import logs, redaction

TOUCHED = ("alembic", "gateway", "uvicorn", "uvicorn.error", "uvicorn.access")


@pytest.fixture
def log_state() -> Iterator[None]:
    """Restore the logging of the process afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    before = {
        name: (known.level, known.propagate, list(known.handlers))
        for name in TOUCHED
        for known in [logging.getLogger(name)]
    }
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, (was, propagate, had) in before.items():
        known = logging.getLogger(name)
        known.setLevel(was)
        known.propagate = propagate
        known.handlers[:] = had
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    logs._processors.clear()
    redaction._known.clear()
    redaction.conceal(())


@pytest.fixture
def lines(log_state: None) -> StringIO:
    """Return the stream of logs configured as JSON at level ``debug``."""
    stream = StringIO()
    logs.configure("debug", "json", stream)
    return stream
