"""Compiled templates are kept, and believed only for the very source they were made of."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import jinja2
import pytest

from dashboards.compiled import Compiled

LOADED = AssertionError("it was compiled")


def said(folder: Path, source: str, *, trim_blocks: bool = False) -> str:
    """Return what a new process would make of a template."""
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page": source}),
        autoescape=True,
        trim_blocks=trim_blocks,
        bytecode_cache=Compiled(folder),
    )
    return environment.get_template("page").render(name="<you>")


@pytest.fixture(autouse=True)
def writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment of the tests says, here files are written."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


def test_a_template_is_compiled_once(tmp_path: Path) -> None:
    """The next process loads what the first one made; another source or other options are compiled anew."""
    folder = tmp_path / "kept"
    assert said(folder, "hello {{ name }}") == "hello &lt;you&gt;"
    with patch.object(jinja2.Environment, "compile", side_effect=LOADED):
        assert said(folder, "hello {{ name }}") == "hello &lt;you&gt;"
        with pytest.raises(AssertionError):
            said(folder, "bye {{ name }}")
        with pytest.raises(AssertionError):
            said(folder, "hello {{ name }}", trim_blocks=True)
    assert said(folder, "bye {{ name }}") == "bye &lt;you&gt;"


@pytest.mark.parametrize("damage", [b"", b"j2", b"not compiled", None])
def test_damage_is_compiled_anew(tmp_path: Path, damage: bytes | None) -> None:
    """A file that is no compiled template, or ends too early, is as if it were not there."""
    assert said(tmp_path, "{{ name }}") == "&lt;you&gt;"
    [kept] = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:-9] if damage is None else damage)
    assert said(tmp_path, "{{ name }}") == "&lt;you&gt;"


def test_a_folder_that_cannot_be_written_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that belongs to somebody else shows pages all the same, and so does one told to write nothing."""
    (tmp_path / "file").write_text("in the way")
    assert said(tmp_path / "file", "{{ name }}") == "&lt;you&gt;"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert said(tmp_path / "kept", "{{ name }}") == "&lt;you&gt;"
    assert not (tmp_path / "kept").exists()
