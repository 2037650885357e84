"""Pytest fixtures: one real llama.cpp server of each kind for a whole test session; load as a plugin.

Failure behaviour: without the ``xllamacpp`` wheel the tests that ask for a server are skipped with the line
that installs it, and fail where ``CI=true``. A server that does not start fails the test that asked for it
first.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import Final

import pytest

from tests.engine.llama_server import LlamaServer
from tests.engine.tiny_qwen import SLOW, make_tiny_qwen

INSTALL_LINE: Final = "pip install 'xllamacpp>=2026.10'"


def require_engine() -> None:
    """Skip the running test when the engine is not installed; fail it where ``CI=true``."""
    if importlib.util.find_spec("xllamacpp") is not None:
        return
    message = f"needs the llama.cpp server: {INSTALL_LINE}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def chain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """A server that answers every chat with ``chain_server.model.expected_text``; 4 slots of 1,024 tokens."""
    require_engine()
    model = make_tiny_qwen(tmp_path_factory.mktemp("engine"), style="chain")
    with LlamaServer(model) as server:
        yield server


@pytest.fixture(scope="session")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """A server of some 150 tokens a second that never ends an answer by itself; 2 slots of 2,048 tokens.

    It reads a prompt at some 400 tokens a second in batches of 32, so that a client can leave in between.
    """
    require_engine()
    model = make_tiny_qwen(tmp_path_factory.mktemp("engine"), style="biased", shape=SLOW)
    with LlamaServer(model, n_parallel=2, n_ctx_slot=2048, n_batch=32) as server:
        yield server


@pytest.fixture(scope="session")
def tool_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """A server that calls a function whenever the request offers one; 4 slots of 1,024 tokens."""
    require_engine()
    model = make_tiny_qwen(tmp_path_factory.mktemp("engine"), style="tool")
    with LlamaServer(model) as server:
        yield server


@pytest.fixture(scope="session")
def embedding_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """A server with ``/v1/embeddings`` of 64 dimensions, whose vectors differ from text to text."""
    require_engine()
    model = make_tiny_qwen(tmp_path_factory.mktemp("engine"), style="random")
    with LlamaServer(model, embedding=True) as server:
        yield server
