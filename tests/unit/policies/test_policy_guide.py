"""``docs/policies.md`` says what is true, and its example works as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from gateway.routing.interface import Parts
from gateway.routing.pipeline import decide
from gateway.routing.registry import PolicyRegistry
from policies import BUILTIN, PRESETS
from tests.fakes.fleet import backend, candidates, route_request

PAGE = (Path(__file__).parents[3] / "docs" / "policies.md").read_text()
PARTS = [*BUILTIN.filters, *BUILTIN.scorers, *BUILTIN.tiers, *BUILTIN.pickers]


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def section(part: object) -> str:
    """Return the section of a part, in the chapter of its kind."""
    kind = next(kind for kind in ("scorers", "tiers", "pickers", "filters") if part in getattr(BUILTIN, kind))
    chapter = PAGE.partition(f"\n## {kind.capitalize()}\n")[2].partition("\n## ")[0]
    name: str = part.name  # type: ignore[attr-defined]  # a ``PartClass``
    found = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", chapter, flags=re.DOTALL | re.MULTILINE)
    assert found is not None, f"docs/policies.md has no section on {name} among its {kind}"
    return found[1]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_part_has_a_section_with_its_parameters(part: type) -> None:
    """Each filter, scorer and picker is described, each parameter with its default."""
    text = section(part)
    parameters = part.parameters  # type: ignore[attr-defined]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, flags=re.MULTILINE))
    assert rows == {
        name: str(default)
        for name, default in zip(parameters.__struct_fields__, parameters.__struct_defaults__, strict=True)
    }
    if not rows:
        assert "No parameters." in text


def test_there_is_no_section_on_what_does_not_exist() -> None:
    """A part that is removed takes its section with it."""
    assert set(re.findall(r"^### (\w+)$", PAGE, flags=re.MULTILINE)) == {part.name for part in PARTS}


def test_every_preset_is_described() -> None:
    """The table of presets is the folder of presets, with the same words."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", PAGE.split("## Filters")[0], flags=re.MULTILINE))
    made = PolicyRegistry(BUILTIN).load(PRESETS)
    assert set(rows) == set(made)
    assert all(rows[name].startswith(policy.description) for name, policy in made.items())


def test_the_example_is_one_file_and_one_line() -> None:
    """The class, the line and the preset of the page, put together, prefer the replicas they should."""
    source, line = blocks("python")
    module = ModuleType("tag")
    exec(compile(source, "tag.py", "exec"), module.__dict__)
    names = {part.__name__: part for part in PARTS} | {"TagScorer": module.TagScorer}  # type: ignore[attr-defined]
    scorers = eval(line.strip().removeprefix("scorers=").rstrip(","), dict(names))
    registry = PolicyRegistry(Parts(BUILTIN.filters, scorers, BUILTIN.pickers))
    (preset,) = blocks("yaml")
    policy = registry.build("green", preset.encode(), "green.yaml")
    found = candidates(backend("coal"), backend("gale", tags=("wind",)), backend("gas"))
    found[1].replica.load.in_flight = 20
    plan = decide(route_request(), found, policy, Random(1), explain=True)
    assert plan.steps[0].replica.name == "gale"
    assert [name for name, _, _ in plan.terms] == ["tag", "queue"]
