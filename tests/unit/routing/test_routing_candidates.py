"""From a name to a model."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from gateway.fleet.build import build
from gateway.fleet.snapshot import Fleet
from gateway.routing.candidates import resolve
from gateway.routing.refusal import near_names
from gateway.types.errors import NotFound
from tests.fakes.fleet import MODEL, backend, endpoint, model, price_id, snapshot

NEXT = "qwen/qwen3-32b-next"


@pytest.fixture
def fleet() -> Fleet:
    """Two models and an alias that sends one request in twenty to the second."""
    spec = backend("gpu-a")
    return build(
        snapshot(
            [spec],
            [model([endpoint(spec)]), model([endpoint(spec, NEXT)], NEXT)],
            aliases={"house-default": ((MODEL, 95), (NEXT, 5)), "house": ((NEXT, 1),)},
        ),
        None,
        price_id,
    )


def test_an_id_is_its_model(fleet: Fleet) -> None:
    """A model's own id needs no alias and no luck."""
    assert resolve(fleet, MODEL, Random(1)).id == MODEL


def test_an_alias_of_one_model_is_that_model(fleet: Fleet) -> None:
    """A plain alias always leads to the same place."""
    assert {resolve(fleet, "house", Random(seed)).id for seed in range(50)} == {NEXT}


def test_an_alias_draws_by_weight(fleet: Fleet) -> None:
    """A canary of 5 % gets about one request in twenty, and the same seed draws the same."""
    drawn = Counter(resolve(fleet, "house-default", rng).id for rng in [Random(7)] for _ in range(4_000))
    assert 0.03 < drawn[NEXT] / 4_000 < 0.07
    assert drawn[MODEL] + drawn[NEXT] == 4_000
    assert resolve(fleet, "house-default", Random(3)) is resolve(fleet, "house-default", Random(3))


def test_an_alias_draws_among_what_the_caller_may_use(fleet: Fleet) -> None:
    """A canary that somebody may not use costs him nothing; who may use nothing of it is told so by who checks."""
    rng = Random(7)

    def drawn(*models: str) -> set[str]:
        usable = {(model_id, "house-default") for model_id in models}
        return {resolve(fleet, "house-default", rng, lambda *asked: asked in usable).id for _ in range(400)}

    assert drawn(MODEL) == {MODEL}
    assert drawn(NEXT) == {NEXT}
    assert drawn() == drawn(MODEL, NEXT) == {MODEL, NEXT}


class Edge(Random):
    """Draws the largest number there is below 1."""

    def random(self) -> float:
        """Return it."""
        return 1.0 - 2.0**-53


def test_the_largest_draw_still_draws(fleet: Fleet) -> None:
    """Rounding at the edge of the weights never leaves a request without a model."""
    assert resolve(fleet, "house-default", Edge()).id == NEXT


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("qwen/qwen3-23b", [MODEL]),
        ("Qwen/Qwen3-32B", [MODEL, NEXT]),
        ("qwen3-32b", [MODEL]),
        ("house-defualt", ["house-default"]),
        ("gpt-4o", []),
        ("", []),
    ],
)
def test_an_unknown_name_is_told_what_it_may_have_meant(fleet: Fleet, name: str, near: list[str]) -> None:
    """The error names models and aliases that look alike, in words and as data."""
    with pytest.raises(NotFound) as caught:
        resolve(fleet, name, Random(1))
    found = caught.value.metadata["near"]
    assert found[: len(near)] == near
    assert bool(found) is bool(near)
    assert all(suggestion in caught.value.message for suggestion in found)
    assert (caught.value.code, caught.value.param) == (404, "model")


def test_a_name_of_any_length_costs_little(fleet: Fleet) -> None:
    """What is shown and compared of a caller's name is bounded."""
    with pytest.raises(NotFound) as caught:
        resolve(fleet, "q" * 1_000_000, Random(1))
    assert len(caught.value.message) < 300


def test_near_names_are_few_and_each_once() -> None:
    """A name that is near both with and without its author is suggested once, and at most three are."""
    known = [f"author/model-{number}" for number in range(9)]
    found = near_names("author/model-1", known)
    assert found[0] == "author/model-1"
    assert len(set(found)) == len(found) == 3
