"""``weir upstream-keys``: a key is read from standard input, listed without itself, and revoked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app

SECRET = "sk-theirs-0123456789abcdef"


def test_a_key_is_added_listed_and_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a running keeper the commands work on the state folder; none prints the key."""
    monkeypatch.setenv("WEIR_HOME", str(tmp_path))
    monkeypatch.delenv("WEIR_CONFIG", raising=False)
    run = CliRunner()
    assert run.invoke(app, ["teams", "create", "search"]).exit_code == 0
    added = run.invoke(
        app, ["upstream-keys", "add", "acme", "--team", "search", "--required", "--json"], input=f"{SECRET}\n"
    )
    assert added.exit_code == 0, added.output
    identity = json.loads(added.output)["id"]
    listed = run.invoke(app, ["upstream-keys", "list", "--json"])
    [key] = json.loads(listed.output)
    assert (key["id"], key["team"], key["provider"], key["is_required"]) == (identity, "search", "acme", True)
    assert SECRET not in added.output + listed.output
    assert run.invoke(app, ["upstream-keys", "revoke", identity]).exit_code == 0
    assert json.loads(run.invoke(app, ["upstream-keys", "list", "--json"]).output) == []
