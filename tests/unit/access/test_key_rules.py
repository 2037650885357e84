"""What teams and keys may look like."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access import rules
from gateway.types.errors import BadRequest
from gateway.types.keys import KeyLimits

NOW = 1_800_000_000_000_000


@pytest.mark.parametrize("slug", ["a", "0", "team-a", "a" * 64])
def test_slugs_that_are_allowed(slug: str) -> None:
    """Small letters, digits and dashes, up to 64."""
    assert rules.checked_slug(slug) == slug


@pytest.mark.parametrize("slug", ["", "-a", "A", "a b", "a_b", "ä", "a" * 65, "a\n", "../a", "١"])
def test_slugs_that_are_refused(slug: str) -> None:
    """Everything else, with the field named."""
    with pytest.raises(BadRequest) as caught:
        rules.checked_slug(slug)
    assert caught.value.param == "slug"


@pytest.mark.parametrize("name", ["", "   ", "a" * 201, "a\x00b", "a\nb"])
def test_names_that_are_refused(name: str) -> None:
    """Empty, endless or unprintable names."""
    with pytest.raises(BadRequest):
        rules.checked_name(name)


def test_names_lose_outer_space() -> None:
    """A name is kept without the space around it."""
    assert rules.checked_name("  Research group 7 ") == "Research group 7"


def test_models_are_kept_once_and_in_order() -> None:
    """A list may name a model twice; None means all and an empty list is refused as a likely mistake."""
    assert rules.checked_models(["b", "a", "b"]) == ("b", "a")
    assert rules.checked_models(None) is None
    for models in ([], [""], [" a"], ["a" * 201], ["a\x00"], ["m"] * 1001):
        with pytest.raises(BadRequest) as caught:
            rules.checked_models(models)
        assert caught.value.param == "models"


@pytest.mark.parametrize("name", ["rpm", "tpm", "concurrent"])
def test_a_limit_is_at_least_one(name: str) -> None:
    """Zero, negative and absurd limits are refused by name."""
    assert rules.checked_limits(KeyLimits(**{name: 1})) == KeyLimits(**{name: 1})
    for value in (0, -1, 10**13):
        with pytest.raises(BadRequest) as caught:
            rules.checked_limits(KeyLimits(**{name: value}))
        assert caught.value.param == f"limits.{name}"


def test_a_key_expires_in_the_future_or_never() -> None:
    """An expiry that is past is refused, for a key is stopped in other ways."""
    assert rules.checked_expiry(None, NOW) is None
    assert rules.checked_expiry(NOW + 1, NOW) == NOW + 1
    for moment in (NOW, NOW - 1, 0, -1, rules.LAST_MOMENT_US + 1):
        with pytest.raises(BadRequest):
            rules.checked_expiry(moment, NOW)


@pytest.mark.parametrize("overlap", [-1.0, math.nan, math.inf, 91 * 86_400.0])
def test_overlaps_that_are_refused(overlap: float) -> None:
    """Negative, endless and undefined overlaps."""
    with pytest.raises(BadRequest):
        rules.checked_overlap(overlap)


@given(st.text("ABCDEFG0123456789", min_size=4, max_size=15))
def test_a_refused_secret_is_never_repeated(secret: str) -> None:
    """A chosen key that is too short is refused, and the message does not hold it."""
    with pytest.raises(BadRequest) as caught:
        rules.checked_secret(secret)
    assert secret not in caught.value.message


@pytest.mark.parametrize("secret", [" " + "a" * 20, "a" * 20 + " ", "a\n" + "b" * 20, "a" * 513, "ü" * 257])
def test_secrets_no_header_could_carry_are_refused(secret: str) -> None:
    """Outer space, control characters and more bytes than a key may have."""
    with pytest.raises(BadRequest):
        rules.checked_secret(secret)


def test_a_secret_of_sixteen_characters_is_enough() -> None:
    """The shortest key an operator may choose."""
    assert rules.checked_secret("sixteen letters.") == "sixteen letters."
