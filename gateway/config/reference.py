"""The reference of the configuration file and the environment, made from the schema itself.

``docs/configuration.md`` holds exactly this text between its markers; a test compares the two.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config.prices import RatesSection, ServiceTiersSection
from gateway.config.schema import FileSection


def file_reference() -> str:
    """Return a Markdown table with a row per key of the file: key, need, default, meaning."""
    rows = ["| key | needed | default | meaning |", "|---|---|---|---|", *_rows(FileSection, "")]
    return "\n".join(rows) + "\n"


def environment_reference(settings: type[BaseModel]) -> str:
    """Return a Markdown table with a row per environment variable of ``settings``: name, default, meaning."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    rows += [
        f"| `{field.validation_alias}` | {_default(field)} | {_text(field)} |"
        for field in settings.model_fields.values()
    ]
    return "\n".join(rows) + "\n"


def _rows(section: type[BaseModel], prefix: str, *, tier: bool = False) -> Iterator[str]:
    """Yield the rows of ``section``; a ``tier`` of a price has the price's own keys, which are not told again."""
    for name, field in section.model_fields.items():
        if tier and name in RatesSection.model_fields:
            continue
        shape, inner = _inner(field.annotation)
        key = f"{prefix}{field.alias or name}{shape}"
        yield f"| `{key}` | {'yes' if field.is_required() else ''} | {_default(field)} | {_text(field)} |"
        if inner is not None:
            within = issubclass(section, RatesSection | ServiceTiersSection)
            yield from _rows(inner, f"{key}.", tier=within)


def _inner(annotation: Any) -> tuple[str, type[BaseModel] | None]:
    """Return how a key repeats (``[]`` or nothing) and the section inside it, if there is one."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _inner(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return next((found for found in map(_inner, arguments) if found[1] is not None), ("", None))
    if origin in (list, tuple):
        _, inner = _inner(arguments[0])
        return "[]", inner
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "", annotation
    return "", None


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if field.is_required() or value is None or value in ((), [], {}) or isinstance(value, BaseModel):
        return ""
    return f"`{value}`"


def _text(field: FieldInfo) -> str:
    return (field.description or "").replace("|", "\\|").replace("\n", " ")
