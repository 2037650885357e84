"""The mock that loads are tried on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from bench.load import Target
from bench.mock import Connection, Replica


@pytest.fixture
async def replica() -> Replica:
    """A replica without a server."""
    return Replica()


@pytest.fixture
async def target(replica: Replica) -> AsyncIterator[Target]:
    """The replica on a free port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(partial(Connection, replica, loop), "127.0.0.1", 0)
    yield Target("127.0.0.1", server.sockets[0].getsockname()[1], "/v1/chat/completions", "m", {})
    server.close()
    server.close_clients() if hasattr(server, "close_clients") else None
