"""The compatibility page says what the tests here show, and what is not served is said with its reason."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.clients.conformance import PAGE, render
from tests.clients.house import House
from tests.clients.shows import SHOWN, WHOLE
from tests.clients.unserved import NOT_SERVED, operations, why_not
from tests.harness import NO_TLS

HASH = "0" * 64


def test_the_page_lists_every_test_of_a_client(request: pytest.FixtureRequest) -> None:
    """As it is made when they all pass; ``make conformance`` makes it of their results."""
    shown, page = request.config.stash[SHOWN], PAGE.read_text()
    for _, endpoint, feature in shown:
        assert f"| `{endpoint}` | {feature} |" in page
    if request.config.stash[WHOLE]:
        assert page == render(shown)


def test_every_path_of_the_client_is_served_or_has_a_reason(house: House) -> None:
    """Nothing that OpenRouter's client can ask for is forgotten, and nothing served is called missing."""
    known = operations()
    assert len(known) > 100
    served: set[tuple[str, str]] = set()
    missing: set[tuple[str, str]] = set()
    with httpx.Client(base_url=house.url + "/api/v1", verify=NO_TLS, timeout=60.0) as http:
        for path, method in known:
            asked = re.sub(r"\{[^}]+\}", HASH, path)
            headers = {"authorization": f"Bearer {house.admin}"}
            answer = http.request(method, asked, headers=headers, json={} if method != "GET" else None)
            gone = answer.status_code == 405 or (answer.status_code == 404 and "no such path" in answer.text)
            (missing if gone else served).add((path, method))
    assert sorted(pair for pair in missing if why_not(*pair) is None) == []
    assert sorted(pair for pair in served if why_not(*pair) is not None) == []
    named = [prefix.partition(" ")[2] or prefix for prefix in NOT_SERVED]
    assert [prefix for prefix in named if not any(path.startswith(prefix) for path, _ in known)] == []
