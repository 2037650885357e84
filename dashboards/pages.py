"""Every page and form there is, with what it needs: the table that routes, menu and tests go by."""

from __future__ import annotations

from typing import Final

from dashboards.views import (
    activity,
    audit,
    billing,
    budgets,
    fleet,
    front,
    keys,
    live,
    management_keys,
    model_page,
    models,
    overview,
    playground,
    price_import,
    profile,
    rankings,
    routing,
    settings,
    single_sign_on,
    teams,
    users,
)
from dashboards.visit import Page

PAGES: Final[tuple[Page, ...]] = (
    *front.PAGES,
    *single_sign_on.PAGES,
    *overview.PAGES,
    *live.PAGES,
    *fleet.PAGES,
    *routing.PAGES,
    *activity.PAGES,
    *management_keys.PAGES,
    *keys.PAGES,
    *teams.PAGES,
    *budgets.PAGES,
    *models.PAGES,
    *price_import.PAGES,
    *billing.PAGES,
    *playground.PAGES,
    *users.PAGES,
    *audit.PAGES,
    *settings.PAGES,
    *profile.PAGES,
    *rankings.PAGES,
    *model_page.PAGES,
    *front.LAST,
)
