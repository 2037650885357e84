"""Whatever a file holds, loading it gives a snapshot or a ConfigError with problems."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.field import Section
from gateway.config.load import load
from gateway.config.problem import ConfigError
from gateway.config.snapshot import ConfigSnapshot
from tests.unit.config.example import ENVIRON, EXAMPLE, PRESETS

KNOWN_KEYS = sorted({name for section in Section.__subclasses__() for name in section.model_fields})
words = st.sampled_from(
    [*KNOWN_KEYS, "gpu-a", "gpu-b", "own", "vllm", "embedder", "0.10", "http://10.0.0.1", "${X}", "10.0.0.0/8", "file"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=4), inner, max_size=6),
    max_leaves=25,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that every example of a property overwrites."""
    return tmp_path_factory.mktemp("fuzz") / "weir.yaml"


def outcome(path: Path, content: bytes) -> ConfigSnapshot | ConfigError:
    """Load ``content``; anything but a snapshot or a ConfigError escapes."""
    path.write_bytes(content)
    try:
        return load(path, presets=PRESETS, environ=ENVIRON)
    except ConfigError as error:
        refusal = error
    assert refusal.problems
    for problem in refusal.problems:
        assert problem.message
        assert problem.mend
        assert "\n" not in problem.render()
    return refusal


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container of ``tree`` with each of its keys."""
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys):
        yield tree, key
        yield from places(tree[key])


@settings(deadline=None)
@given(trees)
def test_any_tree(path: Path, tree: object) -> None:
    """Any tree of YAML values is judged, never crashed on."""
    outcome(path, yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", errors="replace"))


@settings(deadline=None)
@given(st.data())
def test_any_change_of_a_good_file(path: Path, data: st.DataObject) -> None:
    """A good file with up to three values replaced, removed or moved is judged, never crashed on."""
    tree = copy.deepcopy(yaml.safe_load(EXAMPLE))
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = data.draw(st.sampled_from(list(places(tree))))
        if data.draw(st.booleans()):
            holder[key] = data.draw(trees)
        else:
            del holder[key]
        if not list(places(tree)):
            break
    outcome(path, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", errors="replace"))


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes(path: Path, content: bytes) -> None:
    """Any content of the file is judged, never crashed on."""
    outcome(path, content)


@settings(deadline=None)
@given(st.text(alphabet="ab:-,{}[]&*!|>'\"%@`#?~ \n\t\\0", max_size=60))
def test_any_punctuation(path: Path, text: str) -> None:
    """Any jumble of YAML's own characters is judged, never crashed on."""
    outcome(path, text.encode())


def test_unchanged_file_is_good(path: Path) -> None:
    """The file that is changed above is accepted as it stands."""
    assert isinstance(outcome(path, EXAMPLE.encode()), ConfigSnapshot)
