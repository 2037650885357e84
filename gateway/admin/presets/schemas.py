"""What presets look like, in OpenRouter's shape. Ids are made of workspace, slug and version."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from gateway.admin.answer import iso
from gateway.types.presets import Preset, PresetVersion


class VersionData(BaseModel):
    """One version; ``config`` are fields of a request body."""

    id: str
    preset_id: str
    version: int
    config: dict[str, Any]
    system_prompt: str | None
    creator_id: str
    created_at: str
    updated_at: str


class PresetListed(BaseModel):
    """A preset."""

    id: str
    slug: str
    name: str
    description: str | None
    status: str
    status_updated_at: str | None
    workspace_id: str
    creator_user_id: str | None
    designated_version_id: str
    created_at: str
    updated_at: str


class PresetData(PresetListed):
    """A preset with the version that is used."""

    designated_version: VersionData


class PresetAnswer(BaseModel):
    """One preset."""

    data: PresetData


class PresetsAnswer(BaseModel):
    """A page of presets."""

    data: list[PresetListed]
    total_count: int


class VersionAnswer(BaseModel):
    """One version."""

    data: VersionData


class VersionsAnswer(BaseModel):
    """A page of versions, newest first."""

    data: list[VersionData]
    total_count: int


class DeletedAnswer(BaseModel):
    """A preset was deleted."""

    deleted: Literal[True] = True


def preset_data(found: Preset) -> dict[str, Any]:
    """Return a preset as it is shown; see ``PresetData``."""
    return {
        "id": f"{found.team}/{found.slug}",
        "slug": found.slug,
        "name": found.slug,
        "description": None,
        "status": "active",
        "status_updated_at": None,
        "workspace_id": found.team,
        "creator_user_id": None,
        "designated_version_id": _version_id(found.team, found.slug, found.designated.version),
        "created_at": iso(found.created_at),
        "updated_at": iso(found.updated_at),
        "designated_version": version_data(found.team, found.slug, found.designated),
    }


def version_data(team: str, slug: str, version: PresetVersion) -> dict[str, Any]:
    """Return a version as it is shown; see ``VersionData``."""
    return {
        "id": _version_id(team, slug, version.version),
        "preset_id": f"{team}/{slug}",
        "version": version.version,
        "config": version.config,
        "system_prompt": version.system_prompt or None,
        "creator_id": version.creator,
        "created_at": iso(version.created_at),
        "updated_at": iso(version.created_at),
    }


def _version_id(team: str, slug: str, version: int) -> str:
    return f"{team}/{slug}@{version}"
