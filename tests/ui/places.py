"""Every page that is looked at, and as whom."""

from __future__ import annotations

import re
import time

import httpx

from tests.ui.house import MINE, House

OWNERS = (
    "/console",
    "/console?span=24h",
    "/console?span=90d",
    "/console/fleet",
    "/console/routing",
    "/console/routing?model=qwen/qwen3-32b",
    "/console/routing/presets/balanced",
    "/console/activity",
    "/console/activity?by=team&measure=charge&span=30d",
    "/console/activity?by=key&span=90d",
    "/console/activity?by=team&span=90d&model=qwen/qwen3-32b",
    f"/console/activity?by=model&span=90d&team={MINE}",
    "/console/keys",
    "/console/keys?sort=spend",
    "/console/keys/new",
    "/console/keys/management",
    "/console/teams",
    f"/console/teams/{MINE}",
    "/console/budgets",
    "/console/models",
    "/console/models/import",
    "/console/billing",
    "/console/playground",
    "/console/users",
    "/console/audit",
    "/console/settings",
    "/console/profile",
    "/console/no-such-page",
)
"""Pages as the owner sees them; the last is the designed 404."""
OTHERS = (
    ("team_admin", "/console"),
    ("team_admin", "/console/keys"),
    ("billing", "/console/billing"),
    ("viewer", "/console/fleet"),
    ("nobody", "/console/profile"),
    ("nobody", "/console"),
    ("", "/console/sign-in"),
)
"""Pages that look different to others."""


RANKED = (
    ("", "/rankings?days=90"),
    ("", "/rankings?by=app&measure=requests&days=7"),
    ("", "/rankings?measure=tokens_per_dollar&days=365"),
    ("", "/rankings?by=model&days=30&to=2020-01-31"),
    ("", "/models/qwen/qwen3-32b"),
    ("", "/models/openai/gpt-oss-120b"),
    ("owner", "/rankings?by=team&measure=spend"),
    ("team_viewer", "/rankings"),
)
"""Rankings with charts of each kind and an empty one, pages of models that are served and that are not any more."""


def places(house: House) -> list[tuple[str, str]]:
    """Return role and path of every page, those included whose names only the running gateway knows."""
    key = house.do(house.stage.keeper.keys())[0].key_id
    named = [f"/console/keys/{key}"]
    with house.client("owner") as client:
        for page, pattern in (
            ("billing", r"/console/billing/[0-9-]{7}"),
            ("routing", r"/console/routing/gen-[0-9a-f]+"),
        ):
            named.append(_link(client, page, pattern))
    return [("owner", path) for path in (*OWNERS, *named)] + list(OTHERS) + list(RANKED)


def _link(client: httpx.Client, page: str, pattern: str) -> str:
    """Return the first link of a page that follows ``pattern``: what it leads to is written a little later."""
    until = time.monotonic() + 20.0
    while (found := re.search(pattern, client.get(f"/console/{page}").text)) is None:
        assert time.monotonic() < until, f"{page} has no {pattern}"
        time.sleep(0.2)
    return found[0]


def expected_status(role: str, path: str) -> int:
    """Return the status that a place is answered with."""
    if path == "/console/no-such-page":
        return 404
    return 403 if (role, path) == ("nobody", "/console") else 200
