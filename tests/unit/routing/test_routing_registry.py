"""Presets: what is accepted, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.interface import Parts, Refusal
from gateway.routing.pipeline import Policy
from gateway.routing.registry import PolicyRegistry, PresetError
from policies import BUILTIN, PRESETS

GOOD = """\
description: A test.
filters:
  - name: health
  - name: capability
scorers:
  - {name: price, weight: 3, params: {exponent: 2}}
  - {name: queue}
picker: {name: best, params: {near: 0.1}}
"""
REGISTRY = PolicyRegistry(BUILTIN)
ORDER = [member.name for member in Refusal]


def build(text: str) -> Policy:
    """Return the policy of ``text``."""
    return REGISTRY.build("test", text.encode(), "test.yaml")


def refused(text: str) -> str:
    """Return what is said of ``text``."""
    with pytest.raises(PresetError) as caught:
        build(text)
    assert caught.value.problems
    return str(caught.value)


def test_a_preset_becomes_a_policy() -> None:
    """Names become parts, weights become shares of 1, a weight left out is 1."""
    made = build(GOOD)
    assert (made.name, made.description) == ("test", "A test.")
    assert [(scorer.name, share) for scorer, share in made.scorers] == [("price", 0.75), ("queue", 0.25)]
    assert made.picker.name == "best"


def test_filters_run_by_what_they_refuse() -> None:
    """What can never be served is dropped before what cannot be served now, in whatever order a preset names them."""
    binding = {part.name for part in BUILTIN.binding_filters}
    made = build(GOOD).filters
    assert [part.name for part in made if part.name not in binding] == ["capability", "health"]
    assert binding < {part.name for part in made}
    assert [part.refusal.name for part in made] == sorted((part.refusal.name for part in made), key=ORDER.index)
    assert [member.name for member in Refusal] == ["UNSUPPORTED", "TOO_LONG", "UNAVAILABLE"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("name: price", "name: prices"), 'test.yaml:6:6 scorers[0].name: there is no "prices" here -> did you mean'),
        (("name: health", "name: helth"), 'filters[0].name: there is no "helth" here -> did you mean "health"?'),
        (("name: best,", "name: worst,"), 'picker.name: there is no "worst" here'),
        (("exponent: 2", "exponnet: 2"), 'scorers[0].params.exponnet: is not known here -> did you mean "exponent"?'),
        (("exponent: 2", "exponent: 99"), "scorers[0].params.exponent: expected"),
        (("exponent: 2", 'exponent: "2"'), "scorers[0].params.exponent: expected `float`, got `str`"),
        (("weight: 3", "weight: 0"), "scorers[0].weight: expected `float` > 0"),
        (("weight: 3", "weight: -1"), "scorers[0].weight: expected"),
        (("near: 0.1", "near: 1"), "picker.params.near: expected"),
        (("description: A test.", "desc: A test."), "desc: is not known here"),
        (("description: A test.\n", ""), "object missing required field `description`"),
        (("- name: capability", "- capability"), "filters[1]: expected `object`, got `str`"),
        (("- name: capability", "- {name: capability, params: {x: 1}}"), "filters[1].params.x: is not known here"),
        (("picker:", "picker: {name: best}\npicker:"), "is there twice"),
        (("picker:", "\tpicker:"), "is not valid YAML here"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_mend(change: tuple[str, str], words: str) -> None:
    """A preset is refused with file, line, key, what is wrong and what to write instead."""
    assert words in refused(GOOD.replace(*change))


def test_all_unknown_names_are_told_at_once() -> None:
    """One look at the errors is enough to mend them all."""
    text = GOOD.replace("name: price", "name: prices").replace("name: health", "name: helth")
    assert refused(text).count("there is no") == 2


@pytest.mark.parametrize("text", ["", "- a list", "text", "description: x\nscorers: []\nfilters: []\npicker: {}\n"])
def test_what_is_no_preset_at_all(text: str) -> None:
    """Empty files and other shapes are refused like any other mistake."""
    assert refused(text)


def test_a_folder_of_presets(tmp_path: Path) -> None:
    """Every YAML file is a preset under its own name, and all mistakes of all files are told at once."""
    (tmp_path / "mine.yaml").write_text(GOOD)
    (tmp_path / "notes.txt").write_text("not a preset")
    assert list(REGISTRY.load(tmp_path)) == ["mine"]
    (tmp_path / "bad.yaml").write_text(GOOD.replace("queue", "quue"))
    (tmp_path / "worse.yaml").write_text(GOOD.replace("best", "bset"))
    with pytest.raises(PresetError) as caught:
        REGISTRY.load(tmp_path)
    assert [problem.file for problem in caught.value.problems] == [
        str(tmp_path / "bad.yaml"),
        str(tmp_path / "worse.yaml"),
    ]


def test_presets_that_ship_with_the_gateway_are_good() -> None:
    """Each built-in preset loads, checks health, and says what it is for."""
    made = REGISTRY.load(PRESETS)
    assert {"balanced", "cheapest", "fastest", "openrouter"} <= set(made)
    binding = {part.name for part in BUILTIN.binding_filters}
    for policy in made.values():
        assert [part.name for part in policy.filters if part.name not in binding] == ["capability", "context", "health"]
        assert not policy.scorers or sum(share for _, share in policy.scorers) == pytest.approx(1.0)
        assert policy.description.endswith(".")


def test_two_parts_of_one_name_are_refused() -> None:
    """A name means one thing."""
    with pytest.raises(ValueError, match="one name"):
        PolicyRegistry(Parts(BUILTIN.filters + BUILTIN.filters[:1], BUILTIN.scorers, BUILTIN.pickers))


words = st.sampled_from(
    ["name", "price", "health", "best", "filters", "scorers", "picker", "description", "weight", "params", ":", " ",
     "- ", "{", "}", "[", "]", "\n", "\n  ", "1", "-1", ".nan", "~", '"x"', ","]
)  # fmt: skip


@given(st.lists(words, max_size=30).map("".join) | st.text(max_size=60))
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    """Whatever is in a preset file, the outcome is a policy or a list of problems."""
    problems: tuple[object, ...] = ()
    made: Policy | None = None
    try:
        made = REGISTRY.build("x", text.encode("utf-8", "surrogatepass"), "x.yaml")
    except PresetError as error:
        problems = error.problems
    assert problems or (made is not None and made.scorers)
