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
