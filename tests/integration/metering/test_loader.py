"""A house full of books, to measure speeds of pages on: it holds what the shipper would have written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import loader


def test_a_loaded_house_agrees_with_itself_and_is_not_loaded_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ledger, rollups, totals and tallies pass the audit; a folder that has a ledger is left alone."""
    asked = ["loader", "--home", str(tmp_path / "house"), "--rows", "1500", "--days", "2", "--keys", "6", "--audit"]
    monkeypatch.setattr("sys.argv", asked)
    assert loader.main() == 0
    told = json.loads(capsys.readouterr().out)
    assert told["audit_ok"] is True
    assert 1_300 < told["rows"] <= 1_500
    assert loader.main() == 1
    assert "already" in capsys.readouterr().err
