"""How deep JSON may be nested that comes from outside: what can be read can be too deep to be written again."""

from __future__ import annotations

from typing import Any, Final

MAX_DEPTH: Final = 128
"""Levels of nesting: far more than any schema has, and far less than what stops a JSON writer."""


def too_deep(value: Any) -> bool:
    """Return whether ``value`` is nested deeper than ``MAX_DEPTH``, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for each in level
            for inner in (each.values() if type(each) is dict else each)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True
