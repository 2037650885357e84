"""Which models a key may use."""

from __future__ import annotations

from gateway.access.principal import Principal


def test_a_key_without_a_list_may_use_every_model() -> None:
    """None means all."""
    assert Principal("k", "t").may_use("any/model")


def test_a_listed_model_or_alias_may_be_used_and_nothing_else() -> None:
    """An alias in the list allows the calls made through it, not the model behind it by its own name."""
    principal = Principal("k", "t", models=frozenset({"m/one", "house-default"}))
    assert principal.may_use("m/one")
    assert principal.may_use("m/two", alias="house-default")
    assert not principal.may_use("m/two")
    assert not principal.may_use("m/two", alias="another")


def test_an_empty_list_allows_nothing() -> None:
    """An empty list is not the same as no list."""
    assert not Principal("k", "t", models=frozenset()).may_use("m/one", alias="m/one")
