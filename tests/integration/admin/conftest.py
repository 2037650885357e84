"""The management routes over a real keeper, behind an application that only renders errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from gateway.access.keys import KeyRing, digest
from gateway.access.management import ManagementKeys
from gateway.admin.keys.endpoints import build_router as keys_router
from gateway.admin.teams.endpoints import build_router as teams_router
from gateway.keeper.service import Keeper
from gateway.types.errors import WeirError
from tests.fakes.ledgers import furnish

PEPPER = b"pepper of the tests"
ADMIN = "the-management-key-of-these-tests-0123"


async def render(_: Request, error: Exception) -> JSONResponse:
    """Answer with the status and the facts of a ``WeirError``."""
    assert isinstance(error, WeirError)
    return JSONResponse({"error": {"code": error.code, "message": error.message, "param": error.param}}, error.code)


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    """A keeper with a real database."""
    furnish(tmp_path)
    keeper = Keeper(tmp_path, f"sqlite+aiosqlite:///{tmp_path / 'weir.db'}", PEPPER)
    await keeper.start()
    yield keeper
    await keeper.stop()


@pytest.fixture
async def ring(keeper: Keeper) -> KeyRing:
    """The inference keys, as a serving process has them."""
    ring = KeyRing(PEPPER)
    ring.load(await keeper.subscribe(ring.apply))
    return ring


@pytest.fixture
def app(keeper: Keeper, ring: KeyRing) -> FastAPI:
    """An application with the management routes."""
    management = ManagementKeys(PEPPER, digest(PEPPER, ADMIN.encode()), ring)
    app = FastAPI()
    app.include_router(keys_router(keeper, keeper, management))
    app.include_router(teams_router(keeper, management))
    app.add_exception_handler(WeirError, render)
    return app


@pytest.fixture
async def anyone(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A caller without a key."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://weir") as client:
        yield client


@pytest.fixture
async def operator(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A caller with the management key."""
    transport = httpx.ASGITransport(app)
    headers = {"authorization": f"Bearer {ADMIN}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://weir", headers=headers) as client:
        yield client
