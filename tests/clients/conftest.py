"""Fixtures of the tests with official clients, and what is known of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.house import REAL, REAL_TOOLS, House, open_house
from tests.clients.shows import SHOWN, WHOLE
from tests.engine.llama_server import LlamaServer

FOLDER = Path(__file__).parent


@pytest.fixture(scope="session")
def house(
    tmp_path_factory: pytest.TempPathFactory, chain_server: LlamaServer, tool_server: LlamaServer
) -> Iterator[House]:
    """One gateway for all clients."""
    real = {REAL: chain_server.url, REAL_TOOLS: tool_server.url}
    with open_house(tmp_path_factory.mktemp("clients"), real) as running:
        yield running


@pytest.hookimpl(tryfirst=True)  # before a choice by -k or -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note what all tests show, in the order of their files."""
    known = sorted((item for item in items if item.path.parent == FOLDER), key=lambda item: item.path.name)
    config.stash[SHOWN] = {mark.args: "pass" for item in known for mark in item.iter_markers("shows")}
    config.stash[WHOLE] = {item.path for item in known} == set(FOLDER.glob("test_*.py")) and not any(
        "::" in argument for argument in config.args
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "shows(client, endpoint, what): what of docs/compatibility.md the test shows")
