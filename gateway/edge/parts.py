"""Which part of the paths beside inference one belongs to: parts are made one by one, when they are first asked for.

A part goes by the nouns that its paths begin with, after ``/v1`` or ``/api/v1``. What begins otherwise, and nouns that
nobody knows, are the rest: pages, the OpenAPI document, and the answer that there is no such path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

REST: Final = ""
"""The part of all paths that are of no other."""

NOUNS: Final[Mapping[str, tuple[str, ...]]] = {
    "models": ("models", "model", "embeddings", "endpoints", "providers", "generation", "content"),
    "keys": ("keys", "key", "auth"),
    "budgets": ("budgets",),
    "teams": ("teams",),
    "prices": ("prices",),
    "route": ("route",),
    "boards": ("rankings", "datasets", "apps"),
    "billing": ("billing", "activity", "exports", "usage", "organization"),
    "responses": ("responses",),
    "workspaces": ("workspaces",),
    "guardrails": ("guardrails",),
    "byok": ("byok",),
    "presets": ("presets",),
    "credits": ("credits",),
    "analytics": ("analytics",),
}
"""The nouns of each part."""

_PART_OF: Final = {noun: part for part, nouns in NOUNS.items() for noun in nouns}


def part_of(path: str) -> str:
    """Return the part that a decoded path belongs to."""
    beginning, version, tail = path.partition("/v1/")
    return _PART_OF.get(tail.partition("/")[0], REST) if version and beginning in {"", "/api"} else REST
