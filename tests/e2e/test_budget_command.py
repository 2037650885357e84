"""``weir budgets``: setting, listing, deleting and releasing, without a running gateway."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.processes import WEIR, environment, run


def test_budgets_are_managed_from_the_command_line(tmp_path: Path) -> None:
    """What was set is listed with where it stands; nonsense is refused with the mend; deleting ends it."""
    environ = environment(tmp_path / "home")

    def weir(*arguments: str, status: int = 0) -> str:
        done = run([WEIR, "budgets", *arguments], environ)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    weir("set", "2.50", "--team", "default", "--window", "weekly", "--alert", "75")
    assert "1e3" in weir("set", "1e3", "--team", "default", status=1)
    [found] = json.loads(weir("list", "--json"))
    assert (found["limit_usd"], found["remaining_usd"], found["hard"], found["alerts"]) == ("2.5", "2.5", True, [75])
    assert "no host" in weir("release", "nobody", "--yes", status=1)
    weir("delete", found["id"])
    assert json.loads(weir("list", "--json")) == []


def test_budgets_of_revoked_keys_are_listed_when_asked_for(tmp_path: Path) -> None:
    """The usual list has those that hold; the others are named, and marked where all of one key are listed."""
    environ = environment(tmp_path / "home")

    def weir(*arguments: str) -> str:
        done = run([WEIR, *arguments], environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    weir("keys", "create", "--name", "short")
    [key] = [each["key_id"] for each in json.loads(weir("keys", "list", "--json")) if each["name"] == "short"]
    weir("budgets", "set", "1", "--key", key)
    assert json.loads(weir("budgets", "list", "--revoked", "--json")) == []
    weir("keys", "revoke", key)
    assert json.loads(weir("budgets", "list", "--json")) == []
    for asked in (("--revoked",), ("--key", key), ("--revoked", "--key", key)):
        [found] = json.loads(weir("budgets", "list", *asked, "--json"))
        assert (found["key"], found["revoked"]) == (key, True)
    assert f"key {key} (revoked)" in " ".join(weir("budgets", "list", "--revoked").split())
