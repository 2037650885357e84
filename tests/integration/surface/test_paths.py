"""OpenRouter's paths: each is served, or the documentation says that it is not and why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import openrouter
import pytest
from starlette.routing import Match

from gateway.edge.inference import PATHS
from gateway.edge.parts import NOUNS, REST, part_of
from gateway.resources import build_part, build_resources
from tests.harness import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")
PAGE = Path(__file__).parents[3] / "docs" / "api.md"
TITLE = "## OpenRouter's paths that are not served"
BESIDE = {("POST", "/messages"), ("POST", "/completions"), ("POST", "/chat/completions"), ("GET", "/auth/key")}
"""What OpenRouter documents and its clients do not have."""


def official() -> set[tuple[str, str]]:
    """Return method and path of everything that the official client can ask for."""
    found = set(BESIDE)
    for file in Path(openrouter.__file__).parent.glob("*.py"):
        pairs = re.findall(r'method="([A-Z]+)",\s+path="([^"]+)"', file.read_text())
        found |= {(method, path) for method, path in pairs}
    return found


def refused() -> set[tuple[str, str]]:
    """Return what the documentation says is not served."""
    table = PAGE.read_text().partition(TITLE)[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in table.split("\n") if line.startswith("| `")]
    assert all(reason.strip() for _, reason in rows), "each has a reason"
    return {
        (method, path)
        for cell, _ in rows
        for methods, path in re.findall(r"`([A-Z, ]+) (/[^`]*)`", cell)
        for method in methods.split(", ")
    }


def is_served(routes: list[Any], method: str, path: str) -> bool:
    """Return whether anything answers ``method`` on ``path`` below ``/api/v1``."""
    url = "/api/v1" + re.sub(r"\{[^}]*\}", "x", path)
    if method == "POST" and url.encode() in PATHS:
        return True
    scope = {"type": "http", "method": method, "path": url, "root_path": "", "headers": []}
    return any(
        route.matches(scope)[0] is Match.FULL
        for route in routes
        if getattr(route, "path", "") != "/console/{path:path}"
    )


async def test_every_path_of_the_official_client_is_served_or_said_not_to_be(stage: Stage) -> None:
    """Neither more nor less: what is served is not in the table, and what is in the table is OpenRouter's."""
    everything = official()
    assert len(everything) > 100
    routes: list[Any] = list(build_resources(stage.gateway).routes)
    served = {(method, path) for method, path in everything if is_served(routes, method, path)}
    assert sorted(everything - served) == sorted(refused())
    assert {
        ("GET", "/models"),
        ("POST", "/responses"),
        ("PUT", "/workspaces/{workspace_ref}/budgets/{interval}"),
    } <= served


async def test_every_path_is_made_with_its_part_and_with_no_other(stage: Stage) -> None:
    """Whoever asks for a path reaches the part that has it; no part is without a path."""

    def paths(routes: list[Any]) -> set[str]:
        inner = [paths(list(route.original_router.routes)) for route in routes if hasattr(route, "original_router")]
        return {route.path for route in routes if hasattr(route, "path")}.union(*inner)

    made = {part: paths(list(build_part(stage.gateway, part).routes)) for part in (*NOUNS, REST)}
    assert {part: {part_of(path) for path in made[part]} for part in made} == {part: {part} for part in made}
    assert set().union(*made.values()) == paths(list(build_resources(stage.gateway).routes))
