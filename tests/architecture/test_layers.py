"""The import contracts cover everything, and bite."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def contracts() -> list[dict[str, Any]]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return list(document["tool"]["importlinter"]["contracts"])


def test_every_module_has_a_layer() -> None:
    """A new top-level module cannot escape the contract by not being named in it."""
    named = {name.strip() for layer in contracts()[0]["layers"] for name in layer.split("|")}
    found = {"policies", "dashboards"} | {
        f"gateway.{path.stem}"
        for path in (ROOT / "gateway").iterdir()
        if path.name not in {"__init__.py", "__pycache__"} and (path.is_dir() or path.suffix == ".py")
    }
    assert found == named


def test_no_contract_has_an_exemption() -> None:
    """Exemptions rot: there is none."""
    assert not [name for contract in contracts() for name in contract if name.startswith(("ignore", "unmatched"))]


def test_an_import_upwards_is_found(tmp_path: Path) -> None:
    """The linter fails when a leaf imports the edge."""
    for package in ("gateway", "policies", "dashboards"):
        for path in (ROOT / package).rglob("*.py"):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(path.read_text())
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    leaf = tmp_path / "gateway" / "types" / "ids.py"
    leaf.write_text(leaf.read_text() + "\nfrom gateway.edge import native\n")
    linter = Path(sys.executable).with_name("lint-imports")
    outcome = subprocess.run(
        [linter, "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert outcome.returncode == 1
    assert "gateway.types is not allowed to import gateway.edge" in outcome.stdout
