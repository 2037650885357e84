"""The organization, which is whoever runs this gateway: its members and settings. For management keys only."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel

from gateway.access.management import ManagementKeys
from gateway.admin.answer import REFUSED, Limit, Offset, answered
from gateway.admin.door import management_only
from gateway.admin.guardrails.schemas import ORGANIZATION
from gateway.types.method import Asking
from gateway.types.workspaces import MEMBERS


class PersonData(BaseModel):
    """Somebody who belongs to a workspace."""

    id: str
    email: str
    first_name: str | None
    last_name: str | None
    role: str


class PeopleAnswer(BaseModel):
    """A page of people, by id."""

    data: list[PersonData]
    total_count: int


class SettingsData(BaseModel):
    """Settings: keys are shown only the models that they may use."""

    id: str
    is_filtered_model_catalog_enabled: bool


class SettingsAnswer(BaseModel):
    """The settings."""

    data: SettingsData


def build_router(books: Asking, management: ManagementKeys) -> APIRouter:
    """Return the routes of the organization."""
    router = APIRouter(
        prefix="/api/v1/organization",
        tags=["organization"],
        dependencies=management_only(management),
        responses=REFUSED,
    )

    @router.get("/members", response_model=PeopleAnswer, summary="Everybody who belongs to a workspace")
    async def members(offset: Offset = 0, limit: Limit = 50) -> Response:
        people: dict[str, str] = {}
        for member in await books.ask(MEMBERS, (None,)):
            if people.get(member.user_id) != "admin":
                people[member.user_id] = member.role
        data: list[dict[str, Any]] = [
            {"id": user, "email": user, "first_name": None, "last_name": None, "role": f"org:{role}"}
            for user, role in sorted(people.items())
        ]
        return answered({"data": data[offset : offset + limit], "total_count": len(data)})

    @router.get("/settings", response_model=SettingsAnswer, summary="Settings of the organization")
    async def settings() -> Response:
        return answered({"data": {"id": ORGANIZATION, "is_filtered_model_catalog_enabled": True}})

    return router
