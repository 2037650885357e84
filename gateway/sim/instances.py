"""The smallest JSON value that fits a JSON schema, for structured answers and tool arguments.

Covers what clients send in practice (types, enum, const, bounds, required and optional properties, arrays, local
references, anyOf / oneOf / allOf). ``pattern`` and ``format`` are not solved: such a string is plain. Never raises:
a schema that makes no sense gives ``null``, absurd lengths are cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor

_DEEPEST = 12
_LONGEST_ARRAY = 64
_LONGEST_STRING = 4_096


def instance(schema: object) -> object:
    """Return the smallest value that fits ``schema``."""
    return _value(schema, schema, 0)


def _value(schema: object, root: object, depth: int) -> object:
    if schema is True or schema == {}:
        return {}
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    if "$ref" in schema:
        return _value(_resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    if "default" in schema:
        return schema["default"]
    for word in ("anyOf", "oneOf"):
        options = schema.get(word)
        if isinstance(options, list) and options:
            return _value(options[0], root, depth + 1)
    parts = schema.get("allOf")
    if isinstance(parts, list) and parts:
        return _merged(parts, root, depth)
    return _typed(schema, root, depth)


def _merged(parts: list[object], root: object, depth: int) -> object:
    values = [_value(part, root, depth + 1) for part in parts]
    merged: dict[str, object] = {}
    for value in values:
        if not isinstance(value, dict):
            return value
        merged.update(value)
    return merged


def _typed(schema: Mapping[str, object], root: object, depth: int) -> object:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "object"
    match kind:
        case "object":
            properties = schema.get("properties")
            if not isinstance(properties, Mapping):
                return {}
            return {str(name): _value(part, root, depth + 1) for name, part in properties.items()}
        case "array":
            length = _length(schema.get("minItems"), _LONGEST_ARRAY)
            return [_value(schema.get("items"), root, depth + 1)] * length
        case "string":
            longest = _length(schema.get("maxLength", len("river")), len("river"))
            return "river"[:longest].ljust(_length(schema.get("minLength"), _LONGEST_STRING), "r")
        case "integer":
            return _number(schema, whole=True)
        case "number":
            return _number(schema, whole=False)
        case "boolean":
            return True
        case _:
            return None


def _length(given: object, most: int) -> int:
    return min(max(0, given), most) if isinstance(given, int) else 0


def _number(schema: Mapping[str, object], *, whole: bool) -> float:
    least, most = _bound(schema, "minimum", "exclusiveMinimum", 1), _bound(schema, "maximum", "exclusiveMaximum", -1)
    value: float = 1
    if least is not None and value < least:
        value = ceil(least) if whole else least
    if most is not None and value > most:
        value = floor(most) if whole else most
    return int(value) if whole else value


def _bound(schema: Mapping[str, object], name: str, exclusive: str, step: int) -> float | None:
    closed, open_ = schema.get(name), schema.get(exclusive)
    if isinstance(open_, int | float) and not isinstance(open_, bool):
        return open_ + step
    return closed if isinstance(closed, int | float) and not isinstance(closed, bool) else None


def _resolve(reference: object, root: object) -> object:
    node = root
    for key in str(reference).removeprefix("#").strip("/").split("/"):
        if not key:
            continue
        node = node.get(key) if isinstance(node, Mapping) else None
    return node
