"""The watch over a caller's connection where the system does not tell what the caller's side has acknowledged."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.edge.native import Road, WeirProtocol
from tests.fakes.transport import FakeTransport

LIMIT = 0.02


async def application(_scope: Any, _receive: Any, _send: Any) -> None:
    """Nobody is asked here."""


async def test_who_took_everything_is_not_held_to_what_waits_by_chance_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some bytes wait at two looks, more at the second; between them nothing did, and nothing was paused."""
    monkeypatch.setattr("gateway.edge.clocks._LINUX", False)
    loop = asyncio.get_running_loop()
    config = Config(application, log_config=None, lifespan="off", ws="none", access_log=False)
    protocol = WeirProtocol(config, ServerState(), {}, loop, road=Road(write_timeout=LIMIT))
    transport = FakeTransport(loop, protocol)
    protocol.connection_made(transport)
    transport.fill = 70_000
    protocol.pause_writing()
    transport.fill = 0
    protocol.resume_writing()
    for waiting in (5_000, 6_000, 7_000):
        transport.fill = waiting
        await asyncio.sleep(2 * LIMIT)
    assert not transport.aborted
    protocol.pause_writing()
    async with asyncio.timeout(30):
        while not transport.aborted:
            await asyncio.sleep(LIMIT)
    transport.lose()
