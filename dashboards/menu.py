"""The menu: what there is, in groups, and what of it a visitor may see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.console.roles import Permission

if TYPE_CHECKING:
    from dashboards.visit import Visit


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the menu; ``icon`` is the name of a symbol in the page's sprite."""

    title: str
    path: str
    icon: str
    permission: Permission | None


MENU: Final[tuple[tuple[str, tuple[Entry, ...]], ...]] = (
    (
        "Watch",
        (
            Entry("Overview", "/console", "gauge", Permission.USAGE_SEE),
            Entry("Fleet", "/console/fleet", "servers", Permission.FLEET_SEE),
            Entry("Routing", "/console/routing", "branch", Permission.ROUTING_SEE),
            Entry("Activity", "/console/activity", "pulse", Permission.USAGE_SEE),
            Entry("Rankings", "/rankings", "podium", None),
        ),
    ),
    (
        "Manage",
        (
            Entry("Keys", "/console/keys", "key", Permission.KEYS_SEE),
            Entry("Teams", "/console/teams", "people", Permission.TEAMS_SEE),
            Entry("Budgets", "/console/budgets", "purse", Permission.BUDGETS_SEE),
            Entry("Models & prices", "/console/models", "tag", Permission.MODELS_SEE),
            Entry("Billing", "/console/billing", "receipt", Permission.BILLING_SEE),
        ),
    ),
    (
        "Operate",
        (
            Entry("Playground", "/console/playground", "play", Permission.PLAYGROUND_USE),
            Entry("Users", "/console/users", "badge", Permission.USERS_CHANGE),
            Entry("Audit log", "/console/audit", "scroll", Permission.AUDIT_SEE),
            Entry("Settings", "/console/settings", "sliders", Permission.USERS_CHANGE),
        ),
    ),
)


def menu(visit: Visit) -> list[tuple[str, list[tuple[Entry, bool]]]]:
    """Return the groups of lines a visitor may see, each with whether it is where they are."""
    here = visit.request.url.path
    groups = []
    for title, entries in MENU:
        lines = [
            (entry, here == entry.path or (entry.path != "/console" and here.startswith(entry.path + "/")))
            for entry in entries
            if visit.may(entry.permission or Permission.USAGE_SEE) or (entry.permission is None and visit.site.ranked)
        ]
        if lines:
            groups.append((title, lines))
    return groups
