"""A gateway that cannot start says why and ends; the event loop it was started on lives on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.metering.journal import Journal
from tests.harness import Backend, configuration, staged

CONFIG = configuration([Backend("gpu-a", "http://127.0.0.1:9")])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(OSError("no room for a journal"), "cannot start: no room for a journal", id="expected"),
        pytest.param(ZeroDivisionError("by nought"), "ZeroDivisionError: by nought", id="defect"),
    ],
)
async def test_a_gateway_that_cannot_start_says_why_at_once(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason reaches whoever waits for the start, and afterwards a gateway can be started on the same loop."""

    def fails(*_: object, **__: object) -> Journal:
        raise error

    async with asyncio.timeout(20):
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "create", fails)
            with pytest.raises(RuntimeError, match=reason):
                async with staged(tmp_path / "failed", CONFIG):
                    pytest.fail("it started")
        async with staged(tmp_path / "well", CONFIG) as stage:
            assert (await stage.http.get(f"{stage.url}/health")).status_code == 200


async def test_sizes_for_traces_that_cannot_be_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry's own variables are refused in a sentence that says whose they are, not in a traceback."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "0")
    with pytest.raises(RuntimeError, match=r"cannot start: what OTEL_\* .*max_queue_size must be a positive integer"):
        async with staged(tmp_path, CONFIG, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9"):
            pytest.fail("it started")
