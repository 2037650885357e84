"""Tests of the whole gateway run on the event loop that it runs on."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """Use uvloop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def litellm() -> None:
    """Skip without the library, which takes two seconds to import: only who runs its tests does so."""
    pytest.importorskip("litellm", reason='pip install "weir-gateway[litellm]"')
