"""Presets as values: named defaults of requests, of a team, in versions that never change. Nothing here raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.types.method import Method, method


class PresetVersion(msgspec.Struct, frozen=True):
    """One version.

    Attributes:
        version: its number, from 1.
        config: fields of a request body that hold where the request says nothing.
        system_prompt: what the system is told first, ``""`` for nothing.
        creator: public id of the key that made it, ``""`` for a management key.
        created_at: microseconds since 1970.
    """

    version: int
    config: dict[str, Any]
    system_prompt: str
    creator: str
    created_at: int


class Preset(msgspec.Struct, frozen=True):
    """A preset with the version that is used; times are microseconds since 1970."""

    team: str
    slug: str
    created_at: int
    updated_at: int
    designated: PresetVersion


PRESETS: Final[Method[tuple[Sequence[Preset], int]]] = method(
    "presets.list", tuple[str | None, int, int], tuple[tuple[Preset, ...], int]
)
"""Team (or None for all), offset and limit to a page and the count of all."""
PRESET: Final[Method[Preset]] = method("presets.get", tuple[str, str], Preset)
PUT_PRESET: Final[Method[Preset]] = method(
    "presets.put", tuple[str, str, dict[str, Any], str, str], Preset, repeatable=False
)
"""Team, slug, config, system prompt and creator: a new version, which is used from now on."""
PRESET_VERSIONS: Final[Method[tuple[Sequence[PresetVersion], int]]] = method(
    "presets.versions", tuple[str, str, int, int], tuple[tuple[PresetVersion, ...], int]
)
"""Team, slug, offset and limit to a page, newest first, and the count of all."""
PRESET_VERSION: Final[Method[PresetVersion]] = method("presets.version", tuple[str, str, int], PresetVersion)
DELETE_PRESET: Final[Method[None]] = method("presets.delete", tuple[str, str], None)
