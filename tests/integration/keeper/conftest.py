"""Keepers under test: in this process, and as processes of their own that can be killed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.keeper.client import KeeperClient
from gateway.keeper.process import serving
from gateway.keeper.service import Keeper
from tests.fakes.ledgers import furnish
from tests.integration.keeper.processes import PEPPER, Connect, Processes, url_of


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose path is short enough for a socket."""
    return tmp_path_factory.mktemp("h")


@pytest.fixture
async def keeper(home: Path) -> AsyncIterator[Keeper]:
    """A keeper in this process, serving its socket."""
    furnish(home)
    async with serving(home, url_of(home), PEPPER) as keeper:
        yield keeper


@pytest.fixture
def connect(home: Path) -> Connect:
    """Clients of the keeper of ``home``."""

    @asynccontextmanager
    async def connected(patience: float = 1.0) -> AsyncIterator[KeeperClient]:
        client = KeeperClient(home, patience=patience)
        await client.start(wait=30.0)
        try:
            yield client
        finally:
            await client.stop()

    return connected


@pytest.fixture
async def client(keeper: Keeper, connect: Connect) -> AsyncIterator[KeeperClient]:
    """A client of the keeper of this process."""
    async with connect() as client:
        yield client


@pytest.fixture
def processes(home: Path) -> Iterator[Processes]:
    """Starts processes over ``home``."""
    processes = Processes(home)
    yield processes
    processes.end()
