"""What is vendored is what its manifest says, and everything pages name exists."""

from __future__ import annotations

import json
import re
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest

from dashboards import assets

ROOT = Path(__file__).parents[3]
VENDORS = [ROOT / "dashboards" / "static" / "vendor", ROOT / "tests" / "ui" / "vendor"]


@pytest.mark.parametrize("folder", VENDORS, ids=["pages", "tests"])
def test_vendored_files_are_named_with_version_licence_and_digest(folder: Path) -> None:
    """A file that was changed, added or left without its licence is found."""
    manifest = json.loads((folder / "manifest.json").read_text())
    named = {entry["file"] for entry in manifest} | {entry["licence_file"] for entry in manifest} | {"manifest.json"}
    assert named == {path.name for path in folder.iterdir()}
    for entry in manifest:
        assert sha256((folder / entry["file"]).read_bytes()).hexdigest() == entry["sha256"], entry["file"]
        assert entry["version"]
        assert entry["licence"]


def test_every_asset_that_a_template_names_exists() -> None:
    """No page asks for a file that is not there, and none loads anything from another site."""
    named = set()
    for template in (ROOT / "dashboards" / "templates").rglob("*.html"):
        text = template.read_text()
        named |= set(re.findall(r"static\('([^']+)'\)", text))
        assert not re.search(r"(src|href)=\"(https?:)?//", text), template.name
    assert {name for name in named if assets.asset(name) is None} == set()
    for script in (ROOT / "dashboards" / "static" / "js").glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script.read_text())


def test_only_files_of_the_package_are_served() -> None:
    """A path that leads out of the folder, or to a file of another kind, is no asset."""
    for name in ("../pages.py", "css/../../pages.py", "vendor/manifest.json", "no.css"):
        assert assets.asset(name) is None


def test_the_wheel_has_templates_and_static_files() -> None:
    """What is installed has pages too."""
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "dashboards" in built["packages"]
    assert not built.get("exclude")
