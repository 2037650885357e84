"""Docs are code: every folder, setting, key, error and link in them is checked against the program."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from gateway.cli import app
from gateway.config.reference import environment_reference, file_reference
from gateway.edge.inference import PATHS
from gateway.engines.reference import profile_reference
from gateway.settings import Settings
from gateway.types import errors

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"(?m)(?:^(?:\.venv/bin/)?|`(?:\.venv/bin/)?)weir ((?:[^`\n\\]|\\\n)+)")
PROCESSES = ("worker", "keeper")
"""What ``ps`` calls processes; no commands."""
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\n") if name and (ROOT / name).exists()]


def test_the_architecture_page_names_every_folder_and_no_other() -> None:
    """A stranger finds any folder on one page, and none that is gone."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"^\| `([^`]+)` \|", page.partition("## Every folder")[2], re.MULTILINE))
    folders = {str(Path(name).parent) for name in tracked() if "/" in name}
    folders |= {str(parent) for name in folders for parent in Path(name).parents if str(parent) != "."}
    found = {name for name in folders if not name.startswith(("tests/", "."))}
    assert named == found


def test_every_file_named_in_the_architecture_page_exists() -> None:
    """The stops of a request lead to files."""
    page = (ROOT / "docs" / "architecture.md").read_text().partition("## Layers")[0]
    folder = Path("gateway")
    for name in re.findall(r"`([a-z_/]+\.py)`", page):
        path = Path(name) if "/" in name else folder / name
        assert (ROOT / path).exists() or any((ROOT / "gateway").rglob(name)), name
        folder = path.parent


def test_the_layers_in_the_docs_are_the_layers_that_are_enforced() -> None:
    """The page and the contract cannot drift apart."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    shown = page.partition("```\n")[2].partition("```")[0].split("\n")
    contract = (ROOT / "pyproject.toml").read_text().partition("layers = [")[2].partition("]")[0]
    assert [line.strip() for line in shown if line.strip()] == re.findall(r'"([^"]+)"', contract)


@pytest.mark.parametrize(
    ("title", "made"), [("file", file_reference()), ("environment", environment_reference(Settings))]
)
def test_every_key_and_variable_is_documented(title: str, made: str) -> None:
    """The reference is what the schema says, word for word."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert f"<!-- {title} reference: made by gateway/config/reference.py -->\n{made}\n<!-- end -->" in page


def test_every_error_and_inference_path_is_documented() -> None:
    """A caller can look up each status and error type it may meet."""
    page = (ROOT / "docs" / "api.md").read_text()
    documented = set(re.findall(r"^\| (\d{3}) \| `([a-z_]+)` \|", page, re.MULTILINE))
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.WeirError) and kind is not errors.WeirError
    ]
    assert len(kinds) > 8
    assert {(str(kind.status), kind.error_type) for kind in kinds} <= documented
    for path in PATHS:
        assert f"POST {path.decode()}" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """No link of the documentation is dead."""
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_no_file_names_a_package_index_or_a_path_of_one_machine() -> None:
    """The project installs from wherever its user installs from."""
    hosts = ["pypi" + ".org", "files.python" + "hosted", "registry.npm" + "js", "/work" + "/main"]
    for name in tracked():
        if (ROOT / name).is_file() and not name.endswith((".png", ".gz")):
            text = (ROOT / name).read_text(errors="replace")
            assert not [host for host in hosts if host in text], name


def test_the_table_of_external_apis_is_made_from_their_profiles() -> None:
    """``docs/upstreams.md`` shows what the profiles say, row by row."""
    page = (ROOT / "docs" / "upstreams.md").read_text()
    assert f"<!-- profiles: made by gateway/engines/reference.py -->\n{profile_reference()}<!-- end -->" in page


def named_command(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that ``words`` name and the words behind it. Raises ``KeyError``: there is no such command."""
    found: Any = get_command(app)
    while hasattr(found, "commands") and words and not words[0].startswith("-"):
        found, words = found.commands[words[0]], words[1:]
    return found, words


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_command_and_option_in_the_docs_exists(page: Path) -> None:
    """What a page tells a reader to type is known to the program."""
    unknown: list[str] = []
    for text in COMMAND.findall(page.read_text()):
        words = text.partition("#")[0].split("|")[0].replace("\\\n", " ").split()
        if words[0] in PROCESSES or "…" in words:
            continue
        try:
            command, rest = named_command(words)
        except KeyError:
            unknown.append(text)
            continue
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        typed = {
            re.split(r"[=,.;:)\]]", word)[0] for word in (each.strip("[") for each in rest) if word.startswith("--")
        }
        if typed - options - {"--help"}:
            unknown.append(text)
    assert unknown == []
