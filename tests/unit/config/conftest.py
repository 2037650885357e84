"""A valid configuration file and the means to load changed ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import load
from gateway.config.problem import ConfigError
from gateway.config.snapshot import ConfigSnapshot
from tests.unit.config.example import ENVIRON, EXAMPLE, PRESETS, Loader, Refuser


@pytest.fixture
def example() -> str:
    """The text of a valid file that uses every section."""
    return EXAMPLE


@pytest.fixture
def accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """Load a text as ``weir.yaml`` of the current folder."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str) -> ConfigSnapshot:
        Path("weir.yaml").write_text(text, encoding="utf-8")
        return load("weir.yaml", presets=PRESETS, environ=ENVIRON)

    return load_text


@pytest.fixture
def refuse(accept: Loader) -> Refuser:
    """Load a text that must be refused and return the problems as they are shown."""

    def refuse_text(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            accept(text)
        assert str(caught.value) == "\n".join(problem.render() for problem in caught.value.problems)
        return [problem.render() for problem in caught.value.problems]

    return refuse_text
