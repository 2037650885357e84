"""Whether the tool calls of an answer can be run: what the quality of an endpoint for tools is measured by.

A call is sound when it names a tool of the request and its arguments are a JSON object with the members that the tool's
schema requires, of the types it names; the input of a custom tool is any text. That is less than a whole JSON schema
says, and enough to tell endpoints apart. Nothing here raises, whatever schema a caller sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
_FREE: Final = object()
"""In place of the schema of a custom tool."""


class ToolCalls:
    """Collects the tool calls of one answer, from a stream or from the whole of it."""

    __slots__ = ("_calls", "_schemas")

    def __init__(self, tools: list[Any]) -> None:
        self._calls: dict[tuple[int, int], list[str]] = {}
        self._schemas: dict[str, Any] = {}
        for tool in tools:
            function = tool.get("function") if isinstance(tool, dict) else None
            if isinstance(function, dict) and isinstance(function.get("name"), str):
                self._schemas[function["name"]] = function.get("parameters")
            custom = tool.get("custom") if isinstance(tool, dict) else None
            if isinstance(custom, dict) and isinstance(custom.get("name"), str):
                self._schemas[custom["name"]] = _FREE

    def take(self, choice: Mapping[str, Any]) -> None:
        """Take a canonical choice: its message, or its delta of a stream."""
        said = choice.get("delta") or choice.get("message")
        calls = said.get("tool_calls") if said is not None else None
        for place, call in enumerate(calls or ()):
            function = call.get("function") or call.get("custom") or {}
            parts = self._calls.setdefault((choice["index"], call.get("index", place)), ["", ""])
            parts[0] += function.get("name") or ""
            parts[1] += function.get("arguments") or ""

    @property
    def sound(self) -> bool | None:
        """Whether every call can be run; None when there is none."""
        if not self._calls:
            return None
        return all(name in self._schemas and _fits(text, self._schemas[name]) for name, text in self._calls.values())


def _fits(text: str, schema: Any) -> bool:
    """Return whether ``text`` is a JSON object that ``schema`` allows as far as its first level goes."""
    if schema is _FREE:
        return True
    try:
        arguments = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    if not isinstance(arguments, dict):
        return False
    if not isinstance(schema, dict):
        return True
    required, members = schema.get("required"), schema.get("properties")
    if isinstance(required, list) and any(isinstance(name, str) and name not in arguments for name in required):
        return False
    if not isinstance(members, dict):
        return True
    return all(_typed(value, members.get(name)) for name, value in arguments.items())


def _typed(value: Any, schema: Any) -> bool:
    """Return whether ``value`` has the one type that ``schema`` names, if it names one."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    wanted = _TYPES.get(kind) if isinstance(kind, str) else None
    if wanted is None:
        return True
    return isinstance(value, wanted) and (not isinstance(value, bool) or kind == "boolean")
