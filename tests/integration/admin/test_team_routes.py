"""Team management over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

TEAMS = "/api/v1/teams"


async def test_teams_are_made_and_listed(operator: httpx.AsyncClient) -> None:
    """201 with the team; the list is by slug and begins with what was there before."""
    made = await operator.post(TEAMS, json={"slug": "research", "name": "Research"})
    assert made.status_code == 201
    data = made.json()["data"]
    assert (data["slug"], data["name"]) == ("research", "Research")
    assert data["created_at"].endswith("Z")
    assert (await operator.post(TEAMS, json={"slug": "alpha"})).json()["data"]["name"] == "alpha"
    listed = (await operator.get(TEAMS)).json()["data"]
    assert [team["slug"] for team in listed] == ["alpha", "default", "research"]
    assert listed[2] == data


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "slug"),
        ({"slug": "Big"}, "slug"),
        ({"slug": "default"}, "slug"),
        ({"slug": "a", "name": ""}, "name"),
        ({"slug": "a", "role": "admin"}, "role"),
        ({"slug": ["a"]}, "slug"),
    ],
)
async def test_a_bad_team_is_refused_by_field(operator: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    """400 with the field at fault, and no team is made."""
    response = await operator.post(TEAMS, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert len((await operator.get(TEAMS)).json()["data"]) == 1
