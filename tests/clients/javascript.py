"""Node and the packages of ``tests/clients/node``, as locked there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.processes import tool

FOLDER: Final = Path(__file__).parent / "node"


def node() -> str:
    """Return Node's path; without it or the packages skip the test, or fail it when CI=true."""
    path = tool("node")
    if not (FOLDER / "node_modules").is_dir():
        mend = f"the clients for Node are missing: npm ci --prefix {FOLDER.relative_to(Path(__file__).parents[2])}"
        assert os.environ.get("CI") != "true", mend
        pytest.skip(mend)
    return path
