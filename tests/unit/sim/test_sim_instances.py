"""Minimal instances of JSON schemas."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sim.instances import instance


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Judge ``value`` by the parts of JSON Schema the tests below use."""
    if "enum" in schema:
        return value in schema["enum"]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return isinstance(value, dict) and all(fits(value[name], part) for name, part in properties.items())
        case "array":
            enough = isinstance(value, list) and len(value) >= schema.get("minItems", 0)
            return enough and all(fits(item, schema["items"]) for item in value)
        case "string":
            return isinstance(value, str) and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 99)
        case "integer":
            return type(value) is int and schema.get("minimum", value) <= value <= schema.get("maximum", value)
        case "number":
            return isinstance(value, int | float) and schema.get("minimum", value) <= value
        case "boolean":
            return isinstance(value, bool)
        case _:
            return value is None


leaves = st.one_of(
    st.just({"type": "string"}),
    st.integers(0, 20).map(lambda n: {"type": "string", "minLength": n}),
    st.integers(0, 20).map(lambda n: {"type": "string", "maxLength": n}),
    st.integers(-50, 50).map(lambda n: {"type": "integer", "minimum": n}),
    st.integers(-50, 50).map(lambda n: {"type": "integer", "maximum": n}),
    st.floats(-50, 50).map(lambda n: {"type": "number", "minimum": n}),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.lists(st.text(max_size=5), min_size=1, max_size=3).map(lambda words: {"enum": words}),
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(st.text(max_size=5), inner, max_size=3).map(lambda p: {"type": "object", "properties": p}),
        st.tuples(inner, st.integers(0, 3)).map(lambda t: {"type": "array", "items": t[0], "minItems": t[1]}),
    ),
    max_leaves=8,
)


@given(schemas)
def test_the_instance_fits_its_schema(schema: dict[str, Any]) -> None:
    """Whatever a client's schema asks for, the answer has that shape."""
    assert fits(instance(schema), schema)


KEYWORDS = ("type", "properties", "items", "enum", "anyOf", "allOf", "$ref", "minItems", "minLength", "minimum")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_nonsense_never_raises(schema: object) -> None:
    """A schema that makes no sense still gives some JSON value."""
    msgspec.json.encode(instance(schema))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#/$defs/City", "$defs": {"City": {"type": "string"}}}, "river"),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]}, {"a": 1, "b": 2}),
        ({"type": ["string", "null"]}, "river"),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "default": 9}, 9),
        (True, {}),
    ],
)
def test_the_words_clients_use(schema: object, value: object) -> None:
    """References, unions and bounds are followed."""
    assert instance(schema) == value


def test_a_schema_that_contains_itself_ends() -> None:
    """Recursion through references stops."""
    assert instance({"$ref": "#"}) is None
    deep = instance({"type": "object", "properties": {"next": {"$ref": "#"}}})
    assert isinstance(deep, dict)
