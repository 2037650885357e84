"""From what pydantic found to what the operator is told: the key, what is wrong, the mend.

A kind of finding without a text of its own here keeps pydantic's words, with the field's description as the
mend; so a new rule in the schema is explained, if less well, from its first day.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gateway.config.document import Document, Key
from gateway.config.problem import Problem, RefusedError, choice, shown
from gateway.config.schema import FileSection
from gateway.config.snapshot import KINDS

_TYPES: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
}
_BOUNDS: Final = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
}
_MISPLACED: Final = {
    "keys": "keys never stand in this file: make them with `weir keys create`",
    "server": "the process is set by environment variables: PORT, WEIR_MAX_BODY_BYTES and others",
    "<<": "merge keys are not supported: write the keys out",
}


def explain(document: Document, found: Iterable[ErrorDetails]) -> list[Problem]:
    """Return the problems of ``document`` that stand behind pydantic's findings, in their order."""
    problems = []
    for detail in found:
        key: Key = tuple(part for part in detail["loc"] if part != "[key]")
        value = document.value(key)
        if value is None and (not key or key in document.places):
            continue  # a key without a value is already a problem of the document
        if value and detail["type"] == "too_short":
            continue  # there are entries, only none that is valid, and each was told
        message, mend = _texts(detail, key, value)
        problems.append(document.problem(key, message, mend))
    return problems


def _texts(detail: ErrorDetails, key: Key, value: object) -> tuple[str, str]:
    """Return message and mend of one finding about ``value`` at ``key``."""
    kind, context = detail["type"], detail.get("ctx", {})
    cause = context.get("error")
    field = _field(key)
    if isinstance(cause, RefusedError):
        return cause.message, cause.mend
    if kind == "missing":
        return "is missing", _addition(str(key[-1]), field)
    if kind == "extra_forbidden":
        return "is not a known key", _renaming(key)
    if kind == "literal_error" and isinstance(value, str):
        options = KINDS if key[-1] == "kind" else tuple(get_args(_core(field.annotation if field else None)))
        known = ", ".join(options)
        return f"{shown(value)} is not one of: {known}", choice(value, options, none="")
    if kind in _TYPES or kind == "literal_error":
        return _mistyped(_TYPES.get(kind, "text"), value, field)
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        limit = context[bound]
        return f"must be {words} {limit:g}" if isinstance(limit, float) else f"must be {words} {limit}", _purpose(field)
    if kind == "too_short":
        return "needs at least one entry", "add one"
    return detail["msg"].removeprefix("Input "), _purpose(field)


def _mistyped(wanted: str, value: object, field: FieldInfo | None) -> tuple[str, str]:
    message = f"must be {wanted}, not {_described(value)}"
    if wanted == "text" and isinstance(value, int | float):
        return message, "put it in quotes"
    if isinstance(value, str) and wanted in ("a whole number", "a number") and value.isdecimal():
        return message, "remove the quotes"
    return message, _purpose(field)


def _described(value: object) -> str:
    match value:
        case bool():
            return "true or false"
        case int():
            return "a number"
        case float():
            return "a fraction"
        case str():
            return "text"
        case tuple():
            return "a list"
        case _:
            return "a mapping"


def _purpose(field: FieldInfo | None) -> str:
    return field.description if field is not None and field.description else "correct the value"


def _addition(name: str, field: FieldInfo | None) -> str:
    example = f": {field.examples[0]}" if field is not None and field.examples else ""
    return f"add `{name}{example}`; {_purpose(field)}"


def _renaming(key: Key) -> str:
    name = str(key[-1])
    if name in _MISPLACED and (len(key) == 1 or name == "<<"):
        return _MISPLACED[name]
    section = _annotation(key[:-1])
    known = tuple(section.model_fields) if _is_section(section) else ()
    return choice(name, known, none="remove it")


def _field(key: Key) -> FieldInfo | None:
    """Return the field that ``key`` names, or the one that the value at ``key`` is a part of."""
    for end in range(len(key), 0, -1):
        section = _annotation(key[: end - 1])
        if _is_section(section):
            field: FieldInfo | None = section.model_fields.get(str(key[end - 1]))
            return field
    return None


def _annotation(key: Key) -> Any:
    """Return the type that the schema gives to the value at ``key``, or None where it has none."""
    current: Any = FileSection
    for part in key:
        arguments = get_args(current)
        if _is_section(current):
            field = current.model_fields.get(str(part))
            current = _core(field.annotation) if field is not None else None
        elif get_origin(current) is tuple:
            current = _core(arguments[0])
        elif get_origin(current) is dict:
            current = _core(arguments[1])
        else:
            return None
    return current


def _core(annotation: Any) -> Any:
    """Return ``annotation`` without ``Annotated`` and ``| None``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _core(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _core(next(part for part in get_args(annotation) if part is not types.NoneType))
    return annotation


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
