"""Settings: what this gateway runs with, to look at; it is changed in the configuration file."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from dashboards.visit import Page, Visit
from gateway.console.roles import GLOBAL_ROLES, PERMISSIONS, TEAM_ROLES, WHOLE, Permission, Role

PATH: Final = "/console/settings"


async def shown(visit: Visit) -> Response:
    """Show it. No secret is among it."""
    config = visit.site.config()
    return visit.render(
        "settings.html",
        config=config,
        sources=[str(source.path) for source in config.sources],
        permissions=PERMISSIONS,
        roles=list(Role),
        global_roles=GLOBAL_ROLES,
        team_roles=TEAM_ROLES,
        whole=WHOLE,
    )


PAGES: Final = (Page(PATH, shown, Permission.USERS_CHANGE),)
