"""Models and prices with a search and pages, so that a hundred models are as easy to find one in as three."""

from __future__ import annotations

import re

import pytest

from dashboards.views import models
from tests.ui.house import House


def shown(text: str) -> list[str]:
    """Return the ids of the models in the table."""
    return re.findall(r'<small class="mono"><a href="/models/([^"]+)"', text)


@pytest.mark.parametrize("role", ["owner", "viewer"])
def test_models_are_found_by_what_they_or_their_backends_are_called(house: House, role: str) -> None:
    """A part of the id, the name, an endpoint or a backend is enough; nothing found says so."""
    with house.client(role) as client:
        every = shown(client.get("/console/models").text)
        assert {"qwen/qwen3-32b", "qwen/qwen3-8b"} <= {*every}
        assert shown(client.get("/console/models?q=QWEN3-8B").text) == ["qwen/qwen3-8b"]
        assert shown(client.get("/console/models?q=gpu-a").text) == ["qwen/qwen3-32b"]
        assert {*shown(client.get("/console/models?q=cloud").text)} == {*every}
        nothing = client.get("/console/models?q=%3Cb%3E")
        assert (nothing.status_code, "No such model" in nothing.text, "<b>" in nothing.text) == (200, True, False)


def test_models_come_in_pages_and_all_can_be_priced(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is on one page and in the form; a page that there is not is an empty one, nonsense the first."""
    monkeypatch.setattr(models, "SHOWN", 1)
    with house.client("owner") as client:
        first, second = (client.get(f"/console/models?page={page}").text for page in (1, 2))
        assert len(shown(first)) == len(shown(second)) == 1
        assert shown(first) != shown(second)
        assert "page=2" in first
        assert "<option>qwen/qwen3-8b</option>" in first
        assert shown(client.get("/console/models?page=999999").text) == []
        for nonsense in ("0", "-1", "x", "9" * 30, "%C2%B2"):
            assert shown(client.get(f"/console/models?page={nonsense}").text) == shown(first), nonsense
