"""Routes of team management: ``/api/v1/teams``, for management keys only. Errors are ``WeirError``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from gateway.access.management import ManagementKeys
from gateway.admin.body import documented, reader
from gateway.admin.door import management_only
from gateway.admin.teams.schemas import CreateTeamBody, TeamAnswer, TeamsAnswer, team_data
from gateway.types.keys import KeyAdmin

_Create = Annotated[CreateTeamBody, Depends(reader(CreateTeamBody))]


def build_router(keys: KeyAdmin, management: ManagementKeys) -> APIRouter:
    """Return the routes of team management.

    Args:
        keys: who keeps the teams.
        management: the keys that may use the routes.
    """
    router = APIRouter(
        prefix="/api/v1/teams",
        tags=["teams"],
        dependencies=management_only(management),
        responses={"4XX": {"description": "Refused; `error.message` says why."}},
    )

    @router.post("", status_code=201, openapi_extra=documented(CreateTeamBody))
    async def create(body: _Create) -> TeamAnswer:
        """Make a team."""
        name = body.slug if body.name is None else body.name
        return TeamAnswer(data=team_data(await keys.create_team(body.slug, name)))

    @router.get("")
    async def list_all() -> TeamsAnswer:
        """List all teams."""
        return TeamsAnswer(data=[team_data(record) for record in await keys.teams()])

    return router
